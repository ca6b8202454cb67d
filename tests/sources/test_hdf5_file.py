"""The HDF5 reader: failing storage is never taken for a damaged file, and only what is asked for is read."""

from __future__ import annotations

import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ecgdist.errors import RecordRefused, StorageError
from ecgdist.record import STANDARD_LEADS, derive_limb_leads
from ecgdist.sources import Listing, open_source
from ecgdist.sources.hdf5_file import Hdf5File, open_hdf5
from ecgdist.storage import Location
from tests.sources.contract import failing_disk, read_all
from tests.sources.made import code15_row, made_code15, made_ecg_uv

REAL = Path(__file__).parents[1] / "data" / "code15"
PART = REAL / "exams_part0.hdf5"


class FailingFile(io.BytesIO):
    """A file whose storage fails at its n-th read."""

    def __init__(self, content: bytes, fails_at: int) -> None:
        super().__init__(content)
        self.reads = 0
        self.fails_at = fails_at

    def readinto(self, buffer: Any, /) -> int:
        self.reads += 1
        if self.reads > self.fails_at:
            raise StorageError("the network is down")
        return super().readinto(buffer)


def test_failing_storage_is_told_from_damage_at_every_read() -> None:
    content = PART.read_bytes()
    whole = FailingFile(content, 10**9)
    read_three(whole)
    assert whole.reads > 5
    for fails_at in range(whole.reads):
        with pytest.raises(StorageError, match="the network is down"):
            read_three(FailingFile(content, fails_at))


def read_three(file: Any) -> Any:
    with closing(Hdf5File(file)) as opened:
        assert len(opened.vector("exam_id")) == 4
        return opened.array("tracings", (3,), "f").read(0, 3)


def test_a_process_that_met_a_damaged_file_ends_well(tmp_path: Path) -> None:
    """h5py left alone ends it with a segmentation fault when an error outlives the interpreter."""
    (tmp_path / "damaged.h5").write_bytes(PART.read_bytes()[:5000])
    script = (
        "from ecgdist.sources.hdf5_file import open_hdf5\n"
        "from ecgdist.storage import Location\n"
        f"for _ in range(3):\n  try:\n    with open_hdf5(Location.of({str(tmp_path / 'damaged.h5')!r})): pass\n"
        "  except Exception as error:\n    kept = error\nprint(kept)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout[:17]) == (0, "unreadable_signal")


def test_a_part_that_is_gone_is_the_records_a_disk_that_fails_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made_code15(tmp_path, [code15_row(1, 0)], {0: [1]})
    source = open_source("code15", str(folder))
    (listing,) = source.list_records()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", failing_disk)
        with pytest.raises(StorageError, match="Input/output error"):
            source.read_record(listing)
    (folder / "exams_part0.hdf5").unlink()
    with pytest.raises(RecordRefused, match="missing_file"):
        source.read_record(listing)


def test_a_row_is_read_without_the_rest_of_the_file(tmp_path: Path) -> None:
    values = np.arange(400 * 1000 * 12, dtype=np.float32).reshape(400, 1000, 12)
    with h5py.File(tmp_path / "many.h5", "w") as file:
        file["tracings"] = values
    with (tmp_path / "many.h5").open("rb") as raw, closing(Hdf5File(counted := Counted(raw))) as opened:
        row = opened.array("tracings", (3,), "f").read(200, 201)
    np.testing.assert_array_equal(row[0], values[200])
    assert counted.bytes_read < 1.5 * values[0].nbytes


class Counted(io.RawIOBase):
    """Counts the bytes that are read of a file."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.bytes_read = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, buffer: Any) -> int:
        filled = int(self._file.readinto(buffer))
        self.bytes_read += filled
        return filled


@pytest.mark.parametrize("userblock", [0, 512])
def test_rows_of_a_plain_array_are_those_that_hdf5_gives(tmp_path: Path, userblock: int) -> None:
    values = np.arange(60 * 700 * 12, dtype=">f4").reshape(60, 700, 12)
    with h5py.File(tmp_path / "many.h5", "w", userblock_size=userblock) as file:
        file["before"] = np.ones(1000)
        file["tracings"] = values
    with open_hdf5(Location.of(tmp_path / "many.h5")) as opened:
        array = opened.array("tracings", (3,), "f")
        for start, stop in ((0, 1), (7, 40), (59, 60), (0, 60)):
            np.testing.assert_array_equal(array.read(start, stop), values[start:stop])


def test_a_row_beyond_the_array_is_a_refusal() -> None:
    source = open_source("code15", str(REAL))
    for row in (4, 10**15, None):
        with pytest.raises(RecordRefused, match="unreadable_signal"):
            source.read_record(Listing("1", "exams_part0.hdf5", row=row))


def test_without_h5py_the_user_is_told_what_to_install() -> None:
    script = (
        "import sys; sys.modules['h5py'] = None\n"
        "from ecgdist.errors import ConfigError\nfrom ecgdist.sources import open_source\n"
        f"try: open_source('code15', {str(REAL)!r}).list_records()\n"
        "except ConfigError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "pip install 'ecgdist[hdf5]'" in done.stdout


def test_files_may_be_read_by_several_threads() -> None:
    """As many records at once as are read from a bucket."""
    with ThreadPoolExecutor(16) as pool:
        blocks = list(pool.map(lambda _: read_three(io.BytesIO(PART.read_bytes())), range(64)))
    for block in blocks[1:]:
        np.testing.assert_array_equal(block, blocks[0])


def test_limb_leads_follow_from_one_and_two() -> None:
    expected = made_ecg_uv(3, 100)
    signal, leads = derive_limb_leads(expected[[6, 1, 0]], ("V1", "II", "I"))
    assert leads == ("V1", "II", "I", "III", "aVR", "aVL", "aVF")
    for name, values in zip(leads, signal, strict=True):
        np.testing.assert_array_equal(values, expected[STANDARD_LEADS.index(name)])


@pytest.mark.s3
def test_a_bucket_gives_what_a_folder_gives(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Location.of("s3://ecg/code15")
    for name in ("exams.csv", "exams_part0.hdf5"):
        (root / name).upload(REAL / name)
    local, remote = open_source("code15", str(REAL)), open_source("code15", root)
    listings = remote.list_records()
    assert listings == local.list_records()
    for one, other in zip(read_all(local)[0], remote.read_many(listings), strict=True):
        assert not isinstance(other, RecordRefused)
        np.testing.assert_array_equal(one.signal_uv, other.signal_uv)
    with pytest.raises(RecordRefused, match="missing_file"), open_hdf5(root / "exams_part1.hdf5"):
        pass
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError):
        list(remote.read_many(listings))
