"""Nothing outside of a source's folder is read through a link unless its owner says so, and nothing goes missing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ecgdist.config import build
from ecgdist.errors import DataError, OutsideLinkError
from ecgdist.packing import PackConfig
from ecgdist.packing.plan import Plan
from ecgdist.record import Recording
from ecgdist.sources import open_source
from tests.packing.folders import georgia_folder, ptbxl_folder
from tests.sources.contract import read_all
from tests.sources.made import code15_row, made_code15, made_sph, made_ukbiobank, sph_row
from tests.sources.test_own_files import made_own


def made_wfdb(folder: Path) -> Path:
    return georgia_folder(folder, "a", "b")


def made_code15_folder(folder: Path) -> Path:
    return made_code15(folder, [code15_row(exam, exam % 2) for exam in (11, 12)], {0: [12], 1: [11]})


def made_xml(folder: Path) -> Path:
    return made_ukbiobank(folder, ["1000037_20205_2_0.xml", "1000099_20205_2_0.xml"])


def made_arrays(kind: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        folder.mkdir()
        return made_own(kind, folder)

    return write


FOLDERS: dict[str, tuple[str, Callable[[Path], Path], str, int]] = {
    "WFDB signal": ("wfdb", made_wfdb, "a.mat", 1),
    "WFDB header": ("wfdb", made_wfdb, "a.hea", 1),
    "PTB-XL signal": ("ptbxl", lambda folder: ptbxl_folder(folder, 3), "records100/00000/00001_lr.dat", 1),
    "npy": ("npy", made_arrays("npy"), "many.npy", 3),
    "own HDF5": ("hdf5", made_arrays("hdf5"), "alone.h5", 1),
    "HDF5 part": ("code15", made_code15_folder, "exams_part1.hdf5", 1),
    "HDF5 of a record": (
        "sph", lambda folder: made_sph(folder, [sph_row("A00001"), sph_row("A00002")]), "records/A00002.h5", 1
    ),
    "XML": ("ukbiobank", made_xml, "1000099_20205_2_0.xml", 1),
}  # fmt: skip
"""Kind of source, its folder, the file that becomes a link, and how many records need it."""


def moved_out(folder: Path, name: str) -> Path:
    """Put a file or folder outside, and a link in its place."""
    outside = folder.parent / "outside" / Path(name).name
    outside.parent.mkdir(exist_ok=True)
    shutil.move(folder / name, outside)
    (folder / name).symlink_to(outside)
    return outside


def read(kind: str, folder: Path, follow_links: bool = False) -> tuple[list[Recording], dict[str, str]]:
    """Recordings, and the reason of each refusal by record."""
    recordings, refused = read_all(open_source(kind, str(folder), follow_links))
    return recordings, {name: refusal.reason for name, refusal in refused.items()}


def assert_same(found: list[Recording], expected: list[Recording]) -> None:
    assert [each.record_id for each in found] == [each.record_id for each in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.signal_uv, other.signal_uv)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_record_whose_file_is_a_link_to_outside_is_refused_or_read_as_told(
    tmp_path: Path, name: str
) -> None:
    kind, make, file, needing = FOLDERS[name]
    folder = make(tmp_path / "source")
    before, refused_before = read(kind, folder)
    moved_out(folder, file)
    recordings, refused = read(kind, folder)
    new = {record: reason for record, reason in refused.items() if record not in refused_before}
    assert list(new.values()) == ["link_outside"] * needing
    assert len(recordings) == len(before) - needing
    followed, still_refused = read(kind, folder, follow_links=True)
    assert_same(followed, before)
    assert still_refused == refused_before


@pytest.mark.parametrize("name", FOLDERS)
def test_a_link_that_stays_inside_is_read(tmp_path: Path, name: str) -> None:
    kind, make, file, _ = FOLDERS[name]
    folder = make(tmp_path / "source")
    before, refused = read(kind, folder)
    kept = folder / "kept" / "file.bin"
    kept.parent.mkdir()
    shutil.move(folder / file, kept)
    (folder / "step").symlink_to(kept)
    (folder / file).symlink_to(folder / "step")  # a chain, by absolute paths
    found, refused_now = read(kind, folder)
    assert_same(found, before)
    assert refused_now == refused


def test_a_chain_of_links_counts_where_it_ends(tmp_path: Path) -> None:
    folder = made_wfdb(tmp_path / "source")
    outside = moved_out(folder, "a.mat")
    (folder / "a.mat").rename(folder / "step")
    (folder / "a.mat").symlink_to("step")
    assert read("wfdb", folder)[1] == {"a": "link_outside"}
    # Out and back in again: what is read lies inside.
    shutil.move(outside, folder / "kept.bin")
    outside.symlink_to(folder / "kept.bin")
    assert read("wfdb", folder)[1] == {}


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    folder = made_wfdb(tmp_path / "source")
    (tmp_path / "link").symlink_to(folder)
    assert_same(read("wfdb", tmp_path / "link")[0], read("wfdb", folder)[0])
    (tmp_path / "source/same").symlink_to(tmp_path / "source", target_is_directory=True)
    assert_same(read("wfdb", tmp_path / "link")[0], read("wfdb", folder)[0])


def test_a_linked_folder_outside_is_an_error_and_not_gone_into(tmp_path: Path) -> None:
    folder = made_wfdb(tmp_path / "source")
    (tmp_path / "source-2").mkdir()  # its name begins as the folder's does
    georgia_folder(tmp_path / "source-2", "c")
    (folder / "more").symlink_to(tmp_path / "source-2")
    with pytest.raises(OutsideLinkError, match=r"source/more .*follow_links=true"):
        open_source("wfdb", str(folder)).list_records()
    assert [each.record_id for each in read("wfdb", folder, follow_links=True)[0]] == ["a", "b", "more/c"]


def test_records_in_a_linked_folder_that_a_table_names_are_refused(tmp_path: Path) -> None:
    """MIMIC-IV-ECG's way: no folder is listed."""
    folder = made_arrays("npy")(tmp_path / "source")
    (folder / "sub").mkdir()
    shutil.move(folder / "many.npy", folder / "sub/many.npy")
    table = folder / "records.csv"
    table.write_text(table.read_text(encoding="utf-8").replace("many.npy", "sub/many.npy"), encoding="utf-8")
    assert list(read("npy", folder)[1].values()) == ["missing_file"]
    moved_out(folder, "sub")
    assert sorted(read("npy", folder)[1].values()) == ["link_outside"] * 3 + ["missing_file"]


