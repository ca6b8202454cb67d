"""One vocabulary for the labels of the Challenges."""

import pytest

from ecgdist.sources.labels import age_in_years, canonical


@pytest.mark.parametrize(
    ("abbreviation", "code"),
    [
        ("Normal", 426783006),
        ("AF", 164889003),
        ("I-AVB", 270492004),
        ("LBBB", 164909002),
        ("RBBB", 59118001),
        ("PAC", 284470004),
        ("PVC", 164884008),
        ("STD", 429622005),
        ("STE", 164931005),
    ],
)
def test_cpsc_abbreviations_become_what_the_challenge_wrote_for_the_same_records(
    abbreviation: str, code: int
) -> None:
    assert canonical([f"cpsc:{abbreviation}"]) == (f"snomed:{code}",)


@pytest.mark.parametrize(
    ("one", "other"),
    [(713427006, 59118001), (284470004, 63593006), (427172004, 17338001), (733534002, 164909002)],
)
def test_codes_that_the_challenge_scores_as_equal_are_one_label(one: int, other: int) -> None:
    both = canonical([f"snomed:{one}", f"snomed:{other}"])
    assert len(both) == 1
    assert canonical([f"snomed:{one}"]) == canonical([f"snomed:{other}"]) == both


def test_ventricular_ectopics_stay_apart_from_premature_contractions() -> None:
    assert len(canonical(["snomed:164884008", "snomed:427172004"])) == 2


def test_other_labels_stay_and_all_are_sorted() -> None:
    assert canonical(["snomed:55827005", "cpsc:AF", "snomed:164889003"]) == (
        "snomed:164889003",
        "snomed:55827005",
    )
    assert canonical([]) == ()


@pytest.mark.parametrize(
    ("text", "years"), [("300", 90.0), ("104", 104.0), ("-1", None), ("NaN", None), (None, None)]
)
def test_marks_are_no_ages(text: str | None, years: float | None) -> None:
    assert age_in_years(text) == years
