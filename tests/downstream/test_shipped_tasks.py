"""The shipped tasks: labels and codes by facts that others publish, and every code is one that its source emits."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ecgdist.corpus.splits import SPLITS
from ecgdist.downstream.assign import assign_splits
from ecgdist.downstream.tasks import MultilabelTask, RegressionTask, load_task, taking_part, task_names
from ecgdist.sample import sample_folder
from ecgdist.sources import open_source
from ecgdist.sources.challenge import challenge_details
from tests.downstream.tables import make_index
from tests.packing.folders import ptbxl_folder
from tests.sources.made import code15_row, made_code15, made_sph, sph_row

# Number of records with each of the 30 codes that the CinC Challenge 2021 scores: in CPSC 2018, Georgia,
# Chapman-Shaoxing and Ningbo, as dx_mapping_scored.csv of its evaluation code has them
# (https://github.com/physionetchallenges/evaluation-2021).
SCORED = {
    164889003: (1221, 570, 1780, 0), 164890007: (0, 186, 445, 7615), 6374002: (0, 116, 0, 385),
    426627000: (0, 6, 0, 7), 733534002: (0, 0, 0, 213), 713427006: (0, 28, 0, 1096), 270492004: (722, 769, 247, 893),
    713426002: (0, 407, 0, 246), 39732003: (0, 940, 382, 1163), 445118002: (0, 180, 0, 380),
    164909002: (236, 231, 205, 248), 251146004: (0, 374, 249, 1364), 698252002: (0, 203, 235, 536),
    426783006: (918, 1752, 1826, 6299), 284470004: (616, 639, 258, 1054), 10370003: (0, 0, 0, 1182),
    365413008: (0, 0, 0, 638), 427172004: (0, 0, 0, 1091), 164947007: (0, 0, 12, 40), 111975006: (0, 1391, 57, 334),
    164917005: (0, 464, 235, 828), 47665007: (0, 83, 215, 638), 59118001: (1857, 542, 454, 195),
    427393009: (0, 455, 0, 2550), 426177001: (0, 1677, 3889, 12670), 427084000: (0, 1261, 12, 40),
    63593006: (0, 1, 0, 9), 164934002: (0, 2306, 1876, 5167), 59931005: (0, 812, 157, 2720), 17338001: (0, 357, 294, 0),
}  # fmt: skip
EQUAL = [(733534002, 164909002), (713427006, 59118001), (284470004, 63593006), (427172004, 17338001)]

# The 44 primary statements of SPH (code.csv of the data set; AHA/ACC/HRS 2007).
AHA = (
    1, 21, 22, 23, 30, 31, 36, 37, 50, 51, 54, 60, 80, 81, 82, 83, 84, 85, 86, 87, 88, 101, 102, 104, 105, 106, 108,
    120, 121, 125, 140, 142, 143, 145, 146, 147, 148, 152, 153, 155, 160, 161, 165, 166,
)  # fmt: skip


def statements() -> list[dict[str, str]]:
    with (sample_folder() / "scp_statements.csv").open(encoding="utf-8", newline="") as file:
        return [row | {"code": row[""]} for row in csv.DictReader(file)]


def multilabel(name: str) -> MultilabelTask:
    task = load_task(name)
    assert isinstance(task, MultilabelTask)
    return task


def codes_of(task: MultilabelTask) -> list[str]:
    return [code for codes in task.labels.values() for code in codes]


@pytest.mark.parametrize("name", task_names())
def test_a_task_names_itself_and_no_code_twice(name: str) -> None:
    task = load_task(name)
    assert task.name == name
    if isinstance(task, MultilabelTask):
        assert len(set(codes_of(task))) == len(codes_of(task))


@pytest.mark.parametrize(
    ("name", "column", "labels"),
    [
        ("ptbxl-all", None, 71),
        ("ptbxl-diagnostic", "diagnostic", 44),
        ("ptbxl-form", "form", 19),
        ("ptbxl-rhythm", "rhythm", 12),
    ],
)
def test_ptb_xl_statements_are_those_of_its_table(name: str, column: str | None, labels: int) -> None:
    task = multilabel(name)
    wanted = {row["code"] for row in statements() if column is None or row[column] in ("1", "1.0")}
    assert len(task.labels) == len(wanted) == labels
    assert task.labels == {code: (f"scp:{code}",) for code in task.labels}
    assert set(task.labels) == wanted


@pytest.mark.parametrize(
    ("name", "column", "classes"),
    [("ptbxl-sub", "diagnostic_subclass", 23), ("ptbxl-super", "diagnostic_class", 5)],
)
def test_ptb_xl_classes_are_those_of_its_table(name: str, column: str, classes: int) -> None:
    wanted: dict[str, set[str]] = {}
    for row in statements():
        if row["diagnostic"] in ("1", "1.0"):
            wanted.setdefault(row[column], set()).add(f"scp:{row['code']}")
    task = multilabel(name)
    assert len(task.labels) == classes
    assert {label: set(codes) for label, codes in task.labels.items()} == wanted


def test_ptb_xl_emits_every_code_whatever_its_likelihood(tmp_path: Path) -> None:
    everything = {row["code"]: 0.0 for row in statements()}
    folder = ptbxl_folder(tmp_path, 1, lambda number, row: row | {"scp_codes": repr(everything)})
    (listing,) = open_source("ptbxl", str(folder)).list_records()
    assert set(codes_of(multilabel("ptbxl-all"))) == set(listing.labels)
    index = make_index(1)
    index["labels"] = [list(listing.labels)] * len(index)
    assert multilabel("ptbxl-super").truth(index).all()


def merged(code: int) -> str:
    """The code that a corpus has for a scored code."""
    (label,) = challenge_details([f"Dx: {code}"]).labels
    return label


def test_codes_that_the_challenge_scores_as_equal_are_one() -> None:
    for one, other in EQUAL:
        assert merged(one) == merged(other)
    assert len({merged(code) for code in SCORED}) == 26


@pytest.mark.parametrize(
    ("name", "columns", "classes"), [("georgia", (1,), 23), ("chapman-ningbo", (2, 3), 26)]
)
def test_challenge_tasks_have_the_scored_classes_that_occur(
    name: str, columns: tuple[int, ...], classes: int
) -> None:
    occurring = {merged(code) for code, counts in SCORED.items() if sum(counts[place] for place in columns)}
    task = multilabel(name)
    assert len(task.labels) == classes
    assert set(codes_of(task)) == occurring


def test_cpsc_2018_has_its_nine_classes_by_the_codes_of_its_abbreviations() -> None:
    task = multilabel("cpsc2018")
    assert list(task.labels) == ["Normal", "AF", "I-AVB", "LBBB", "RBBB", "PAC", "PVC", "STD", "STE"]
    for label, (code,) in task.labels.items():
        assert challenge_details([f"Dx: {label}"]).labels == (code,)


def test_cpsc_extra_takes_no_part() -> None:
    index = made_index(
        [["snomed:164889003"]] * 5, ["cpsc2018", "cpsc2018", "challenge2021", "challenge2021", "georgia"]
    )
    index["record_id"] = ["A0001", "Q0001", "cpsc_2018/g1/A0001", "cpsc_2018_extra/g1/Q0001", "A0001"]
    assert taking_part(index, load_task("cpsc2018")).tolist() == [True, False, True, False, False]


def test_challenge_tasks_take_both_layouts_and_unscored_findings_as_negatives() -> None:
    index = made_index(
        [["snomed:164889003"], ["snomed:428750005"], [], ["snomed:164889003"], ["own:AF"]],
        ["georgia", "challenge2021", "georgia", "challenge2021", "georgia"],
    )
    index["record_id"] = ["E00001", "georgia/g1/E00002", "E00003", "ningbo/g1/JS00001", "E00004"]
    task = multilabel("georgia")
    assert taking_part(index, task).tolist() == [True, True, False, False, False]
    assert task.truth(index)[1].sum() == 0
    assert taking_part(index, load_task("chapman-ningbo")).tolist() == [False, False, False, True, False]


def test_code_15_leaves_out_exams_of_which_nothing_is_known(tmp_path: Path) -> None:
    flags = ("1dAVb", "RBBB", "LBBB", "SB", "ST", "AF")
    rows = [code15_row(exam, 0) for exam in range(1, 9)]
    for row in rows:
        row |= dict.fromkeys((*flags, "normal_ecg"), "False")
    for row, name in zip(rows, (*flags, "normal_ecg"), strict=False):
        row[name] = "True"
    folder = made_code15(tmp_path, rows, {0: list(range(1, 9))})
    listings = sorted(open_source("code15", str(folder)).list_records(), key=lambda each: int(each.record_id))
    index = made_index([list(each.labels) for each in listings], ["code15"] * 8)
    task = multilabel("code15")
    assert tuple(task.labels) == flags
    np.testing.assert_array_equal(task.truth(index), np.eye(8, 6, dtype=bool))
    assert taking_part(index, task).tolist() == [True] * 7 + [False]


def test_sph_has_its_44_statements_whatever_modifies_them(tmp_path: Path) -> None:
    task = multilabel("sph")
    assert sorted(codes_of(task)) == sorted(f"aha:{code}" for code in AHA)
    assert len(AHA) == 44
    (listing,) = open_source(
        "sph", str(made_sph(tmp_path, [sph_row("A1", AHA_Code=";".join(f"{code}+310" for code in AHA))]))
    ).list_records()
    assert set(codes_of(task)) <= set(listing.labels)
    assert task.truth(made_index([list(listing.labels)], ["sph"])).all()


@pytest.mark.parametrize("name", ["age", "ptbxl-age"])
def test_age_is_that_of_adults_up_to_89(name: str) -> None:
    task = load_task(name)
    assert isinstance(task, RegressionTask)
    index = made_index([[]] * 6, ["ptbxl"] * 6)
    index["age"] = [17.0, 18.0, 89.0, 90.0, 61.5, np.nan]
    assert taking_part(index, task).tolist() == [False, True, True, False, True, False]
    np.testing.assert_array_equal(task.numbers(index), index["age"])


@pytest.mark.parametrize("name", [name for name in task_names() if load_task(name).seeded])
def test_tasks_without_an_official_split_say_so_and_have_the_same_one_every_time(name: str) -> None:
    task = load_task(name)
    index = made_index(
        [["snomed:164889003", "code15:AF", "aha:50"]] * 300, [task.source[0].partition("/")[0]] * 300
    )
    index["record_id"] = [f"A{n:04d}" for n in range(300)]
    first, again = (assign_splits(each, task) for each in (index, index.sample(frac=1, random_state=2)))
    assert first.digest == again.digest
    assert "there is no official one" in first.note
    assert not first.official
    sizes = [int(first.rows(split).sum()) for split in SPLITS]
    assert sizes == pytest.approx([240, 30, 30], abs=2)


def made_index(labels: list[list[str]], sources: list[str]) -> pd.DataFrame:
    count = len(labels)
    keys = [f"{n * 2654435761 % 2**32:08x}" * 4 for n in range(count)]
    return pd.DataFrame(
        {
            "record_id": [f"r{n}" for n in range(count)], "source": sources, "segment": 0, "patient_key": keys,
            "age": 60.0, "sex": "female", "labels": pd.Series(labels, dtype=object), "split": None,
        }
    )  # fmt: skip