def test_a_table_that_is_a_link_to_outside_is_an_error(tmp_path: Path) -> None:
    folder = made_arrays("npy")(tmp_path / "source")
    moved_out(folder, "records.csv")
    with pytest.raises(OutsideLinkError, match=r"source/records\.csv"):
        open_source("npy", str(folder)).list_records()


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    folder = made_wfdb(tmp_path / "source")
    (folder / "loop").symlink_to(folder)
    (folder / "one").symlink_to(folder / "two")
    (folder / "two").symlink_to(folder / "one")
    assert [each.record_id for each in read("wfdb", folder)[0]] == ["a", "b"]


def plan(folder: Path, **settings: object) -> Plan:
    values = {"sources": [f"wfdb={folder}"], "out": str(folder.parent / "corpus"), **settings}
    return Plan.of(build(PackConfig, values))


def test_the_packing_says_how_links_are_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made_wfdb(tmp_path / "source")
    (tmp_path / "Jane Roe").mkdir()
    georgia_folder(tmp_path / "Jane Roe", "c")
    (folder / "Jane").symlink_to(tmp_path / "Jane Roe")
    with pytest.raises(DataError, match=r"source/Jane .*set follow_links=true"):
        plan(folder)
    assert plan(folder, follow_links=True).num_records == 3
    monkeypatch.setenv("ECGDIST_PATIENT_KEY", "a key of more than sixteen letters")
    with pytest.raises(DataError, match=r"a link leads out of .*follow_links=true reads") as hidden:
        plan(folder)
    assert "Jane" not in str(hidden.value)


def test_packings_with_and_without_links_are_different_ones(tmp_path: Path) -> None:
    """Else a shard with refusals would stay as it is when links are allowed."""
    folder = made_wfdb(tmp_path / "source")
    assert plan(folder).digest != plan(folder, follow_links=True).digest
