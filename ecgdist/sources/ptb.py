"""The PTB Diagnostic ECG Database (ptbdb 1.0.0): 549 ECGs of 290 patients, 1000 Hz, 32 to 120 s.

``patient001/s0010_re.hea`` names two signal files, ``.dat`` with the twelve leads and ``.xyz`` with the Frank leads
vx, vy and vz, which packing leaves out by default. The header's comments are a clinical summary with dates and
free text; of it age, sex and the reason for admission are read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from ecgdist.sources.named_folder import NamedFolder
from ecgdist.sources.wfdb_folder import Details
from ecgdist.sources.wfdb_header import comment_fields, parse_age, parse_sex

# Every reason for admission that the 549 headers give. Anything else is free text, which is never a label;
# "n/a", as 27 of them say, is no label either.
_REASONS = (
    "Bundle branch block",
    "Cardiomyopathy",
    "Dysrhythmia",
    "Healthy control",
    "Heart failure (NYHA 2)",
    "Heart failure (NYHA 3)",
    "Heart failure (NYHA 4)",
    "Hypertrophy",
    "Myocardial infarction",
    "Myocarditis",
    "Palpitation",
    "Stable angina",
    "Unstable angina",
    "Valvular heart disease",
)
_LABELS = {
    reason.lower(): "ptb:" + re.sub(r"[^a-z0-9]+", "-", reason.lower()).strip("-") for reason in _REASONS
}

_PATIENT = re.compile(r"patient\d{3}")


class Ptb(NamedFolder):
    """One record per header; the patient is the folder, and a record outside of one is its own patient."""

    kind: ClassVar[str] = "ptb"
    dataset: ClassVar[str] = "ptb"
    licence: ClassVar[str] = "ODC-By 1.0"
    citation: ClassVar[str] = (
        "Bousseljot R, Kreiseler D, Schnabel A. Nutzung der EKG-Signaldatenbank CARDIODAT der PTB über das "
        "Internet. Biomed Tech 40, supplement 1 (1995) S317. https://doi.org/10.1515/bmte.1995.40.s1.317; PhysioNet "
        "https://doi.org/10.13026/C28C71"
    )
    record_name: ClassVar[re.Pattern[str]] = re.compile(r"s\d{4}[a-z_]re")
    example: ClassVar[str] = "s0010_re"

    def _patient_of(self, key: str) -> str | None:
        folder = key.rpartition("/")[0].rpartition("/")[2]
        return folder if _PATIENT.fullmatch(folder) else None

    def _details(self, comments: Sequence[str]) -> Details:
        fields = comment_fields(comments)
        label = _LABELS.get(fields.get("reason for admission", "").lower())
        return Details(
            age=parse_age(fields.get("age")),
            sex=parse_sex(fields.get("sex")),
            labels=(label,) if label else (),
        )
