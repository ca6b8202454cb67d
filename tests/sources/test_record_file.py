"""A name that leads to no file refuses its record, whoever names it and wherever it should lie."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ecgdist.errors import RecordRefused
from ecgdist.record import STANDARD_LEADS
from ecgdist.sources import Listing, open_source
from ecgdist.sources.wfdb_record import read_wfdb
from ecgdist.storage import Location
from tests.conftest import S3Server
from tests.sources.contract import read_all
from tests.sources.made import made_ecg_uv, own_row, write_csv
from tests.sources.made_wfdb import make_record, real_ecg
from tests.sources.test_own_files import KINDS, write_array

NAMES = {
    "too long": "x" * 300,
    "too long in all": "/".join(["folder"] * 800),
    "a folder": "folder",
    "a link to itself": "loop",
    "below a file": "one.npy/two.npy",
    "a pipe": "pipe",
    "nothing": "gone",
    "a line": "a\nb",
    "a mark of deletion": "a\x7fb",
}
"""What a table may name that is no file; NUL is not among them, since a table that holds it is none."""


def awkward_folder(folder: Path) -> None:
    """What the names lead to."""
    (folder / "folder").mkdir()
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")


@pytest.mark.parametrize("kind", KINDS)
def test_own_tables(kind: str, tmp_path: Path) -> None:
    awkward_folder(tmp_path)
    good = write_array(kind, tmp_path, "one", made_ecg_uv(1, 2500))
    rows = [own_row(f"r{number}", name) for number, name in enumerate(NAMES.values())]
    write_csv(tmp_path / "records.csv", [own_row("good", good), *rows])
    recordings, refusals = read_all(open_source(kind, str(tmp_path)))
    assert [recording.record_id for recording in recordings] == ["good"]
    assert len(refusals) == len(NAMES)
    assert {refused.reason for refused in refusals.values()} == {"unsafe_path", "missing_file"}
    assert refusals["r0"].reason == refusals["r1"].reason == refusals["r3"].reason == "unsafe_path"


@pytest.mark.s3
@pytest.mark.parametrize("kind", KINDS)
def test_own_tables_in_a_bucket(kind: str, tmp_path: Path, s3: S3Server) -> None:
    root = Location.of(f"s3://ecg/{tmp_path.name}")
    good = write_array(kind, tmp_path, "one", made_ecg_uv(1, 2500))
    rows = [own_row(f"r{number}", name) for number, name in enumerate(NAMES.values())]
    write_csv(tmp_path / "records.csv", [own_row("good", good), *rows])
    for name in (good, "records.csv"):
        (root / name).upload(tmp_path / name)
    (root / "folder/file").write_bytes(b"x")
    recordings, refusals = read_all(open_source(kind, root))
    assert [recording.record_id for recording in recordings] == ["good"]
    assert len(refusals) == len(NAMES)
    assert {refused.reason for refused in refusals.values()} == {"unsafe_path", "missing_file"}


def no_header(folder: Path) -> Listing:
    (folder / "r.hea").mkdir(parents=True)
    return Listing("r", "r")


def long_header(folder: Path) -> Listing:
    return Listing("r", "x" * 300)


def nul_in_header(folder: Path) -> Listing:
    return Listing("r", "r\0")


def half_a_character(folder: Path) -> Listing:
    return Listing("r", "r\ud800")


def naming(name: str) -> Callable[[Path], Listing]:
    """A WFDB record whose header names this signal file."""

    def make(folder: Path) -> Listing:
        make_record(folder / "r", real_ecg(), STANDARD_LEADS)
        header = folder / "r.hea"
        header.write_text(header.read_text().replace("r.dat", name))
        (folder / "folder").mkdir()
        return Listing("r", "r")

    return make


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (no_header, "missing_header"),
        (long_header, "unsafe_path"),
        (nul_in_header, "unsafe_path"),
        (half_a_character, "unsafe_path"),
        (naming("folder"), "missing_signal"),
        (naming("x" * 300), "missing_signal"),
        (naming("x" * 200 + ".dat"), "missing_signal"),
    ],
)
def test_wfdb_records(make: Callable[[Path], Listing], reason: str, tmp_path: Path) -> None:
    listing = make(tmp_path)
    with pytest.raises(RecordRefused) as refused:
        open_source("wfdb", str(tmp_path)).read_record(listing)
    assert refused.value.reason == reason
    with pytest.raises(RecordRefused) as refused:
        read_wfdb(Location.of(tmp_path), listing.key)
    assert refused.value.reason == reason


def test_a_table_of_ptb_xl_that_names_folders(tmp_path: Path) -> None:
    source = Path(__file__).parents[1] / "data" / "ptb-xl"
    shutil.copytree(source, tmp_path / "ptb-xl")
    header = tmp_path / "ptb-xl/records500/00000/00001_hr.hea"
    listings = open_source("ptbxl", str(tmp_path / "ptb-xl")).list_records()
    header.unlink()
    header.mkdir()
    found = list(open_source("ptbxl", str(tmp_path / "ptb-xl")).read_many(listings))
    assert [getattr(each, "reason", None) for each in found] == ["missing_header", None]
