"""PTB-XL: its table, its two rates, and what is wrong with single rows."""

from __future__ import annotations

import csv
import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import wfdb

from ecgdist.errors import DataError
from ecgdist.sources import Listing, Source, open_source
from tests.sources.contract import SourceContract, read_all
from tests.sources.made_wfdb import make_record, real_ecg

DATA = Path(__file__).parents[1] / "data" / "ptb-xl"
LEADS = ("I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")
ROW = {
    "ecg_id": "1",
    "patient_id": "15709.0",
    "age": "56.0",
    "sex": "1",
    "scp_codes": "{'NORM': 100.0, 'SR': 0.0}",
    "strat_fold": "3",
    "filename_lr": "records100/00000/00001_lr",
    "filename_hr": "records500/00000/00001_hr",
}


def folder_with(path: Path, *rows: dict[str, str]) -> Path:
    """A PTB-XL folder with the two real 500 Hz records and a table of these rows."""
    shutil.copytree(DATA, path, dirs_exist_ok=True)
    with (path / "ptbxl_database.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, [*ROW, "report"])
        table.writeheader()
        table.writerows(rows)
    return path


def listed(path: Path, **changes: str) -> Listing:
    """The listing of the first row, with these cells changed."""
    (listing,) = open_source("ptbxl", str(folder_with(path, {**ROW, **changes}))).list_records()
    return listing


@pytest.fixture
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    gone = {**ROW, "ecg_id": "7", "filename_hr": "records500/00000/00007_hr", "filename_lr": ""}
    return open_source("ptbxl", str(folder_with(tmp_path_factory.mktemp("ptb-xl"), ROW, gone)))


class TestPtbXl(SourceContract):
    pass


class TestPtbXl100(SourceContract):
    """A made 100 Hz file beside the real one of 500 Hz, and a record that has the latter only."""

    @pytest.fixture
    def source(self, tmp_path_factory: pytest.TempPathFactory) -> Source:
        second = {**ROW, "ecg_id": "2", "filename_lr": "records100/00000/00002_lr"}
        folder = folder_with(tmp_path_factory.mktemp("ptb-xl"), ROW, second)
        make_record(folder / ROW["filename_lr"], real_ecg()[:, ::5], LEADS, rate_hz=100, gain="1000.0(0)/mV")
        return open_source("ptbxl100", str(folder))

    def test_reads_100_hz_though_there_are_500(self, source: Source) -> None:
        ((recording,), refusals) = read_all(source)
        assert (recording.rate_hz, recording.signal_uv.shape) == (100, (12, 1000))
        assert {key: refused.reason for key, refused in refusals.items()} == {"2": "missing_header"}

    def test_is_the_same_data_set_as_at_500_hz(self, source: Source) -> None:
        full = open_source("ptbxl", source.root)
        assert source.dataset == full.dataset
        low, high = source.list_records()[0], full.list_records()[0]
        assert dataclasses.replace(low, key=high.key) == high


def test_the_real_table() -> None:
    recordings, refusals = read_all(open_source("ptbxl", str(DATA)))
    assert not refusals
    first, second = recordings
    assert (first.record_id, first.patient_id, first.age, first.sex, first.split) == (
        "1", "15709", 56.0, "female", "fold3",
    )  # fmt: skip
    assert (second.record_id, second.patient_id, second.age, second.sex) == ("2", "13243", 19.0, "male")
    assert first.labels == ("scp:LVOLT", "scp:NORM", "scp:SR")
    assert first.leads[3:6] == ("AVR", "AVL", "AVF")


def test_the_signal_is_what_wfdb_reads_in_microvolt() -> None:
    expected = wfdb.rdrecord(str(DATA / ROW["filename_hr"])).p_signal.T * 1000
    source = open_source("ptbxl", str(DATA))
    recording = source.read_record(source.list_records()[0])
    np.testing.assert_allclose(recording.signal_uv, expected, rtol=0, atol=1e-6)
    assert recording.rate_hz == 500


@pytest.mark.parametrize(("hr", "rate_hz"), [("records500/00000/00001_hr", 500), ("", 100), ("absent", 100)])
def test_500_hz_where_the_folder_has_it_else_100_hz(tmp_path: Path, hr: str, rate_hz: float) -> None:
    folder = folder_with(tmp_path, {**ROW, "filename_hr": hr})
    make_record(folder / ROW["filename_lr"], real_ecg()[:, ::5], LEADS, rate_hz=100)
    ((recording,), refusals) = read_all(open_source("ptbxl", str(folder)))
    assert not refusals
    assert recording.rate_hz == rate_hz


@pytest.mark.parametrize(("age", "years"), [("300.0", 90.0), ("89", 89.0), ("", None), ("nan", None)])
def test_age(tmp_path: Path, age: str, years: float | None) -> None:
    assert listed(tmp_path, age=age).age == years


@pytest.mark.parametrize(("cell", "sex"), [("0", "male"), ("1.0", "female"), ("", None)])
def test_sex(tmp_path: Path, cell: str, sex: str | None) -> None:
    assert listed(tmp_path, sex=cell).sex == sex


@pytest.mark.parametrize(("cell", "patient_id"), [("15709.0", "15709"), ("15709", "15709"), ("", None)])
def test_patient_id_is_the_text_of_an_integer(tmp_path: Path, cell: str, patient_id: str | None) -> None:
    assert listed(tmp_path, patient_id=cell).patient_id == patient_id


def test_every_code_is_a_label_whatever_its_likelihood(tmp_path: Path) -> None:
    assert listed(tmp_path, scp_codes="{'SR': 0.0, 'IMI': 35.0}").labels == ("scp:IMI", "scp:SR")
    assert listed(tmp_path, scp_codes="{}").labels == ()


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("scp_codes", "{'NORM': 100.0"),
        ("scp_codes", "__import__('os').getcwd()"),
        ("scp_codes", "['NORM']"),
        ("scp_codes", "{'NORM': 100.0, 'Mrs Roe': 0.0}"),
        ("scp_codes", "{1: 100.0}"),
        ("scp_codes", "{'a': " * 5000),
        ("age", "old"),
        ("age", "inf"),
        ("age", "-3"),
        ("sex", "female"),
        ("strat_fold", "3.5"),
        ("patient_id", "inf"),
        ("ecg_id", ""),
    ],
)
def test_a_cell_that_cannot_be_read_refuses_its_row(tmp_path: Path, column: str, cell: str) -> None:
    listing = listed(tmp_path, **{column: cell})
    assert listing.refusal is not None
    assert listing.refusal[0] == "unreadable_metadata"
    assert "ptbxl_database.csv, row 1:" in listing.refusal[1]
    assert listing.record_id.endswith("(row 1)")


