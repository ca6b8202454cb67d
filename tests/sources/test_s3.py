"""Sources in a bucket give what they give in a folder, and tell a missing file from failing storage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecgdist.errors import RecordRefused, StorageError
from ecgdist.record import STANDARD_LEADS
from ecgdist.sources import open_source
from ecgdist.storage import Location
from tests.sources.contract import read_all
from tests.sources.made_wfdb import make_record, real_ecg

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
    for kind, name in (("wfdb", "wfdb"), ("ptbxl", "ptb-xl"), ("challenge2021", "challenge2021")):
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


def test_a_mimic_bucket_is_listed_by_its_table_and_absent_records_are_refused(
    s3: Any, tmp_path: Path
) -> None:
    local = tmp_path / "mimic"
    make_record(
        local / "files/p1000/p10000032/s40689238/40689238", real_ecg() // 5, STANDARD_LEADS, gain="200/mV"
    )
    (local / "record_list.csv").write_text(
        "subject_id,study_id,path\n"
        "10000032,40689238,files/p1000/p10000032/s40689238/40689238\n"
        "10000117,49036311,files/p1000/p10000117/s49036311/49036311\n"
    )
    root = Location.of("s3://ecg/mimic")
    for path in local.rglob("*.*"):
        (root / path.relative_to(local).as_posix()).upload(path)
    source = open_source("mimic", root)
    assert source.list_records() == open_source("mimic", str(local)).list_records()
    ((recording,), refusals) = read_all(source)
    np.testing.assert_array_equal(recording.signal_uv, real_ecg() // 5 * 5)
    assert {key: refused.reason for key, refused in refusals.items()} == {"49036311": "missing_header"}
