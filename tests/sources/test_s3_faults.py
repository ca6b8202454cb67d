"""Sources behind storage that fails now and then, and is far away, give what they give from a folder."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ecgdist import s3 as objects
from ecgdist.errors import RecordRefused, StorageError
from ecgdist.record import Recording
from ecgdist.sources import Source, open_source
from ecgdist.storage import Location
from tests.conftest import S3Server
from tests.faulty_s3 import FAULTS, FaultyS3, faulty_s3
from tests.packing.folders import ptbxl_folder
from tests.sources.made import code15_row, made_code15

pytestmark = pytest.mark.s3


@pytest.fixture
def proxy(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    """A proxy that spoils one request in twenty and answers after 300 ms."""
    with faulty_s3(s3.endpoint, one_in=20, latency_s=0.3) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        monkeypatch.setenv(objects.TIMEOUT, "3")
        yield proxy


def to_bucket(folder: Path, name: str, s3: S3Server) -> Location:
    """A copy of a folder in the bucket."""
    root = Location.of(f"s3://ecg/{name}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
        for path in folder.rglob("*"):
            if path.is_file():
                (root / path.relative_to(folder).as_posix()).upload(path)
    return root


def read_many(source: Source) -> list[Recording | RecordRefused]:
    return list(source.read_many(source.list_records()))


def assert_same(found: list[Recording | RecordRefused], expected: list[Recording | RecordRefused]) -> None:
    assert [type(item) for item in found] == [type(item) for item in expected]
    for one, other in zip(found, expected, strict=True):
        if isinstance(one, RecordRefused) or isinstance(other, RecordRefused):
            assert one.args[:1] == other.args[:1]
            continue
        np.testing.assert_array_equal(one.signal_uv, other.signal_uv)
        assert (one.record_id, one.patient_id, one.labels, one.split) == (
            other.record_id,
            other.patient_id,
            other.labels,
            other.split,
        )


@pytest.mark.slow
def test_many_small_objects(s3: S3Server, proxy: FaultyS3, tmp_path: Path) -> None:
    folder = ptbxl_folder(tmp_path / "ptb-xl", 150)
    broken = sorted(folder.rglob("*.dat"))
    broken[3].write_bytes(broken[3].read_bytes()[:-10])
    broken[70].unlink()
    expected = read_many(open_source("ptbxl", str(folder)))
    found = read_many(open_source("ptbxl", to_bucket(folder, tmp_path.name, s3)))
    assert_same(found, expected)
    assert sum(isinstance(item, RecordRefused) for item in found) == 2
    assert set(FAULTS) <= set(proxy.done), "every kind of fault was to happen"
    assert 300 <= sum(proxy.requests.values()) < 300 * 1.1, "a record costs two requests"
    assert 8 <= proxy.most_at_once <= 16


@pytest.mark.slow
def test_rows_of_a_big_file(s3: S3Server, proxy: FaultyS3, tmp_path: Path) -> None:
    rows = [code15_row(exam, exam % 2) for exam in range(120)]
    parts = {part: [exam for exam in range(119, -1, -1) if exam % 2 == part] for part in (0, 1)}
    folder = made_code15(tmp_path / "code15", rows, parts)
    root = to_bucket(folder, tmp_path.name, s3)
    expected = read_many(open_source("code15", str(folder)))
    proxy.one_in, proxy.latency_s = 4, 0.05
    assert_same(read_many(open_source("code15", root)), expected)
    assert set(FAULTS) <= set(proxy.done), "every kind of fault was to happen"


def test_nobody_wants_the_rest(s3: S3Server, proxy: FaultyS3, tmp_path: Path) -> None:
    proxy.one_in, proxy.latency_s = 0, 0.05
    source = open_source("ptbxl", to_bucket(ptbxl_folder(tmp_path / "ptb-xl", 60), tmp_path.name, s3))
    recordings = source.read_many(source.list_records())
    for _ in range(3):
        next(recordings)
    recordings.close()  # type: ignore[attr-defined]
    asked = sum(proxy.requests.values())
    assert asked < 2 * (3 + 2 * source.in_flight)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ecgdist-read")]
    assert sum(proxy.requests.values()) == asked


@pytest.mark.parametrize("kind", ["ptbxl", "code15"])
def test_storage_that_fails_refuses_no_record(
    kind: str, s3: S3Server, proxy: FaultyS3, tmp_path: Path
) -> None:
    proxy.one_in, proxy.latency_s = 0, 0.0
    if kind == "ptbxl":
        folder = ptbxl_folder(tmp_path / "ptb-xl", 20)
    else:
        folder = made_code15(
            tmp_path / "code15", [code15_row(exam, 0) for exam in range(20)], {0: list(range(20))}
        )
    source = open_source(kind, to_bucket(folder, tmp_path.name, s3))
    listings = source.list_records()
    proxy.denied = re.compile(r"\.dat|hdf5")
    found: list[Recording | RecordRefused] = []
    with pytest.raises(StorageError, match=rf"s3://ecg/{tmp_path.name}/.*: access denied"):
        found.extend(source.read_many(listings))
    assert found == []
