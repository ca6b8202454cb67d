"""The St Petersburg INCART 12-lead Arrhythmia Database (incartdb 1.0.0): 75 half hours of 32 Holter patients.

257 Hz, a gain of its own for each record, leads ``AVR AVL AVF`` in capitals. Three comment lines, of which the
diagnoses are often absent and the last is free text::

    #<age>: 65 <sex>: F <diagnoses> Coronary artery disease, arterial hypertension
    # patient 1
    # PVCs, noise

Age, sex and the number of the patient are read. Diagnoses are free text, so an INCART record has no labels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from ecgdist.sources.named_folder import NamedFolder
from ecgdist.sources.wfdb_folder import Details
from ecgdist.sources.wfdb_header import parse_age, parse_sex

_AGE = re.compile(r"<age>:\s*(\S+)")
_SEX = re.compile(r"<sex>:\s*(\S+)")
_PATIENT = re.compile(r"patient\s+(\d{1,2})")


class Incart(NamedFolder):
    """One record per header; the patient is known when it is read, and without a number it is its own."""

    kind: ClassVar[str] = "incart"
    dataset: ClassVar[str] = "incart"
    licence: ClassVar[str] = "ODC-By 1.0"
    citation: ClassVar[str] = (
        "Tihonenko V, Khaustov A, Ivanov S, Rivin A, Yakushenko E. St Petersburg INCART 12-lead Arrhythmia "
        "Database (version 1.0.0). PhysioNet (2008). https://doi.org/10.13026/C2V88N"
    )
    in_flight: ClassVar[int] = 4  # a record takes 44 MB when it is read
    record_name: ClassVar[re.Pattern[str]] = re.compile(r"I\d{2}")
    example: ClassVar[str] = "I01"

    def _details(self, comments: Sequence[str]) -> Details:
        first = next((comment for comment in comments if "<age>" in comment), "")
        age, sex = _AGE.search(first), _SEX.search(first)
        numbers = {match[1] for match in map(_PATIENT.fullmatch, map(str.strip, comments)) if match}
        return Details(
            patient_id=str(int(numbers.pop())) if len(numbers) == 1 else None,
            age=parse_age(age[1]) if age else None,
            sex=parse_sex(sex[1]) if sex else None,
        )
