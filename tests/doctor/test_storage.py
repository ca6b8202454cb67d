"""Storage, on a real S3 server and a real disk, as it should be and with what may be wrong with it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ecgdist.cli import app
from ecgdist.doctor import roundtrip
from ecgdist.doctor.finding import Finding
from ecgdist.doctor.objectstorage import is_private, lifecycle_finding, object_storage_findings
from ecgdist.doctor.roundtrip import round_trip
from ecgdist.storage import Location
from tests.conftest import S3Server, free_port
from tests.faulty_s3 import FaultyS3, faulty_s3

pytestmark = pytest.mark.s3


def doctor(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["doctor", *arguments])


def by_check(result: Result) -> dict[str, Finding]:
    return {one["check"]: Finding.model_validate(one) for one in json.loads(result.stdout)["findings"]}


@pytest.fixture
def folder(tmp_path: Path) -> Location:
    return Location.of(f"s3://ecg/{tmp_path.name}")


STEPS = ["storage: write and read", "storage: conditional writes", "storage: list", "storage: delete"]


def test_a_bucket_that_is_well_is_said_to_be(
    s3: S3Server, folder: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    # How fast it is depends on what else the machine does.
    monkeypatch.setattr(roundtrip, "_SLOW_S", math.inf)
    monkeypatch.setattr(roundtrip, "_SLOW_MB_PER_S", 0.0)
    (folder / "mine").write_bytes(b"x")
    result = doctor("--storage", str(folder), "--json")
    found = by_check(result)
    assert [found[step].level for step in STEPS] == ["ok"] * 4, found
    for check in ("S3 settings", "S3 endpoint", "bucket", "clock against the storage server"):
        assert found[check].level == "ok", found[check]
    assert abs(found["clock against the storage server"].values["skew_s"]) < 5, "it runs on this machine"
    values = found[STEPS[0]].values
    assert set(values) == {"write_latency_s", "read_latency_s", "write_mb_per_s", "read_mb_per_s"}
    assert all(value > 0 for value in values.values())
    assert folder.list_files() == ["mine"], "nothing is left, and nothing is taken away"
    assert result.exit_code == (json.loads(result.stdout)["level"] == "error")
    assert s3.secret_key not in result.output
    assert s3.access_key not in result.output


@pytest.mark.parametrize(
    ("rules", "level"),
    [
        ([], "warning"),
        ([{"Status": "Enabled", "Expiration": {"Days": 1}}], "warning"),
        ([{"Status": "Disabled", "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}}], "warning"),
        ([{"Status": "Enabled", "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}}], "ok"),
    ],
)
def test_a_rule_against_unfinished_uploads_is_looked_for(rules: list[dict[str, object]], level: str) -> None:
    assert lifecycle_finding(rules).level == level


def test_a_bucket_without_such_a_rule_is_warned_of(s3: S3Server, folder: Location) -> None:
    last = object_storage_findings(folder)[-1]
    assert (last.check, last.level) == ("unfinished uploads", "warning")
    assert "AbortIncompleteMultipartUpload" in str(last.advice)


def test_an_endpoint_that_nobody_answers_is_said_at_once(
    s3: S3Server, folder: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    result = doctor("--storage", str(folder), "--json")
    assert result.exit_code == 1
    found = by_check(result)
    assert found["S3 endpoint"].level == "error"
    assert f"127.0.0.1:{port} cannot be reached" in found["S3 endpoint"].measured
    assert "bucket" not in found
    assert not set(STEPS) & set(found), "nothing else is waited for"


def test_a_wrong_secret_is_refused_and_not_shown(
    s3: S3Server, folder: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-that-is-wrong")
    for more in (["--json"], []):
        result = doctor("--storage", str(folder), *more)
        assert result.exit_code == 1
        for secret in ("a-secret-that-is-wrong", s3.secret_key, s3.access_key, "Signature", "AWS4-HMAC"):
            assert secret not in result.output
        if more:
            bucket = by_check(result)["bucket"]
            assert bucket.level == "error"
            assert "access denied" in bucket.measured
            assert "check the access key" in str(bucket.advice)


def test_no_credentials_at_all_are_named(
    s3: S3Server, folder: Location, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    (settings,) = object_storage_findings(folder)
    assert settings.level == "error"
    assert "no credentials" in settings.measured


def test_a_missing_bucket_is_named(s3: S3Server) -> None:
    *_, bucket = object_storage_findings(Location.of("s3://no-such-bucket/runs"))
    assert (bucket.check, bucket.level) == ("bucket", "error")
    assert "there is no bucket 'no-such-bucket'" in bucket.measured


def test_who_may_only_read_is_told_so(
    s3: S3Server, folder: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.reader_access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.reader_secret_key)
    result = doctor("--storage", str(folder), "--json")
    assert result.exit_code == 1
    found = by_check(result)
    assert found["bucket"].level == "ok", "it may be read"
    assert found["storage: write"].level == "error"
    assert "access denied" in found["storage: write"].measured
    assert not {"storage: list", "storage: conditional writes"} & set(found)


@pytest.fixture
def proxy(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    with faulty_s3(s3.endpoint, one_in=0, latency_s=0.0) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


def test_what_was_written_before_a_failure_is_removed(folder: Location, proxy: FaultyS3) -> None:
    proxy.denied = re.compile(r"/large")
    found = round_trip(folder)
    assert [(one.check, one.level) for one in found] == [
        ("storage: write", "error"),
        ("storage: delete", "ok"),
    ]
    assert proxy.requests["PUT"] > 1
    assert folder.list_files() == []


@pytest.mark.slow
def test_slow_storage_is_warned_of(folder: Location, proxy: FaultyS3) -> None:
    proxy.latency_s = 1.1
    first = round_trip(folder)[0]
    assert first.level == "warning"
    assert first.values["write_latency_s"] > 1
    assert "too slow" in str(first.advice)


def test_conditions_that_do_not_hold_are_refused_by_the_server(s3: S3Server, folder: Location) -> None:
    file = folder / "file"
    file.write_bytes(b"content")
    assert file.honours_conditions()
    assert file.read_bytes() == b"content"


def test_a_local_folder_is_tried_too(tmp_path: Path) -> None:
    found = round_trip(Location.of(tmp_path / "runs"))
    assert [one.check for one in found] == STEPS
    assert {one.level for one in found} <= {"ok", "warning"}
    assert list(tmp_path.rglob("*.bin")) == []
    assert Location.of(tmp_path / "runs").list_files() == []


def test_a_folder_that_is_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    found = round_trip(Location.of(tmp_path / "file"))
    assert (found[0].check, found[0].level) == ("storage: write", "error")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("host", "private"),
    [
        ("127.0.0.1", True),
        ("10.1.2.3", True),
        ("minio", True),
        ("s3.internal", True),
        ("8.8.8.8", False),
        ("s3.amazonaws.com", False),
    ],
)
def test_private_networks_are_told_from_the_internet(host: str, private: bool) -> None:
    assert is_private(host) == private
