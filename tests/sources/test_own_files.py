"""Your own `.npy` and HDF5 files with a records.csv: both kinds read the same records from one table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ecgdist.errors import DataError
from ecgdist.record import Recording
from ecgdist.sources import SOURCES, Source, open_source
from tests.sources.contract import SourceContract, read_all
from tests.sources.made import made_ecg_uv, own_row, write_csv, write_hdf5

KINDS = ("npy", "hdf5")


def write_array(kind: str, folder: Path, stem: str, values: Any) -> str:
    """Write an array as a file of this kind; returns its name."""
    if kind == "npy":
        np.save(folder / f"{stem}.npy", values)
        return f"{stem}.npy"
    write_hdf5(folder / f"{stem}.h5", ecg=values)
    return f"{stem}.h5"


def made_own(kind: str, folder: Path) -> Path:
    """Three records in one array, one alone, one that is refused."""
    many = np.array([made_ecg_uv(seed, 2500) / 1000 for seed in range(3)])
    together = write_array(kind, folder, "many", many)
    alone = write_array(kind, folder, "alone", made_ecg_uv(9, 3000)[:2].astype(np.int16))
    rows = [own_row(f"many-{row}", together, row=row) for row in (2, 0, 1)]
    rows += [own_row("alone", alone, unit="uV", rate_hz=500, leads="I;II"), own_row("gone", f"gone.{kind}")]
    write_csv(folder / "records.csv", rows)
    return folder


def only(kind: str, folder: Path, **changes: Any) -> Recording:
    """The one record of a folder with one array, as these cells of the table say."""
    file = write_array(kind, folder, "one", made_ecg_uv(1, 2500) / 1000)
    write_csv(folder / "records.csv", [own_row("one", file, **changes)])
    ((recording,), refused) = read_all(open_source(kind, str(folder)))
    assert not refused
    return recording


def refusal(kind: str, folder: Path) -> tuple[str, str]:
    """Reason and detail for the one record of a folder."""
    recordings, refused = read_all(open_source(kind, str(folder)))
    assert not recordings
    (only_one,) = refused.values()
    return only_one.reason, only_one.detail


@pytest.fixture
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Source:
    kind = request.cls.kind
    return open_source(kind, str(made_own(kind, tmp_path_factory.mktemp(kind))))


class TestNpyFolder(SourceContract):
    kind = "npy"


class TestHdf5Folder(SourceContract):
    kind = "hdf5"


@pytest.mark.parametrize("kind", KINDS)
def test_records_alone_and_together(kind: str, tmp_path: Path) -> None:
    recordings, refused = read_all(open_source(kind, str(made_own(kind, tmp_path))))
    assert {key: each.reason for key, each in refused.items()} == {"gone": "missing_file"}
    assert [recording.record_id for recording in recordings] == ["alone", "many-0", "many-1", "many-2"]
    alone, *many = recordings
    assert (alone.rate_hz, alone.leads) == (500, ("I", "II"))
    np.testing.assert_array_equal(alone.signal_uv, made_ecg_uv(9, 3000)[:2])
    for seed, recording in enumerate(many):
        np.testing.assert_allclose(recording.signal_uv, made_ecg_uv(seed, 2500))


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_table_says_of_a_record(kind: str, tmp_path: Path) -> None:
    recording = only(
        kind, tmp_path, patient_id="P1", age="61.5", sex="F", labels="AF; scp:NORM snomed:1", split="fold3"
    )
    assert (recording.patient_id, recording.age, recording.sex, recording.split) == (
        "P1",
        61.5,
        "female",
        "fold3",
    )
    assert recording.labels == ("own:AF", "scp:NORM", "snomed:1")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("unit", "factor"), [("mV", 1), ("uV", 1e-3), ("V", 1e3), ("µV", 1e-3)])
def test_the_unit_counts(kind: str, tmp_path: Path, unit: str, factor: float) -> None:
    recording = only(kind, tmp_path, unit=unit)
    np.testing.assert_allclose(recording.signal_uv, made_ecg_uv(1, 2500) * factor)


@pytest.mark.parametrize("kind", KINDS)
def test_the_optional_columns_may_be_absent(kind: str, tmp_path: Path) -> None:
    file = write_array(kind, tmp_path, "one", made_ecg_uv(1, 2500))
    row = own_row("one", file, unit="uV")
    names = ("record_id", "file", "rate_hz", "unit", "leads", *(["dataset"] if kind == "hdf5" else []))
    write_csv(tmp_path / "records.csv", [{name: row[name] for name in names}])
    ((recording,), _) = read_all(open_source(kind, str(tmp_path)))
    np.testing.assert_array_equal(recording.signal_uv, made_ecg_uv(1, 2500))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<f2", "<f4", ">f8", "u1", "<i8"])
def test_number_types_and_byte_orders(kind: str, tmp_path: Path, dtype: str) -> None:
    values = (made_ecg_uv(1, 2500) % 200).astype(dtype)
    write_csv(
        tmp_path / "records.csv", [own_row("one", write_array(kind, tmp_path, "one", values), unit="uV")]
    )
    ((recording,), _) = read_all(open_source(kind, str(tmp_path)))
    np.testing.assert_array_equal(recording.signal_uv, values.astype(float))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("together", [False, True])
def test_samples_may_come_before_leads(kind: str, tmp_path: Path, together: bool) -> None:
    values = made_ecg_uv(1, 2500).T
    file = write_array(kind, tmp_path, "one", np.stack([values * 2, values]) if together else values)
    write_csv(tmp_path / "records.csv", [own_row("one", file, unit="uV", row="1" if together else "")])
    ((recording,), _) = read_all(open_source(kind, str(tmp_path)))
    np.testing.assert_array_equal(recording.signal_uv, made_ecg_uv(1, 2500))


@pytest.mark.parametrize("together", [False, True])
def test_fortran_order_is_valid(tmp_path: Path, together: bool) -> None:
    values = made_ecg_uv(1, 2500)
    array = np.asfortranarray(np.stack([values * 2, values]) if together else values)
    file = write_array("npy", tmp_path, "one", array)
    assert np.load(tmp_path / file).flags.f_contiguous
    write_csv(tmp_path / "records.csv", [own_row("one", file, unit="uV", row="1" if together else "")])
    ((recording,), _) = read_all(open_source("npy", str(tmp_path)))
    np.testing.assert_array_equal(recording.signal_uv, values)


@pytest.mark.parametrize("options", [
    {}, {"chunks": (3, 5, 700)}, {"chunks": (1, 12, 2500), "compression": "gzip"},
    {"chunks": (4, 12, 2500), "compression": "gzip", "shuffle": True}, {"chunks": (3, 7, 999), "shuffle": True},
])  # fmt: skip
def test_hdf5_layouts_give_the_same_records(tmp_path: Path, options: dict[str, Any]) -> None:
    values = np.array([made_ecg_uv(seed, 2500) for seed in range(50)])
    with h5py.File(tmp_path / "many.h5", "w") as file:
        file.create_group("a").create_dataset("ecg", data=values.astype(np.int16), **options)
    rows = [own_row(f"r{row:02d}", "many.h5", row=row, unit="uV", dataset="a/ecg") for row in range(50)]
    write_csv(tmp_path / "records.csv", rows)
    source = open_source("hdf5", str(tmp_path))
    order = np.random.default_rng(0).permutation(50)[:20].tolist()
    listings = source.list_records()
    for wanted in (range(50), order, [49, 48, 0, 1, 2, 7, 8, 3]):
        found = list(source.read_many([listings[row] for row in wanted]))
        for row, recording in zip(wanted, found, strict=True):
            assert isinstance(recording, Recording)
            np.testing.assert_array_equal(recording.signal_uv, values[row].astype(np.int16))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"file": "/etc/hostname"}, "unsafe_path"),
        ({"file": "../one.npy"}, "unsafe_path"),
        ({"file": "a/../../one.npy"}, "unsafe_path"),
        ({"file": "..\\one.npy"}, "unsafe_path"),
        ({"file": ""}, "unsafe_path"),
        ({"rate_hz": "fast"}, "unreadable_metadata"),
        ({"row": "-1"}, "unreadable_metadata"),
        ({"row": "2.5"}, "unreadable_metadata"),
        ({"row": "0"}, "unreadable_signal"),
        ({"age": "old"}, "unreadable_metadata"),
        ({"leads": "I, II"}, "unreadable_metadata"),
        ({"leads": ""}, "unreadable_metadata"),
        ({"leads": "I II"}, "lead_count"),
        ({"unit": "mmHg"}, "unknown_unit"),
        ({"unit": ""}, "unknown_unit"),
        ({"labels": "Mr Smith has AF"}, "unreadable_metadata"),
        ({"labels": "scp:NORM probably"}, "unreadable_metadata"),
        ({"labels": "own:ça"}, "unreadable_metadata"),
        ({"split": "Smith, John"}, "unreadable_metadata"),
        ({"record_id": "Jane Doe 1970"}, "unreadable_metadata"),
    ],
)
def test_a_bad_cell_is_a_refusal(kind: str, tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    file = write_array(kind, tmp_path, "one", made_ecg_uv(1, 2500))
    write_csv(tmp_path / "records.csv", [own_row("one", file) | changes])
    found, detail = refusal(kind, tmp_path)
    assert found == reason
    if reason in ("unsafe_path", "unreadable_metadata"):
        assert str(*changes.values()) in ("", "-1", "2.5") or str(*changes.values()) not in detail


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_unique(kind: str, tmp_path: Path) -> None:
    file = write_array(kind, tmp_path, "one", made_ecg_uv(1, 2500))
    write_csv(tmp_path / "records.csv", [own_row("one", file), own_row("one", file)])
    _, refused = read_all(open_source(kind, str(tmp_path)))
    assert {key: each.reason for key, each in refused.items()} == {"row 2 of records.csv": "duplicate_id"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_without_a_needed_column(kind: str, tmp_path: Path) -> None:
    write_csv(tmp_path / "records.csv", [{"record_id": "a", "file": "b"}])
    with pytest.raises(DataError, match="rate_hz"):
        open_source(kind, str(tmp_path)).list_records()


def test_every_kind_is_in_the_table() -> None:
    assert {"code15", "ikem", "samitrop", "sph", "ukbiobank", "npy", "hdf5"} <= SOURCES.keys()
