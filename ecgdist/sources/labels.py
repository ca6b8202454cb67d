"""Labels and ages of the PhysioNet/CinC Challenges 2020 and 2021, in one vocabulary.

The same ECG carries SNOMED CT codes in one release and the nine abbreviations of CPSC 2018 in another, and some
codes are two names of one finding. Here every finding has one code, so that a task names it once.
"""

from __future__ import annotations

from collections.abc import Iterable

from ecgdist.sources.wfdb_header import parse_age

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

# Pairs that the Challenge 2021 scores as one class (Reyna et al. 2021): the second code becomes the first.
# Ventricular ectopics (164884008), which it does not score, stay apart from both codes of the third pair.
_EQUAL = {
    "snomed:713427006": "snomed:59118001",  # complete right bundle branch block
    "snomed:63593006": "snomed:284470004",  # supraventricular premature beats
    "snomed:17338001": "snomed:427172004",  # ventricular premature beats
    "snomed:733534002": "snomed:164909002",  # complete left bundle branch block
}


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
