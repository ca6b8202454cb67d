"""A packing that is killed goes on: same corpus, byte for byte, and no finished shard is built twice."""

from __future__ import annotations

import signal
import time
from datetime import datetime
from pathlib import Path

import boto3
import psutil
import pytest

from ecgdist.corpus import Corpus
from ecgdist.errors import DataError
from ecgdist.sample import sample_folder
from ecgdist.sources import SOURCES
from ecgdist.storage import Location
from tests.conftest import S3Server
from tests.packing.builds import Builds
from tests.packing.deadly import Deadly
from tests.packing.folders import files_of, pack_to, ptbxl_folder
from tests.packing.kills import (
    descendants,
    end,
    finished,
    pack_with_kills,
    packing_process,
    sample_job,
    stamps,
)

pytestmark = pytest.mark.ray


def same_as_unbroken(source: str, out: Path | Location, unbroken: Path, per_shard: int) -> None:
    Corpus(out).verify()
    pack_to(unbroken, source, records_per_shard=per_shard, max_refused_share=0.1)
    assert files_of(out) == files_of(unbroken)


@pytest.mark.parametrize(
    "kills", [pytest.param(2, marks=pytest.mark.slow), pytest.param(10, marks=pytest.mark.long)]
)
def test_kills_at_random_moments(ray_cluster: None, tmp_path: Path, kills: int) -> None:
    job, out = sample_job(), tmp_path / "corpus"
    broken = pack_with_kills(job, out, kills, seed=kills)
    assert 0 < broken.kills[-1].finished < job.shards, "the packing was to be killed in mid-run"
    builds = Builds.of(out)
    assert builds.again == [], "a shard was begun although its file had its name"
    assert set(builds.ended) == set(builds.begun) == set(range(job.shards))
    assert {name: stamp for name, stamp in stamps(out).items() if name in broken.kept} == broken.kept
    same_as_unbroken(job.source, out, tmp_path / "unbroken", per_shard=1)


@pytest.mark.slow
def test_kills_while_the_corpus_is_closed(ray_cluster: None, tmp_path: Path) -> None:
    """All shards are there; every call is killed somewhere between the index and the end."""
    source, out = f"ptbxl={ptbxl_folder(tmp_path / 'ptb-xl', 24)}", tmp_path / "corpus"
    missing = sorted((tmp_path / "ptb-xl").rglob("*.dat"))[3]
    missing.unlink()
    moments = [f"{when}:{file}.parquet" for file in ("index", "refused") for when in ("before", "after")]
    kept: dict[str, tuple[int, int]] = {}
    for moment in [*moments, "before:manifest.json", "after:manifest.json"]:
        with packing_process(source, out, tmp_path / "log", "--die-at", moment) as process:
            assert process.wait(timeout=120) == -signal.SIGKILL, (tmp_path / "log").read_text()
        if moment != "after:manifest.json":
            with pytest.raises(DataError, match="is not a corpus"):
                Corpus(out)
        kept = kept or stamps(out)
        assert stamps(out) == kept
    assert len(kept) == 3
    assert pack_to(out, source, records_per_shard=8, max_refused_share=0.1).built == 0
    same_as_unbroken(source, out, tmp_path / "unbroken", per_shard=8)


def objects(s3: S3Server, folder: Location) -> dict[str, tuple[str, datetime]]:
    """ETag and time of the shards in a bucket: an object that is written again gets another time."""
    bucket, _, prefix = folder.uri.removeprefix("s3://").partition("/")
    client = boto3.client(
        "s3",
        endpoint_url=s3.endpoint,
        aws_access_key_id=s3.access_key,
        aws_secret_access_key=s3.secret_key,
        region_name="us-east-1",
    )
    found = client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/shards/").get("Contents", [])
    return {each["Key"]: (each["ETag"], each["LastModified"]) for each in found}


@pytest.mark.slow
@pytest.mark.s3
def test_a_packing_into_a_bucket_that_is_killed(ray_cluster: None, s3: S3Server, tmp_path: Path) -> None:
    source = f"ptbxl={ptbxl_folder(tmp_path / 'ptb-xl', 120)}"
    out = Location.of(f"s3://ecg/{tmp_path.name}/corpus")
    kept: dict[str, tuple[str, datetime]] = {}
    for wanted in (5, 25):
        with packing_process(source, out, tmp_path / "log", "--per-shard", "2") as process:
            deadline = time.monotonic() + 120
            while len(objects(s3, out)) < wanted:
                assert process.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.01)
            everything = descendants(process.pid)
            process.kill()
            end(everything)
        kept = objects(s3, out) | kept
    assert len(kept) < 60, "the packing was to be killed in mid-run"
    pack_to(out, source, records_per_shard=2, max_refused_share=0.1)
    assert {key: stamp for key, stamp in objects(s3, out).items() if key in kept} == kept
    same_as_unbroken(source, out, tmp_path / "unbroken", per_shard=2)


@pytest.mark.slow
def test_a_record_that_kills_every_worker_ends_the_packing(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SOURCES, "deadly", Deadly)
    with pytest.raises(DataError, match="shard 0 cannot be built: its worker died again and again"):
        pack_to(tmp_path / "corpus", f"deadly={tmp_path}")


@pytest.mark.slow
def test_a_killed_worker_is_replaced(ray_cluster: None, tmp_path: Path) -> None:
    """The task that it had is done again; the packing itself goes on."""
    source, out = f"ptbxl={sample_folder()}", tmp_path / "corpus"
    killed: list[int] = []
    deadline = time.monotonic() + 120
    with packing_process(source, out, tmp_path / "log", "--per-shard", "2") as process:
        while process.poll() is None and len(killed) < 2:
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.05)
            for worker in descendants(process.pid):
                try:
                    if len(finished(out)) > 20 * len(killed) and worker.name() == "ray::_build":
                        worker.kill()
                        killed.append(worker.pid)
                        break
                except psutil.NoSuchProcess:
                    continue
        assert process.wait(timeout=120) == 0, (tmp_path / "log").read_text()
    assert len(killed) == 2
    same_as_unbroken(source, out, tmp_path / "unbroken", per_shard=2)
