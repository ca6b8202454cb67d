"""A shard is finished when its file has its name, and is never built again; what ends a worker earlier leaves none."""

from __future__ import annotations

import shutil
import signal
from multiprocessing import get_context
from pathlib import Path

import pytest

from ecgdist.config import build
from ecgdist.errors import DataError
from ecgdist.packing import PackConfig
from ecgdist.packing.job import _build
from ecgdist.packing.notes import ShardNote, finished_note, note_name, shard_path, write_note
from ecgdist.packing.plan import Plan
from ecgdist.packing.shards import build_shard
from ecgdist.storage import Location
from tests.packing.folders import files_of, georgia_folder
from tests.packing.process import die_at

EXTRA = (pytest.mark.slow, pytest.mark.extra)


def plan_of(folder: Path, out: Path | Location | str) -> Plan:
    """One shard of a record that can be packed and one that cannot."""
    if not folder.exists():
        (georgia_folder(folder, "a", "b") / "b.mat").unlink()
    return Plan.of(
        build(PackConfig, {"sources": [f"wfdb={folder}"], "out": str(out), "pack": {"rate_hz": 100.0}})
    )


def build_and_die(folder: Path, out: Path, moment: str) -> None:
    """Build the shard in this process, which ends itself at the moment."""
    plan = plan_of(folder, out)
    die_at(moment)
    build_shard(plan.work, 0, plan.chunks[0].listings())


@pytest.mark.parametrize(
    ("moment", "finished"),
    [
        pytest.param("before:00000.parquet", False, marks=EXTRA),  # the shard is begun
        pytest.param("after:00000.parquet", False, marks=EXTRA),  # its index rows are written
        pytest.param("after:00000.refused.parquet", False, marks=EXTRA),
        ("after:00000.json", False),
        ("never", True),
    ],
)
def test_a_worker_that_ends_at_any_moment(tmp_path: Path, moment: str, finished: bool) -> None:
    folder, out = tmp_path / "wfdb", tmp_path / "corpus"
    plan = plan_of(folder, out)
    worker = get_context("spawn").Process(target=build_and_die, args=(folder, out, moment))
    worker.start()
    worker.join()
    assert worker.exitcode == (0 if finished else -signal.SIGKILL)
    assert (out / shard_path(0)).exists() == finished
    assert (finished_note(plan.work.out, 0) is not None) == finished
    note = ShardNote.model_validate_json(_build(plan.work, 0, plan.chunks[0]))
    assert note == finished_note(plan.work.out, 0)
    assert (note.packed, note.refused) == ({"wfdb": 1}, {"wfdb": {"missing_signal": 1}})


@pytest.mark.parametrize("place", ["local", pytest.param("bucket", marks=pytest.mark.s3)])
def test_a_finished_shard_is_taken_and_not_built_again(
    request: pytest.FixtureRequest, tmp_path: Path, place: str
) -> None:
    out = Location.of(tmp_path / "corpus")
    if place == "bucket":
        request.getfixturevalue("s3")
        out = Location.of(f"s3://ecg/{tmp_path.name}")
    plan = plan_of(tmp_path / "wfdb", out)
    first = _build(plan.work, 0, plan.chunks[0])
    before = files_of(out)
    shutil.rmtree(tmp_path / "wfdb")  # a second build would find no record
    assert _build(plan.work, 0, plan.chunks[0]) == first
    assert files_of(out) == before
    for name in (shard_path(0), "parts/00000.parquet", "parts/00000.refused.parquet", note_name(0)):
        content = (out / name).read_bytes()
        (out / name).delete()
        assert finished_note(out, 0) is None, f"without {name} the shard is not finished"
        (out / name).write_bytes(content)
    assert finished_note(out, 0) is not None


def test_a_shard_of_refusals_is_finished_by_its_note(tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "wfdb", tmp_path / "corpus")
    (tmp_path / "wfdb/a.mat").unlink()
    _build(plan.work, 0, plan.chunks[0])
    assert not (tmp_path / "corpus/shards").exists()
    note = finished_note(plan.work.out, 0)
    assert note is not None
    assert note.refused == {"wfdb": {"missing_signal": 2}}


def test_a_note_of_another_shard_is_damaged(tmp_path: Path) -> None:
    out = Location.of(tmp_path)
    write_note(out, ShardNote(shard=1, packed={}, refused={}, examples={}, facts=None))
    assert finished_note(out, 1) is not None
    (out / note_name(0)).write_bytes((out / note_name(1)).read_bytes())
    with pytest.raises(DataError, match=r"parts/00000\.json is not the note of a shard that this version"):
        finished_note(out, 0)
