"""Labels and ages of the PhysioNet/CinC Challenges 2020 and 2021: codes only, and in one vocabulary.

The same ECG carries SNOMED CT codes in one release and the nine abbreviations of CPSC 2018 in another, and some
codes are two names of one finding. Here every finding has one code, so that a task names it once.
"""

from __future__ import annotations

from collections.abc import Iterable

from ecgdist.sources.wfdb_header import parse_age, parse_labels

_SNOMED = "snomed:"

# What the Challenge wrote for each abbreviation when it issued the same records again (A0001 to A6877).
_OF_CPSC = {
    "cpsc:Normal": "snomed:426783006",
    "cpsc:AF": "snomed:164889003",
    "cpsc:I-AVB": "snomed:270492004",
    "cpsc:LBBB": "snomed:164909002",
    "cpsc:RBBB": "snomed:59118001",
    "cpsc:PAC": "snomed:284470004",
    "cpsc:PVC": "snomed:164884008",
    "cpsc:STD": "snomed:429622005",
    "cpsc:STE": "snomed:164931005",
}

# Pairs that the Challenge 2021 scores as one class (Reyna et al. 2021): the first code becomes the second.
# Ventricular ectopics (164884008), which it does not score, stay apart from both codes of the third pair.
_EQUAL = {
    "snomed:713427006": "snomed:59118001",  # complete right bundle branch block
    "snomed:63593006": "snomed:284470004",  # supraventricular premature beats
    "snomed:17338001": "snomed:427172004",  # ventricular premature beats
    "snomed:733534002": "snomed:164909002",  # complete left bundle branch block
}

# Tables of Verhoeff's check digit, by which SNOMED CT codes end (SNOMED CT Release File Specifications, chapter 6).
_DIHEDRAL = (
    "0123456789", "1234067895", "2340178956", "3401289567", "4012395678",
    "5987604321", "6598710432", "7659821043", "8765932104", "9876543210",
)  # fmt: skip
_PERMUTATION = (
    "0123456789", "1576283094", "5803796142", "8916043527", "9453126870", "4286573901", "2793806415", "7046913258",
)  # fmt: skip
_CONCEPT_PARTITIONS = ("00", "10")
_MOST_DIGITS = 18


def diagnoses(text: str | None) -> tuple[str, ...]:
    """Codes of a ``Dx`` comment as `parse_labels` reads them, without numbers that are no SNOMED CT code.

    A record number or a date among the codes is no label: by its check digit and the two digits before, a number is
    taken for a code by chance once in 500 times.
    """
    labels = parse_labels(text)
    return tuple(
        label for label in labels if not label.startswith(_SNOMED) or _is_concept(label[len(_SNOMED) :])
    )


def _is_concept(code: str) -> bool:
    """Whether this is a SNOMED CT identifier of a concept; all 133 of the Challenge 2021 are."""
    if not 6 <= len(code) <= _MOST_DIGITS or code[-3:-1] not in _CONCEPT_PARTITIONS:
        return False
    check = 0
    for place, digit in enumerate(reversed(code)):
        check = int(_DIHEDRAL[check][int(_PERMUTATION[place % 8][int(digit)])])
    return check == 0


def canonical(labels: Iterable[str]) -> tuple[str, ...]:
    """Labels of a Challenge header with one code for each finding, sorted; other labels stay as they are.

    ``("cpsc:AF", "snomed:713427006")`` -> ``("snomed:164889003", "snomed:59118001")``.
    """
    in_snomed = (_OF_CPSC.get(label, label) for label in labels)
    return tuple(sorted({_EQUAL.get(label, label) for label in in_snomed}))


def age_in_years(text: str | None) -> float | None:
    """Years as `parse_age` reads them, and PTB-XL's mark for ages above 89 as `without_mark` does."""
    age = parse_age(text)
    return None if age is None else without_mark(age)


def without_mark(age: float) -> float:
    """The age; 90 for the 300 by which PTB-XL and its copies mean "above 89" (Wagner et al. 2020, columns)."""
    return 90.0 if age == 300.0 else age
