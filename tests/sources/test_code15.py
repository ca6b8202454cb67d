"""CODE-15%: real exams in the published layout, and each of its traps in made files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ecgdist.errors import DataError
from ecgdist.record import derive_limb_leads
from ecgdist.sources import Source, open_source
from tests.sources.contract import SourceContract, read_all
from tests.sources.made import code15_row, made_code15, made_ecg_uv, write_csv, write_hdf5

REAL = Path(__file__).parents[1] / "data" / "code15"


def refusals(folder: Path) -> dict[str, str]:
    """Reason of refusal by record id."""
    return {key: refused.reason for key, refused in read_all(open_source("code15", str(folder)))[1].items()}


@pytest.fixture
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    rows = [code15_row(exam, exam % 2) for exam in (14, 11, 12, 13)]
    rows.append(code15_row(15, 7))
    return open_source(
        "code15", str(made_code15(tmp_path_factory.mktemp("code15"), rows, {0: [12, 14], 1: [13, 11]}))
    )


class TestCode15(SourceContract):
    pass


def test_real_exams() -> None:
    recordings, refused = read_all(open_source("code15", str(REAL)))
    assert not refused
    assert [recording.record_id for recording in recordings] == ["795649", "1594286", "975093"]
    short, long, _ = recordings
    with h5py.File(REAL / "exams_part0.hdf5") as file:
        stored = file["tracings"][:]
    # Seven seconds between zeros, in the order of the part and not of the table.
    assert short.signal_uv.shape == (12, 2934)
    assert short.flags == ("padding_stripped",)
    np.testing.assert_array_equal(short.signal_uv, stored[0, 581:3515].T.astype(float) * 1000)
    assert (short.patient_id, short.age, short.sex, short.labels) == ("618483", 75, "male", ("code15:ST",))
    assert short.rate_hz == 400
    assert long.signal_uv.shape == (12, 4096)
    assert (long.flags, long.sex, long.labels) == ((), "female", ("code15:RBBB",))
    # Channels are in the standard order: Einthoven's and Goldberger's identities hold by name, within 6 %.
    for recording in recordings:
        lead = dict(zip(recording.leads, recording.signal_uv, strict=True))
        two_leads = np.stack([lead["I"], lead["II"]])
        derived, names = derive_limb_leads(two_leads, ("I", "II"))
        for name, expected in zip(names, derived, strict=True):
            assert np.linalg.norm(lead[name] - expected) < 0.06 * np.linalg.norm(expected)


def test_exams_are_found_by_id_and_listed_in_the_order_of_the_parts(source: Source) -> None:
    recordings, _ = read_all(source)
    assert [recording.record_id for recording in recordings] == ["12", "14", "13", "11"]
    for recording in recordings:
        exam = int(recording.record_id)
        expected = made_ecg_uv(exam, 4096 if exam % 2 else 2800)
        np.testing.assert_allclose(recording.signal_uv, expected, atol=1e-3)
        assert recording.patient_id == str(7000 + exam)
        assert recording.flags == (() if exam % 2 else ("padding_stripped",))


def test_parts_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    rows = [code15_row(exam, exam) for exam in (10, 2)]
    folder = made_code15(tmp_path, rows, {10: [10], 2: [2]})
    assert [listing.record_id for listing in open_source("code15", str(folder)).list_records()] == ["2", "10"]


def test_a_part_may_lie_in_a_folder_of_its_own(tmp_path: Path) -> None:
    folder = made_code15(tmp_path, [code15_row(1, 0)], {0: [1]})
    (folder / "exams_part0").mkdir()
    (folder / "exams_part0.hdf5").rename(folder / "exams_part0" / "exams_part0.hdf5")
    assert not refusals(folder)
    shutil.copyfile(folder / "exams_part0" / "exams_part0.hdf5", folder / "exams_part0.hdf5")
    with pytest.raises(DataError, match="twice"):
        refusals(folder)


def test_the_row_of_zeros_is_no_exam_and_other_unlisted_rows_are_refused(tmp_path: Path) -> None:
    folder = made_code15(tmp_path, [code15_row(1, 0)], {0: [5, 1, 1]})
    listed = open_source("code15", str(folder)).list_records()
    assert len(listed) == 3  # and not the one with id 0
    assert refusals(folder) == {
        "row 0 of exams_part0.hdf5": "not_in_table",
        "row 2 of exams_part0.hdf5": "not_in_table",
    }


def test_a_part_that_was_not_downloaded(tmp_path: Path) -> None:
    folder = made_code15(tmp_path, [code15_row(1, 0), code15_row(2, 1)], {0: [1]})
    assert refusals(folder) == {"2": "missing_file"}


def test_an_exam_that_its_part_lacks(tmp_path: Path) -> None:
    folder = made_code15(tmp_path, [code15_row(1, 0), code15_row(2, 0)], {0: [1]})
    assert refusals(folder) == {"2": "missing_signal"}


def test_a_broken_part_refuses_its_own_exams(tmp_path: Path) -> None:
    folder = made_code15(tmp_path, [code15_row(1, 0), code15_row(2, 1)], {0: [1], 1: [2]})
    (folder / "exams_part1.hdf5").write_bytes((folder / "exams_part1.hdf5").read_bytes()[:3000])
    assert refusals(folder) == {"2": "unreadable_signal"}


def test_an_exam_of_zeros_is_refused(tmp_path: Path) -> None:
    folder = made_code15(tmp_path, [code15_row(1, 0), code15_row(3, 0)], {})
    signals = np.zeros((2, 4096, 12), np.float32)
    signals[0] = made_ecg_uv(1, 4096).T / 1000
    write_hdf5(folder / "exams_part0.hdf5", exam_id=np.array([1, 3]), tracings=signals)
    assert refusals(folder) == {"3": "all_zero"}


def test_zeros_inside_a_signal_and_a_lead_of_zeros_stay(tmp_path: Path) -> None:
    folder = made_code15(tmp_path, [code15_row(1, 0)], {})
    signals = np.zeros((1, 4096, 12), np.float32)
    signals[0, 600:3600] = made_ecg_uv(1, 3000).T / 1000
    signals[0, 1000:1100] = 0
    signals[0, :, 3] = 0
    write_hdf5(folder / "exams_part0.hdf5", exam_id=np.array([1]), tracings=signals)
    ((recording,), _) = read_all(open_source("code15", str(folder)))
    np.testing.assert_allclose(recording.signal_uv, signals[0, 600:3600].T * 1000, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "labels"),
    [
        ({}, ()),  # neither flagged nor normal: nothing is known
        ({"normal_ecg": True}, ("code15:normal_ecg",)),
        ({"AF": True, "1dAVb": "True"}, ("code15:1dAVb", "code15:AF")),
        ({"SB": 1, "ST": 0, "normal_ecg": ""}, ("code15:SB",)),
    ],
)
def test_labels(tmp_path: Path, changes: dict[str, Any], labels: tuple[str, ...]) -> None:
    folder = made_code15(tmp_path, [code15_row(1, 0, **changes)], {0: [1]})
    (listing,) = open_source("code15", str(folder)).list_records()
    assert listing.labels == labels


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("exam_id", "Mr Smith"), ("exam_id", ""), ("age", "old"), ("is_male", "maybe"), ("AF", "?"),
        ("patient_id", "xyzzy"), ("trace_file", "../secret.hdf5"), ("trace_file", "/exams_part0.hdf5"),
    ],
)  # fmt: skip
def test_a_bad_cell_is_a_refusal_that_does_not_quote_it(tmp_path: Path, column: str, value: str) -> None:
    rows = [code15_row(1, 0), code15_row(2, 0) | {column: value}]
    folder = made_code15(tmp_path, rows, {0: [1]})
    _, refused = read_all(open_source("code15", str(folder)))
    (name,), (refusal,) = refused.keys(), refused.values()
    assert name == "row 2 of exams.csv"
    assert refusal.reason == "unreadable_metadata"
    assert value == "" or value not in str(refusal)


def test_an_id_that_occurs_twice(tmp_path: Path) -> None:
    folder = made_code15(tmp_path, [code15_row(1, 0), code15_row(1, 0)], {0: [1]})
    assert refusals(folder) == {"row 2 of exams.csv": "duplicate_id"}


def test_one_damaged_chunk_spoils_no_other_record(tmp_path: Path) -> None:
    ids = [1, 3, 5, 7]
    folder = made_code15(tmp_path, [code15_row(exam, 0) for exam in ids], {})
    with h5py.File(folder / "exams_part0.hdf5", "w") as file:
        file["exam_id"] = ids
        signals = np.array([made_ecg_uv(exam, 4096).T / 1000 for exam in ids], np.float32)
        stored = file.create_dataset("tracings", data=signals, chunks=(1, 4096, 12), compression="gzip")
        stored.id.write_direct_chunk((2, 0, 0), b"not deflated")
    source = open_source("code15", str(folder))
    found = list(source.read_many(source.list_records()))
    assert [getattr(each, "reason", "read") for each in found] == [
        "read",
        "read",
        "unreadable_signal",
        "read",
    ]
    assert [each.record_id for each in found if hasattr(each, "record_id")] == ["1", "3", "7"]


def test_only_the_table_makes_a_folder(tmp_path: Path) -> None:
    made_code15(tmp_path, [code15_row(1, 0)], {0: [1]})
    write_csv(tmp_path / "exams.csv", [{"exam_id": 1, "age": 2}])
    with pytest.raises(DataError, match="patient_id"):
        open_source("code15", str(tmp_path)).list_records()


def test_a_huge_declared_number_of_exams(tmp_path: Path) -> None:
    folder = made_code15(tmp_path, [code15_row(1, 0)], {})
    with h5py.File(folder / "exams_part0.hdf5", "w") as file:
        file.create_dataset("exam_id", (10**12,), "i8", chunks=(1000,))
        file.create_dataset("tracings", (10**12, 4096, 12), "f4", chunks=(1, 4096, 12))
    assert refusals(folder) == {"1": "unreadable_signal"}
    with h5py.File(folder / "exams_part0.hdf5", "r+") as file:
        del file["exam_id"]
        file["exam_id"] = [1]
    assert refusals(folder) == {"1": "unreadable_signal"}
