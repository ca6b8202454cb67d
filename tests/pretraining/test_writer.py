"""Checkpoints are written while training goes on, one at a time, and committed when every rank's part is there."""

from __future__ import annotations

import os
import resource
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from ecgdist.errors import DataError, StorageError, TrainingError
from ecgdist.lease import Lease
from ecgdist.pretraining import writer as writing
from ecgdist.pretraining.checkpoint import CHECKPOINT, STUDENT, CheckpointStore
from ecgdist.pretraining.config import CheckpointConfig
from ecgdist.pretraining.export import saved_student
from ecgdist.pretraining.group import Group
from ecgdist.pretraining.snapshot import Snapshot
from ecgdist.pretraining.writer import CheckpointWriter
from ecgdist.storage import Location
from tests.pretraining.processes import Processes
from tests.pretraining.resume import state_at, writer_for
from tests.pretraining.runs import Setting, SmallRun, largest_difference

GroupOf = Callable[[int], Processes]


@contextmanager
def uploads_do(action: Callable[[Location], None]) -> Iterator[None]:
    """Do something before every upload of a file of a checkpoint."""
    real = Location.upload

    def upload(self: Location, local: str | os.PathLike[str]) -> None:
        action(self)
        real(self, local)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Location, "upload", upload)
        yield


def save(run: SmallRun, writer: CheckpointWriter, step: int, metric: float | None = None) -> str:
    return writer.save(run.engine, run.teacher, state_at(step, run.group.world_size), metric)


def names(where: str) -> list[str]:
    return CheckpointStore(Location.of(where)).names()


def snapshots() -> list[str]:
    return [path.name for path in Path(tempfile.gettempdir()).glob(f"ecgdist-snapshot.*.{os.getpid()}.*")]


def train_while_it_is_uploaded(where: str) -> dict[str, Any]:
    """Save, and train on while storage takes nothing."""
    run, release = SmallRun(Setting(zero_stage=2)), threading.Event()
    with uploads_do(lambda _: release.wait() and None), writer_for(where, run.group) as writer:
        run.steps(0, 1)
        weights = run.weights()
        name = save(run, writer, 1)
        run.steps(1, 4)
        during = (writer.poll(), writer.is_busy, names(where), len(snapshots()))
        release.set()
        writer.wait()
        run.group.wait()
        after = (writer.poll(), writer.poll(), writer.is_busy, names(where), len(snapshots()))
    return {"name": name, "weights": weights, "during": during, "after": after}


def test_training_goes_on_while_a_checkpoint_is_uploaded(processes: GroupOf, tmp_path: Path) -> None:
    for answer in processes(2).run(train_while_it_is_uploaded, str(tmp_path)):
        name = answer["name"]
        assert answer["during"] == ([], True, [], 1)
        assert answer["after"] == ([name], [], False, [name], 0)
        saved = load_file(tmp_path / "checkpoints" / name / STUDENT)
        assert largest_difference(saved, answer["weights"]) == 0, "of the step that it is named after"


def commit_with_a_slow_rank(where: str) -> tuple[list[str], list[str]]:
    """Rank 1 uploads only after rank 0 has looked for the checkpoint."""
    run, go = SmallRun(Setting(zero_stage=2)), Path(where, "go")

    def wait_for_rank_0(_: Location) -> None:
        while run.group.rank == 1 and not go.exists():
            time.sleep(0.01)

    with uploads_do(wait_for_rank_0), writer_for(where, run.group) as writer:
        name = save(run, writer, 1)
        early: list[str] = []
        if run.group.rank == 0:
            until(lambda: (Path(where, "checkpoints", name) / "notes/rank-00000.json").exists())
            time.sleep(0.5)
            early = names(where)
            go.touch()
    return early, names(where)


def test_a_checkpoint_is_committed_when_every_rank_has_uploaded_its_part(
    processes: GroupOf, tmp_path: Path
) -> None:
    early, late = processes(2).run(commit_with_a_slow_rank, str(tmp_path))[0]
    assert early == []
    assert [name[:13] for name in late] == ["step-00000001"]


def save_twice(where: str) -> tuple[list[str], list[str]]:
    run = SmallRun(Setting())
    with uploads_do(lambda _: time.sleep(0.2)), writer_for(where, run.group, keep_last=5) as writer:
        save(run, writer, 1)
        save(run, writer, 2)
        between = names(where)
    return between, names(where)


