"""Sources in a bucket give what they give in a folder, and tell a missing file from failing storage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecgdist.errors import RecordRefused, StorageError
from ecgdist.sources import open_source
from ecgdist.storage import Location
from tests.sources.contract import read_all

DATA = Path(__file__).parents[1] / "data"

pytestmark = pytest.mark.s3


@pytest.fixture
def bucket(s3: Any) -> Location:
    """A copy of the test data in a real bucket."""
    root = Location.of("s3://ecg/sources")
    for path in DATA.rglob("*"):
        if path.is_file():
            (root / path.relative_to(DATA).as_posix()).upload(path)
    return root


def test_a_bucket_gives_what_a_folder_gives(bucket: Location) -> None:
    for kind, name in (("wfdb", "wfdb"), ("ptbxl", "ptb-xl")):
        local, remote = open_source(kind, str(DATA / name)), open_source(kind, bucket / name)
        assert remote.list_records() == local.list_records()
        (expected, expected_refusals), (found, refusals) = read_all(local), read_all(remote)
        assert refusals.keys() == expected_refusals.keys()
        assert [r.reason for r in refusals.values()] == [r.reason for r in expected_refusals.values()]
        for one, other in zip(expected, found, strict=True):
            np.testing.assert_array_equal(one.signal_uv, other.signal_uv)
            assert (one.record_id, one.labels, one.patient_id) == (
                other.record_id,
                other.labels,
                other.patient_id,
            )


def test_a_missing_object_is_the_records_failing_storage_is_not(
    bucket: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source("wfdb", bucket / "wfdb" / "georgia")
    (listing,) = source.list_records()
    (bucket / "wfdb" / "georgia" / "E07500.hea").delete()
    with pytest.raises(RecordRefused, match="missing_header"):
        source.read_record(listing)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match="cannot be reached"):
        source.read_record(listing)
