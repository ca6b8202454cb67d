"""Every kind of source gives in a bucket what it gives in a folder, and tells a missing file from failing storage."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from ecgdist import s3 as objects
from ecgdist.errors import RecordRefused, StorageError
from ecgdist.record import STANDARD_LEADS, Recording
from ecgdist.sources import SOURCES, Source, open_source
from ecgdist.storage import Location
from tests.conftest import S3Server
from tests.packing.folders import ptbxl_folder
from tests.sources import made
from tests.sources.made_wfdb import make_record, real_ecg
from tests.sources.test_incart import COMMENTS, make_half_hour
from tests.sources.test_own_files import made_own
from tests.sources.test_ptb import copy_patient

DATA = Path(__file__).parents[1] / "data"

pytestmark = pytest.mark.s3


def real(name: str) -> Callable[[Path], Path]:
    """A folder of the test data."""
    return lambda path: shutil.copytree(DATA / name, path)


def mimic_folder(path: Path) -> Path:
    record = "files/p1000/p10000032/s40689238/40689238"
    make_record(path / record, real_ecg() // 5, STANDARD_LEADS, gain="200/mV")
    (path / "record_list.csv").write_text(
        f"subject_id,study_id,path\n10000032,40689238,{record}\n"
        "10000117,49036311,files/p1000/p10000117/s49036311/49036311\n"
    )
    return path


def code15_folder(path: Path) -> Path:
    rows = [made.code15_row(exam, exam % 2, AF=True) for exam in range(1, 6)]
    return made.made_code15(path, rows, {0: [4, 2], 1: [3, 1]})


def ikem_folder(path: Path) -> Path:
    rows = [made.ikem_row(exam) for exam in (3, 1, 4, 2)]
    return made.made_ikem(path, rows, {1: [1, 2], 2: [3]}, {2: 2500})


def samitrop_folder(path: Path) -> Path:
    return made.made_samitrop(path, [made.samitrop_row(exam) for exam in (40, 20, 20)])


def sph_folder(path: Path) -> Path:
    made.made_sph(path, [made.sph_row("A00002"), made.sph_row("A00001", N=5600), made.sph_row("A00003")])
    (path / "records" / "A00003.h5").unlink()
    return path


def ukbiobank_folder(path: Path) -> Path:
    return made.made_ukbiobank(path, ["1000037_20205_2_0.xml", "1000099_20205_2_0.xml", "notes.xml"])


def ptb_folder(path: Path) -> Path:
    copy_patient(path, "patient001", reason="Myocardial infarction")
    copy_patient(path, "patient002", "s0015lre").with_suffix(".xyz").unlink()
    return path


def incart_folder(path: Path) -> Path:
    for name in ("I01", "I02"):
        make_half_hour(path, name, real_ecg(), *COMMENTS)
    (path / "I02.dat").unlink()
    return path


def own_folder(kind: str) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        path.mkdir()
        return made_own(kind, path)

    return make


FOLDERS: dict[str, Callable[[Path], Path]] = {
    "ptbxl": real("ptb-xl"),
    "ptbxl100": lambda path: ptbxl_folder(path, 3),
    "mimic": mimic_folder,
    "challenge2021": real("challenge2021"),
    "chapman-ningbo": real("challenge2021/ningbo"),
    "georgia": real("wfdb/georgia"),
    "cpsc2018": real("copies"),
    "ptb": ptb_folder,
    "incart": incart_folder,
    "code15": code15_folder,
    "ikem": ikem_folder,
    "samitrop": samitrop_folder,
    "sph": sph_folder,
    "ukbiobank": ukbiobank_folder,
    "wfdb": real("wfdb"),
    "npy": own_folder("npy"),
    "hdf5": own_folder("hdf5"),
}
"""A folder of every kind."""


def to_bucket(folder: Path) -> Location:
    """A copy of a folder in a real bucket, under the name of the folder above it."""
    root = Location.of(f"s3://ecg/{folder.parent.name}")
    for path in folder.rglob("*"):
        if path.is_file():
            (root / path.relative_to(folder).as_posix()).upload(path)
    return root


def outcomes(found: Sequence[Recording | RecordRefused]) -> list[tuple[object, ...]]:
    """What was read, to be compared: everything of a recording, the reason of a refusal."""
    names = [field.name for field in fields(Recording) if field.name != "signal_uv"]
    return [
        (each.reason,)
        if isinstance(each, RecordRefused)
        else (each.signal_uv.tobytes(), each.signal_uv.shape, *(getattr(each, name) for name in names))
        for each in found
    ]


def test_every_kind_is_tested() -> None:
    assert FOLDERS.keys() == SOURCES.keys()


@pytest.mark.parametrize("kind", SOURCES)
def test_a_bucket_gives_what_a_folder_gives(kind: str, s3: S3Server, tmp_path: Path) -> None:
    folder = FOLDERS[kind](tmp_path / "folder")
    local, remote = open_source(kind, str(folder)), open_source(kind, to_bucket(folder))
    listings = remote.list_records()
    assert listings == local.list_records()
    found = outcomes(list(remote.read_many(listings)))
    assert found == outcomes(list(local.read_many(listings)))
    assert any(len(each) > 1 for each in found), "a recording was to be read"
    alone = [read_one(remote, listing.record_id) for listing in listings]
    assert outcomes(alone) == found


def read_one(source: Source, record_id: str) -> Recording | RecordRefused:
    listing = next(each for each in source.list_records() if each.record_id == record_id)
    try:
        return source.read_record(listing)
    except RecordRefused as refused:
        return refused


@pytest.mark.parametrize("kind", SOURCES)
def test_objects_that_vanish_are_the_records_failing_storage_is_not(
    kind: str, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = to_bucket(FOLDERS[kind](tmp_path / "folder"))
    source = open_source(kind, root)
    listing = next(
        each for each in source.list_records() if isinstance(read_one(source, each.record_id), Recording)
    )
    for name in root.list_files():
        if name.startswith(listing.key):
            (root / name).delete()
    with pytest.raises(RecordRefused, match=r"missing_(header|file): .* does not exist"):
        source.read_record(listing)
    monkeypatch.setattr(objects, "_LONGEST_WAIT_S", 0.01)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match="cannot be reached"):
        source.read_record(listing)


def test_a_bucket_is_listed_by_the_table_of_mimic(s3: S3Server, tmp_path: Path) -> None:
    source = open_source("mimic", to_bucket(mimic_folder(tmp_path / "folder")))
    found = [read_one(source, each.record_id) for each in source.list_records()]
    assert [getattr(each, "reason", None) for each in found] == [None, "missing_header"]
    assert isinstance(found[0], Recording)
    np.testing.assert_array_equal(found[0].signal_uv, real_ecg() // 5 * 5)