def test_a_row_without_a_file_is_a_missing_header(tmp_path: Path) -> None:
    listing = listed(tmp_path, filename_hr="records500/00000/00009_hr")
    assert listing.refusal is not None
    assert listing.refusal[0] == "missing_header"
    assert "records500/00000/00009_hr or records100/00000/00001_lr" in listing.refusal[1]


def test_a_repeated_id_refuses_the_later_row(tmp_path: Path) -> None:
    source = open_source("ptbxl", str(folder_with(tmp_path, ROW, {**ROW, "patient_id": "2"})))
    first, again = source.list_records()
    assert (first.record_id, first.refusal) == ("1", None)
    assert again.record_id == "1 (row 2)"
    assert again.refusal is not None
    assert again.refusal[0] == "duplicate_id"


def test_a_folder_without_the_table_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no ptbxl_database.csv; a PTB-XL folder holds that table"):
        open_source("ptbxl", str(tmp_path)).list_records()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ecg_id,age\n1,56\n", "lacks the columns patient_id, sex, scp_codes"),
        (b"", "lacks the columns ecg_id"),
        (b"ecg_id\xff\n", "not a comma-separated table in UTF-8"),
        (",".join(ROW).encode() + b'\n"1\n', "not a comma-separated table in UTF-8"),
    ],
)
def test_a_table_that_is_not_ptb_xl(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "ptbxl_database.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_source("ptbxl", str(tmp_path)).list_records()