@pytest.mark.slow
def test_a_second_one_waits_for_the_first(processes: GroupOf, tmp_path: Path) -> None:
    ((between, end),) = processes(1).run(save_twice, str(tmp_path))
    assert [name[:13] for name in between] == ["step-00000001"]
    assert [name[:13] for name in end] == ["step-00000001", "step-00000002"]


def save_while_storage_fails(where: str, times: int, patience_s: float) -> dict[str, Any]:
    """Uploads fail a number of times, then work."""
    run, left = SmallRun(Setting()), [times]

    def fail(target: Location) -> None:
        if left[0]:
            left[0] -= 1
            raise StorageError(f"{target}: the storage server cannot be reached", may_pass=True)

    error = ""
    with pytest.MonkeyPatch.context() as patch, writer_for(where, run.group) as writer:
        patch.setattr(writing, "PATIENCE_S", patience_s)
        with uploads_do(fail):
            save(run, writer, 1)
            try:
                writer.wait()
            except StorageError as raised:
                error = str(raised)
        first, left_over = names(where), snapshots()
        save(run, writer, 2)
        writer.wait()
        warnings = writer.warnings()
    return {"error": error, "first": first, "left": left_over, "end": names(where), "warnings": warnings}


@pytest.mark.slow
def test_storage_that_is_away_for_a_while_is_waited_for(processes: GroupOf, tmp_path: Path) -> None:
    (found,) = processes(1).run(save_while_storage_fails, str(tmp_path), 7, 60.0)
    assert found["error"] == ""
    assert len(found["first"]) == 1
    (warning,) = found["warnings"]
    assert "waits for storage" in warning


def test_a_checkpoint_that_storage_never_takes_is_an_error_and_leaves_nothing_on_the_disk(
    processes: GroupOf, tmp_path: Path
) -> None:
    (found,) = processes(1).run(save_while_storage_fails, str(tmp_path), 10_000, 0.2)
    assert "cannot be reached" in found["error"]
    assert found["first"] == []
    assert found["left"] == []
    assert [name[:13] for name in found["end"]] == ["step-00000002"], "the next one is saved again"


def save_with_rows(where: str) -> dict[str, Any]:
    """What must be there with the checkpoint is written when training goes on, and before the commit."""
    run, release = SmallRun(Setting()), threading.Event()
    seen: list[list[str]] = []

    def write_rows() -> None:
        release.wait()
        seen.append(names(where))
        if len(seen) < 3:
            raise StorageError("the storage server cannot be reached", may_pass=True)

    with writer_for(where, run.group) as writer:
        writer.save(run.engine, run.teacher, state_at(1, 1), before_commit=write_rows)
        run.steps(0, 1)
        release.set()
        writer.wait()
        return {"seen": seen, "end": names(where), "warnings": writer.warnings()}


def test_what_belongs_to_a_checkpoint_is_there_before_it_is_whole(processes: GroupOf, tmp_path: Path) -> None:
    (found,) = processes(1).run(save_with_rows, str(tmp_path))
    assert found["seen"] == [[], [], []], "tried again while storage is away, and nothing committed before"
    assert [name[:13] for name in found["end"]] == ["step-00000001"]
    assert len(found["warnings"]) == 1


@contextmanager
def full_disk(most_bytes: int) -> Iterator[None]:
    """A limit on the size of a file stands in for a disk that is full: the same calls fail."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    usual = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, usual)


def save_on_a_full_disk(where: str, most_bytes: int) -> list[str]:
    """Met by DeepSpeed's files, then by those that are written while training goes on."""
    run = SmallRun(Setting(zero_stage=1))
    said = []
    with writer_for(where, run.group) as writer, full_disk(most_bytes):
        try:
            save(run, writer, 1)
        except StorageError as error:
            said.append(str(error))
    snapshot = Snapshot.take(run.engine, run.teacher, run.group)
    with full_disk(most_bytes):
        try:
            snapshot.finish()
        except StorageError as error:
            said.append(str(error))
    snapshot.remove()
    return said + snapshots()


@pytest.mark.parametrize("most_bytes", [100, 1_000_000])
def test_a_local_disk_that_is_full_is_said_and_left_clean(
    processes: GroupOf, tmp_path: Path, most_bytes: int
) -> None:
    (said,) = processes(1).run(save_on_a_full_disk, str(tmp_path), most_bytes)
    assert len(said) == 2
    for sentence in said:
        assert f"a checkpoint cannot be written to {tempfile.gettempdir()}" in sentence
        assert "TMPDIR" in sentence
    assert names(str(tmp_path)) == []


