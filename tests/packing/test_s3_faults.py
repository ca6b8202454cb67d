"""Packing from a bucket into a bucket, through a network that fails now and then: the same corpus, byte for byte."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ecgdist import s3 as objects
from ecgdist.storage import Location
from tests.conftest import S3Server
from tests.faulty_s3 import FAULTS, FaultyS3, faulty_s3
from tests.packing.folders import corpus_files, pack_to, ptbxl_folder
from tests.sources.made import code15_row, made_code15

pytestmark = [pytest.mark.ray, pytest.mark.s3]

RECORDS_PER_SHARD = 10
MAX_REFUSED_SHARE = 0.05


@contextmanager
def packing(proxy: FaultyS3, out: Location, log: Path, *sources: str) -> Iterator[subprocess.Popen[bytes]]:
    """`ecgdist pack` in a process, and a Ray cluster, of its own, whose only way to the bucket is the proxy."""
    command = [
        sys.executable, "-m", "ecgdist.cli", "pack", *sources, "--out", str(out),
        "--set", "pack.rate_hz=100", "--set", f"records_per_shard={RECORDS_PER_SHARD}",
        "--set", f"max_refused_share={MAX_REFUSED_SHARE}",
    ]  # fmt: skip
    environment = {**os.environ, "AWS_ENDPOINT_URL": proxy.endpoint, objects.TIMEOUT: "3"}
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink, env=environment, start_new_session=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def to_bucket(folder: Path, root: Location) -> Location:
    """A copy of a folder in the bucket."""
    for path in folder.rglob("*"):
        if path.is_file():
            (root / path.relative_to(folder).as_posix()).upload(path)
    return root


@pytest.mark.slow
def test_a_bad_network_gives_the_same_corpus(ray_cluster: None, s3: S3Server, tmp_path: Path) -> None:
    ptbxl = ptbxl_folder(tmp_path / "ptb-xl", 60)
    next(ptbxl.rglob("*.dat")).unlink()  # one refusal, which must be the only one
    rows = [code15_row(exam, exam % 2) for exam in range(20)]
    parts = {part: [exam for exam in range(20) if exam % 2 == part] for part in (0, 1)}
    code15 = made_code15(tmp_path / "code15", rows, parts)
    pack_to(
        tmp_path / "local",
        f"ptbxl={ptbxl}",
        f"code15={code15}",
        records_per_shard=RECORDS_PER_SHARD,
        max_refused_share=MAX_REFUSED_SHARE,
    )
    bucket = Location.of(f"s3://ecg/{tmp_path.name}")
    sources = (
        f"ptbxl={to_bucket(ptbxl, bucket / 'ptb-xl')}",
        f"code15={to_bucket(code15, bucket / 'code15')}",
    )
    with (
        faulty_s3(s3.endpoint, one_in=20, latency_s=0.3) as proxy,
        packing(proxy, bucket / "corpus", tmp_path / "log", *sources) as process,
    ):
        assert process.wait(timeout=300) == 0, (tmp_path / "log").read_text()
    assert corpus_files(bucket / "corpus") == corpus_files(tmp_path / "local")
    assert len(proxy.done) >= len(FAULTS) - 1, f"nearly every kind of fault was to happen: {proxy.done}"
    assert sum(proxy.done.values()) >= sum(proxy.requests.values()) // 20 - 1
