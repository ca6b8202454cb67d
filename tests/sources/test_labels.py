"""One vocabulary for the labels of the Challenges."""

import pytest

from ecgdist.sources.labels import age_in_years, canonical, diagnoses

CHALLENGE_2021 = """
164889003 164890007 6374002 426627000 733534002 713427006 270492004 713426002 39732003 445118002
164909002 251146004 698252002 426783006 284470004 10370003 365413008 427172004 164947007 111975006
164917005 47665007 59118001 427393009 426177001 427084000 63593006 164934002 59931005 17338001 233892002
164951009 251187003 61277005 426664006 251139008 57054005 413444003 426434006 54329005 251173003
195080001 195126007 251268003 106068003 713422000 233917008 50799005 29320008 251166008 233897008
251170000 418818005 74615001 426749004 251199005 61721007 698247007 27885002 204384007 53741008
413844008 251198002 82226007 428417006 13640000 164942001 84114007 368009 251259000 251200008 195042002
426183003 425419005 251120003 704997005 49260003 426995002 251164006 426648003 253352002 67741000119109
446813000 425623009 445211001 164873001 55827005 370365005 164865005 164861001 54016002 428750005
164867002 282825002 251205003 67198005 425856008 164912004 253339007 164921003 446358003 67751000119106
314208002 89792004 17366009 65778007 5609005 60423000 49578007 77867006 55930002 429622005 164931005
164930006 251168009 426761007 266257000 251223006 164937009 11157007 164884008 75532003 81898007
164896001 111288001 266249003 195060002 251182009 251266004 164895002 251180001 195101003 74390002
"""


def test_every_code_of_the_challenge_2021_is_a_label() -> None:
    codes = CHALLENGE_2021.split()
    assert len(set(codes)) == 133
    assert len(diagnoses(",".join(codes))) == 133


@pytest.mark.parametrize(
    "text",
    ["5551234567", "19900105", "164889004", "10000032", "123", "0", "9" * 40, "Roe", "1990-01-05", "", None],
)
def test_numbers_and_words_that_are_no_code_are_no_label(text: str | None) -> None:
    assert diagnoses(text) == ()
    assert diagnoses(f"AF, 164889003, {text}") == ("cpsc:AF", "snomed:164889003")


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
