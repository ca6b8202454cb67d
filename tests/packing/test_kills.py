"""A packing that is killed goes on: same corpus, byte for byte, and no finished shard is built twice."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import psutil
import pytest

from ecgdist.corpus import Corpus
from ecgdist.errors import DataError
from ecgdist.sample import sample_folder
from ecgdist.sources import SOURCES
from tests.packing.builds import Builds
from tests.packing.deadly import Deadly
from tests.packing.folders import files_of, pack_to, ptbxl_folder
from tests.packing.kills import (
    descendants,
    finished,
    pack_with_kills,
    packing_process,
    sample_job,
    stamps,
)

pytestmark = pytest.mark.ray


def same_as_unbroken(source: str, out: Path, unbroken: Path, per_shard: int) -> None:
    Corpus(out).verify()
    pack_to(unbroken, source, records_per_shard=per_shard, max_refused_share=0.1)
    assert files_of(out) == files_of(unbroken)


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_kills_at_random_moments(ray_cluster: None, tmp_path: Path, kills: int) -> None:
    job, out = sample_job(), tmp_path / "corpus"
    broken = pack_with_kills(job, out, kills, seed=kills)
    assert 0 < broken.kills[-1].finished < job.shards, "the packing was to be killed in mid-run"
    builds = Builds.of(out)
    assert builds.again == [], "a shard was begun although its file had its name"
    assert set(builds.ended) == set(builds.begun) == set(range(job.shards))
    assert {name: stamp for name, stamp in stamps(out).items() if name in broken.kept} == broken.kept
    same_as_unbroken(job.source, out, tmp_path / "unbroken", per_shard=1)


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


def test_a_record_that_kills_every_worker_ends_the_packing(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SOURCES, "deadly", Deadly)
    with pytest.raises(DataError, match="shard 0 cannot be built: its worker died again and again"):
        pack_to(tmp_path / "corpus", f"deadly={tmp_path}")


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
