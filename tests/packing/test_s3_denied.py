"""Storage that says no ends packing, within ten seconds of its answer, with the name of the key and without a secret.

The ten seconds are what was asked of packing. They count from the first such answer, so no start of a process is in
them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ecgdist.cli import app
from ecgdist.storage import Location
from tests.conftest import S3Server
from tests.faulty_s3 import FaultyS3, faulty_s3
from tests.packing.folders import ptbxl_folder
from tests.packing.test_s3_faults import packing, to_bucket
from tests.sources.made import code15_row, made_code15

pytestmark = pytest.mark.s3
EXTRA = (pytest.mark.slow, pytest.mark.extra)

PROMISED_S = 10


@pytest.fixture
def proxy(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    """A proxy that does what it is told and nothing else; the environment points at it."""
    with faulty_s3(s3.endpoint, one_in=0, latency_s=0.1) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


def denied(proxy: FaultyS3, files: str) -> None:
    proxy.denied = re.compile(files)


def denied_beside_silence(proxy: FaultyS3, files: str) -> None:
    """Records with an odd number are denied, and the others are never answered."""
    proxy.denied, proxy.mute, proxy.silence_s = re.compile(rf"[13579]{files}"), re.compile(files), 300.0


def vanished(proxy: FaultyS3, files: str) -> None:
    proxy.missing = re.compile(files)


def ptbxl(folder: Path) -> str:
    ptbxl_folder(folder, 120)
    return r"_lr\.hea"


def code15(folder: Path) -> str:
    rows = [code15_row(exam, exam % 2) for exam in range(60)]
    made_code15(folder, rows, {part: [exam for exam in range(60) if exam % 2 == part] for part in (0, 1)})
    return r"exams_part1\.hdf5"


@pytest.mark.ray
@pytest.mark.parametrize(
    ("make", "trouble", "status", "says"),
    [
        pytest.param(ptbxl, denied, 403, r"/records100/\S+\.hea: access denied", marks=EXTRA),
        pytest.param(
            *(ptbxl, denied_beside_silence, 403, r"/records100/\S+\.hea: access denied"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *(ptbxl, vanished, 404, r"missing_header: s3://\S+/records100/\S+\.hea does not exist"),
            marks=EXTRA,
        ),
        pytest.param(code15, denied, 403, r"/exams_part1\.hdf5: access denied", marks=EXTRA),
        pytest.param(
            *(code15, vanished, 404, r"missing_file: s3://\S+/exams_part1\.hdf5 does not exist"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_in_the_middle_of_packing(
    make: Callable[[Path], str],
    trouble: Callable[[FaultyS3, str], None],
    status: int,
    says: str,
    s3: S3Server,
    tmp_path: Path,
) -> None:
    bucket = Location.of(f"s3://ecg/{tmp_path.name}")
    files = make(tmp_path / "folder")
    source = to_bucket(tmp_path / "folder", bucket / "source")
    log = tmp_path / "log"
    with (
        faulty_s3(s3.endpoint, one_in=0, latency_s=0.1) as proxy,
        packing(proxy, bucket / "corpus", log, f"{make.__name__}={source}") as process,
    ):
        deadline = time.monotonic() + 120
        while not [name for name in (bucket / "corpus").list_files() if name.startswith("shards/")]:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        proxy.first_s.clear()
        trouble(proxy, files)
        assert process.wait(timeout=120) != 0
        assert time.monotonic() - proxy.first_s[status] < PROMISED_S
    said = log.read_text()
    assert re.search(says, " ".join(said.split()))
    for secret in (s3.secret_key, "Signature=", "AWS4-HMAC", "Traceback"):
        assert secret not in said
    assert not (bucket / "corpus/manifest.json").exists()


@pytest.mark.parametrize(
    ("bucket", "status", "says"),
    [("ecg", 403, "access denied"), ("no-such-bucket", 404, "there is no bucket 'no-such-bucket'")],
)
@pytest.mark.parametrize("kind", ["ptbxl", "code15", "wfdb"])
def test_at_its_start(
    bucket: str,
    status: int,
    says: str,
    kind: str,
    proxy: FaultyS3,
    s3: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if status == 403:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-that-is-wrong")
    source = f"s3://{bucket}/{tmp_path.name}"
    result = CliRunner().invoke(app, ["pack", f"{kind}={source}", "--out", str(tmp_path / "corpus")])
    assert time.monotonic() - proxy.first_s[status] < PROMISED_S
    assert result.exit_code == 1
    said = " ".join(result.output.split())
    assert re.search(rf"{re.escape(source)}\S*: {says}", said)
    for secret in (s3.secret_key, "a-secret-that-is-wrong", "Signature=", "AWS4-HMAC", "Traceback"):
        assert secret not in said
    assert sum(proxy.requests.values()) <= 3, "what is refused is not asked for again"
    assert not (tmp_path / "corpus").exists()
