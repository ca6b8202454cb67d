"""Data sets in the format of the PhysioNet/CinC Challenges 2020 and 2021, each in a folder of its own.

A record is a header with its MATLAB 4 file (``E00001.hea``, ``E00001.mat``): twelve leads in standard order, gain
1000 or 4880 per mV, 500 Hz. Age, sex and SNOMED CT codes are comments of the header; the first release of 2020
has the CPSC's abbreviations instead, dates such as ``05-May-2020`` and names with ``.mat``. No data set here
publishes patient ids.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar

from ecgdist.sources.labels import age_in_years, canonical, diagnoses
from ecgdist.sources.named_folder import NamedFolder
from ecgdist.sources.wfdb_folder import Details
from ecgdist.sources.wfdb_header import comment_fields, parse_sex

CHALLENGE_2020 = (
    "Perez Alday EA et al. Classification of 12-lead ECGs: the PhysioNet/Computing in Cardiology Challenge 2020. "
    "Physiol Meas 41 (2020) 124003. https://doi.org/10.1088/1361-6579/abc960"
)

RENAMED = {"S23074": "JS23074"}
"""The Ningbo record whose header the Challenge publishes without the J of its signal file."""


def challenge_details(comments: Sequence[str]) -> Details:
    """Age, sex and labels of a Challenge header, the labels in one vocabulary; nothing else is taken from it."""
    fields = comment_fields(comments)
    return Details(
        age=age_in_years(fields.get("age")),
        sex=parse_sex(fields.get("sex")),
        labels=canonical(diagnoses(fields.get("dx"))),
    )


class _ChallengeFormat(NamedFolder):
    """One data set of the Challenge."""

    licence: ClassVar[str] = "CC BY 4.0"

    def _details(self, comments: Sequence[str]) -> Details:
        return challenge_details(comments)


class ChapmanNingbo(_ChallengeFormat):
    """Chapman-Shaoxing and Ningbo (ecg-arrhythmia 1.0.0): 45,152 ECGs of 10 s, one of each patient.

    The headers of JS01052 and JS23074 are published with their first two lines run together; they describe one
    lead less than they announce, and the two records are refused.
    """

    kind: ClassVar[str] = "chapman-ningbo"
    dataset: ClassVar[str] = "chapman-ningbo"
    citation: ClassVar[str] = (
        "Zheng J et al. A 12-lead electrocardiogram database for arrhythmia research covering more than 10,000 "
        "patients. Sci Data 7, 48 (2020). https://doi.org/10.1038/s41597-020-0386-x; Zheng J et al. Optimal "
        "multi-stage arrhythmia classification approach. Sci Rep 10, 2898 (2020). "
        "https://doi.org/10.1038/s41598-020-59821-7; PhysioNet https://doi.org/10.13026/wgex-er52"
    )
    renamed: ClassVar[Mapping[str, str]] = RENAMED
    record_name: ClassVar[re.Pattern[str]] = re.compile(r"J?S\d{5}")
    example: ClassVar[str] = "JS00001"


class Georgia(_ChallengeFormat):
    """Georgia (G12EC), the training set of 10,344 ECGs of 5 to 10 s."""

    kind: ClassVar[str] = "georgia"
    dataset: ClassVar[str] = "georgia"
    citation: ClassVar[str] = CHALLENGE_2020
    record_name: ClassVar[re.Pattern[str]] = re.compile(r"E\d{5}")
    example: ClassVar[str] = "E00001"


class Cpsc2018(_ChallengeFormat):
    """CPSC 2018 (6,877 ECGs, A0001 on) and CPSC-Extra (3,453, Q0001 on) of 6 to 144 s."""

    kind: ClassVar[str] = "cpsc2018"
    dataset: ClassVar[str] = "cpsc2018"
    citation: ClassVar[str] = (
        "Liu F et al. An open access database for evaluating the algorithms of electrocardiogram rhythm and "
        "morphology abnormality detection. J Med Imaging Health Inform 8 (2018) 1368-1373. "
        f"https://doi.org/10.1166/jmihi.2018.2442; {CHALLENGE_2020}"
    )
    record_name: ClassVar[re.Pattern[str]] = re.compile(r"[AQ]\d{4}")
    example: ClassVar[str] = "A0001"
