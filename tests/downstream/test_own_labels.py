"""Labels of one's own from a table: joined to the corpus by record, or refused in one sentence that says what to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ecgdist.config import build
from ecgdist.corpus import Corpus
from ecgdist.corpus.patients import KEY_VARIABLE, PatientHasher
from ecgdist.downstream.evaluate import ProbeConfig, Setup, index_table
from ecgdist.downstream.own_labels import OwnLabels
from ecgdist.downstream.tasks import MultilabelTask, RegressionTask, taking_part
from ecgdist.errors import DataError
from ecgdist.packing.privacy import keyed_record_id
from tests.corpus.corpora import made_ecg, row, write_corpus


def corpus(folder: Path, count: int = 30, source: str = "made") -> Corpus:
    return write_corpus(
        folder, [row(made_ecg(n), f"r{n}", source=source, labels=["x:a"]) for n in range(count)]
    )


def table(folder: Path, text: str) -> str:
    path = folder / "mine.csv"
    path.write_text(text)
    return str(path)


def joined(where: str, corpus: Corpus) -> tuple[OwnLabels, pd.DataFrame, tuple[str, ...]]:
    own = OwnLabels.read(where)
    return (own, *own.join(index_table(corpus), corpus))


def test_columns_of_ones_and_zeros_are_labels(tmp_path: Path) -> None:
    where = table(tmp_path, "record_id,AF,big heart\nr2,1,0\nr0,0,0\nr7,1,1.0\n")
    own, index, notes = joined(where, corpus(tmp_path / "c"))
    assert isinstance(own.task, MultilabelTask)
    assert tuple(own.task.labels) == ("AF", "big heart")
    taken = taking_part(index, own.task)
    assert index["record_id"][taken].tolist() == ["r0", "r2", "r7"]
    assert own.task.truth(index)[taken].tolist() == [[False, False], [True, False], [True, True]]
    assert own.task.seeded is not None
    assert notes == ()


def test_a_table_as_a_spreadsheet_saves_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_bytes("\ufeffrecord_id,Linksschenkelblock (kompl.),größer\r\nr2,1,0\r\nr0,0,1\r\n".encode())
    own, index, _ = joined(str(path), corpus(tmp_path / "c"))
    assert isinstance(own.task, MultilabelTask)
    assert list(own.task.labels) == ["Linksschenkelblock (kompl.)", "größer"]
    assert own.task.truth(index)[taking_part(index, own.task)].tolist() == [[False, True], [True, False]]


def test_one_column_of_other_numbers_is_predicted_as_a_number(tmp_path: Path) -> None:
    where = table(tmp_path, "record_id,lvef\nr2,55.5\nr0,30\n")
    own, index, notes = joined(where, corpus(tmp_path / "c"))
    assert isinstance(own.task, RegressionTask)
    taken = taking_part(index, own.task)
    assert own.task.numbers(index)[taken].tolist() == [30.0, 55.5]
    assert "lvef is predicted as a number" in notes[0]


def test_ages_of_your_own_replace_those_of_the_corpus(tmp_path: Path) -> None:
    own, index, _ = joined(table(tmp_path, "record_id,age\nr1,44\nr2,45\n"), corpus(tmp_path / "c"))
    assert index["age"][taking_part(index, own.task)].tolist() == [44, 45]


def test_a_split_of_your_own_is_taken_as_it_is(tmp_path: Path) -> None:
    rows = [f"r{n},{n // 3 % 2},{('train', 'validation', 'test')[n % 3]}" for n in range(30)]
    where = table(tmp_path, "\n".join(["record_id,A,split", *rows]))
    setup = Setup.of(build(ProbeConfig, {"task": where}), corpus(tmp_path / "c", 31))
    assert setup.splits.split.tolist() == [*(["train", "validation", "test"] * 10), None]
    assert setup.splits.official
    assert setup.splits.note == f"split named in {where}"
    assert setup.splits.excluded == {"without a label of the task": 1}


def test_without_a_split_whole_patients_are_drawn_by_chance(tmp_path: Path) -> None:
    rows = [f"r{n},{n % 2}" for n in range(30)]
    where = table(tmp_path, "\n".join(["record_id,A", *rows]))
    held = corpus(tmp_path / "c")
    setup = Setup.of(build(ProbeConfig, {"task": where}), held)
    assert "seeded split of whole patients, there is no official one" in setup.splits.note
    digest = setup.task_digest
    Path(where).write_text("\n".join(["record_id,A", *rows]).replace("r3,1", "r3,0"))
    assert Setup.of(build(ProbeConfig, {"task": where}), held).task_digest != digest


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,A\nr1,1\n", "has no column record_id, but 'id,A'; separate columns by commas"),
        ("record_id;A\nr1;1\n", "has no column record_id, but 'record_id;A'; separate columns by commas"),
        ("", "has no column record_id, but ''"),
        ("record_id,A,A\nr1,1,0\n", "has the column A twice; rename one of them"),
        ("record_id, A\nr1,1\n", "the name of column ' A' has spaces around it"),
        ("record_id,A\n", "has a header line and no records"),
        ("record_id\nr1\n", "has no labels; beside record_id it needs a column"),
        ("record_id,,A\nr1,1,1\n", "has a column without a name"),
        ("record_id,A\nr1,1\n,0\n", "row 2: record_id is empty"),
        ("record_id,A\nr1,1\nr2,0\nr1,1\n", "names r1 more than once; keep one row for each record"),
        ("record_id,A,B\nr1,1,\nr2,0,\n", "column B is empty; fill it or take it out"),
        (
            "record_id,A,B\nr1,1,0\nr2,0,\n",
            r"row 2: B is empty; fill it, or leave the record out \(1 such rows\)",
        ),
        ("record_id,A\nr1,yes\n", "row 1: A is 'yes'; write a number: 1 or 0 for a label"),
        ("record_id,A\nr1,nan\n", "row 1: A is 'nan'"),
        ("record_id,A\nr1,inf\n", "row 1: A is 'inf'"),
        ("record_id,A,B\nr1,1,0\nr2,2,0\n", "row 2: A is 2; with several labels each is 1 or 0"),
        ("record_id,A,split\nr1,1,dev\n", "row 1: split is 'dev'; write train, validation, test"),
        (
            "record_id,labels\nr1,1\n",
            "a label cannot be called labels, as a column of a corpus is; rename it",
        ),
        ("record_id,A\nr1,1,1\n", "more cells than there are columns"),
    ],
)
def test_a_table_that_is_not_whole_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        OwnLabels.read(table(tmp_path, text))


def test_unknown_records_are_named_with_ids_that_would_do(tmp_path: Path) -> None:
    where = table(tmp_path, "record_id,A\nr1,1\nR9,0\nr99,0\n")
    with pytest.raises(
        DataError, match=r"2 of 3 records are not in the corpus \(R9, r99\); its ids look like r0, r1"
    ):
        joined(where, corpus(tmp_path / "c"))


@dataclass
class OtherFacts:
    """What a table asks a corpus for, changed."""

    manifest: object
    refused: object
    columns: object = field(default=None)


def test_records_that_packing_refused_are_counted(tmp_path: Path) -> None:
    held = corpus(tmp_path / "c")
    refused = pa.table({"source": ["made"], "record_id": ["r99"], "reason": ["nan"]})
    own = OwnLabels.read(table(tmp_path, "record_id,A\nr1,1\nr99,0\n"))
    index, notes = own.join(index_table(held), OtherFacts(held.manifest, refused))  # type: ignore[arg-type]
    assert taking_part(index, own.task).sum() == 1
    assert notes == (f"1 records of {own.where} were refused in packing",)


def test_ids_of_two_sources_need_a_column_that_says_which(tmp_path: Path) -> None:
    rows = [row(made_ecg(n), f"r{n % 2}", source=("a", "b")[n // 2], labels=[]) for n in range(4)]
    held = write_corpus(tmp_path / "c", rows)
    with pytest.raises(DataError, match="record r0 is in a and in b; add a column source"):
        joined(table(tmp_path, "record_id,A\nr0,1\n"), held)
    own, index, _ = joined(table(tmp_path, "record_id,source,A\nr0,b,1\nr1,b,0\n"), held)
    taken = taking_part(index, own.task)
    assert taken.tolist() == [False, False, True, True]
    with pytest.raises(DataError, match="row 1: source is empty"):
        OwnLabels.read(table(tmp_path, "record_id,source,A\nr0,,1\n"))


def test_a_private_corpus_is_joined_by_the_sources_own_ids_with_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hasher = PatientHasher(b"a key of the hospital")
    rows = [row(made_ecg(n), keyed_record_id(hasher, "made", f"r{n}"), source="made") for n in range(4)]
    held = write_corpus(tmp_path / "c", rows, hasher=hasher)
    private = OtherFacts(held.manifest.model_copy(update={"private": True}), held.refused)
    own = OwnLabels.read(table(tmp_path, "record_id,A\nr2,1\nr3,0\n"))
    with pytest.raises(
        DataError, match="the corpus is private and hides the ids of its records; set ECGDIST_PATIENT"
    ):
        own.join(index_table(held), private)  # type: ignore[arg-type]
    monkeypatch.setenv(KEY_VARIABLE, "a key of the hospital")
    index, _ = own.join(index_table(held), private)  # type: ignore[arg-type]
    assert taking_part(index, own.task).tolist() == [False, False, True, True]
    keyed = OwnLabels.read(table(tmp_path, f"record_id,A\n{rows[0]['record_id']},1\n"))
    monkeypatch.delenv(KEY_VARIABLE)
    index, _ = keyed.join(index_table(held), private)  # type: ignore[arg-type]
    assert np.flatnonzero(taking_part(index, keyed.task)).tolist() == [0]