def save_without_the_lease(where: str) -> tuple[str, str, list[str]]:
    """Another takes the lease between the snapshot and the commit."""
    run, place = SmallRun(Setting()), Location.of(where)
    first_upload = threading.Semaphore()

    def lose(_: Location) -> None:
        if first_upload.acquire(blocking=False):
            (place / "lease.json").delete()
            Lease.take(place, print).release()

    lease = Lease.take(place, print)
    writer = CheckpointWriter(place, run.group, CheckpointConfig(), lease.attempt, lease.token)
    with uploads_do(lose):
        save(run, writer, 1)
        try:
            writer.wait()
        except TrainingError as error:
            first = str(error)
    try:
        CheckpointWriter(place, run.group, CheckpointConfig(), lease.attempt, lease.token)
    except TrainingError as error:
        return first, str(error), names(where)
    return first, "", names(where)


def test_nothing_is_committed_without_the_lease(processes: GroupOf, tmp_path: Path) -> None:
    ((first, second, saved),) = processes(1).run(save_without_the_lease, str(tmp_path))
    assert "was taken over by process" in first
    assert "was taken over by process" in second, "workers that are started anew learn it at once"
    assert saved == []


def save_with_values(where: str, values: tuple[float | None, ...], mode: str) -> list[str]:
    run = SmallRun(Setting())
    settings = {"keep_last": 2, "keep_best": {"metric": "loss", "mode": mode}}
    with writer_for(where, run.group, **settings) as writer:
        for step, value in enumerate(values, start=1):
            save(run, writer, step, value)
    return names(where)


@pytest.mark.parametrize(("mode", "best"), [("min", "step-00000002"), ("max", "step-00000003")])
def test_the_best_checkpoint_is_kept_beside_the_last_ones(
    processes: GroupOf, tmp_path: Path, mode: str, best: str
) -> None:
    values = (3.0, 1.0, 8.0, 2.0, None, 4.0)
    (left,) = processes(1).run(save_with_values, str(tmp_path), values, mode)
    assert [name[:13] for name in left] == [best, "step-00000005", "step-00000006"]
    run = Location.of(tmp_path)
    for checkpoint, step in (("best", int(best[5:])), ("last", 6), (left[1], 5)):
        assert saved_student(run, tmp_path / "out", checkpoint).state.step == step
    with pytest.raises(DataError, match=f"has no checkpoint 'step-1'; it has {best}"):
        saved_student(run, tmp_path / "out", "step-1")
    # A damaged one is the best no longer, but never in silence.
    (tmp_path / "checkpoints" / left[0] / STUDENT).write_bytes(b"")
    with pytest.raises(DataError, match="differs from its sha256"):
        saved_student(run, tmp_path / "out", "best")


def test_without_values_there_is_no_best(processes: GroupOf, tmp_path: Path) -> None:
    (left,) = processes(1).run(save_with_values, str(tmp_path), (None, None, None), "min")
    assert [name[:13] for name in left] == ["step-00000002", "step-00000003"]
    with pytest.raises(DataError, match="has a value to be the best by"):
        saved_student(Location.of(tmp_path), tmp_path / "out", "best")


def test_what_interrupted_uploads_left_is_collected_when_a_run_starts(tmp_path: Path) -> None:
    half, whole = (tmp_path / "checkpoints" / name for name in ("step-00000009-dead", "step-00000008-fine"))
    for folder in (half, whole):
        folder.mkdir(parents=True)
        (folder / STUDENT).write_bytes(b"half")
    (whole / CHECKPOINT).write_bytes(b"{}")
    with writer_for(str(tmp_path), Group()):
        assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [whole.name]


def test_a_checkpoint_is_due_by_steps_by_time_or_both(tmp_path: Path) -> None:
    def due(minutes: float | None, steps: int | None) -> tuple[bool, list[int]]:
        settings = CheckpointConfig(every_minutes=minutes, every_steps=steps)
        with CheckpointWriter(Location.of(tmp_path), Group(), settings, "test", None) as writer:
            time.sleep(0.01)
            return writer.due_by_time, [step for step in range(1, 10) if settings.due_at(step)]

    assert due(None, None) == (False, [])
    assert due(15, None) == (False, [])
    assert due(1e-4, None) == (True, [])
    assert due(1e-4, 4) == (True, [4, 8])
    assert due(None, 4) == (False, [4, 8])


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
