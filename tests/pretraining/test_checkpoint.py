"""Checkpoints: training goes on from one as if nothing had happened, and a damaged one is never used."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from ecgdist.errors import ConfigError, DataError, StorageError
from ecgdist.pretraining.checkpoint import (
    CHECKPOINT,
    STUDENT,
    TEACHER,
    CheckpointStore,
    TrainState,
    load_teacher,
)
from ecgdist.pretraining.engine import to_universal
from ecgdist.pretraining.group import Group
from ecgdist.pretraining.step import StepResult
from ecgdist.storage import Location
from tests.conftest import S3Server
from tests.pretraining.processes import Processes
from tests.pretraining.runs import WEIGHT_DECAY, Arrays, Setting, SmallRun, largest_difference

GroupOf = Callable[[int], Processes]
Ended = tuple[list[StepResult], Arrays, Arrays]

SAVED_AT, END = 2, 5


def state_at(step: int, world_size: int, **settings: Any) -> TrainState:
    return TrainState(
        step=step, total_steps=50, world_size=world_size, corpus_id="c0ffee", settings={"seed": 0, **settings}
    )


def run_through(setting: Setting, where: str, save_at: tuple[int, ...], keep_last: int) -> Ended:
    """Train to the end and save on the way."""
    run = SmallRun(setting)
    store = CheckpointStore(Location.of(where))
    results = []
    for step in range(END):
        results += run.steps(step, step + 1)
        if step + 1 in save_at:
            store.save(
                run.engine, run.teacher, state_at(step + 1, run.group.world_size), run.group, keep_last
            )
    return results, run.weights(), run.teacher_weights()


@dataclass(frozen=True)
class Resumed:
    """What became of a run that went on from a checkpoint.

    Attributes:
        name: of the checkpoint.
        student, teacher: right after restoring.
        ended: results of the later steps, and the weights at the end.
        optimizer_steps: distinct counters of Adam at the end.
        decays: weight decay of every parameter group.
    """

    name: str
    warnings: list[str]
    student: Arrays
    teacher: Arrays
    ended: Ended
    optimizer_steps: set[float]
    decays: list[float]


def go_on(setting: Setting, where: str) -> Resumed:
    """Train on from the newest checkpoint."""
    group = Group()
    with tempfile.TemporaryDirectory() as scratch:
        restored, warnings = CheckpointStore(Location.of(where)).restore(Path(scratch), group)
        assert restored is not None
        universal = setting.zero_stage > 0 and restored.state.world_size != group.world_size
        if universal:
            to_universal(restored.engine_folder)
        run = SmallRun(setting, universal=universal)
        run.engine.load(restored.engine_folder)
        load_teacher(run.teacher, restored)
    student, teacher = run.weights(), run.teacher_weights()
    ended = run.steps(restored.state.step, END), run.weights(), run.teacher_weights()
    optimizer = run.engine.optimizer
    steps = {float(state["step"]) for state in optimizer.state.values()}
    decays = [group["weight_decay"] for group in optimizer.param_groups]
    return Resumed(restored.name, warnings, student, teacher, ended, steps, decays)


def set_environment(values: dict[str, str]) -> None:
    os.environ.update(values)


def restore_only(where: str) -> Any:
    """The name of the newest whole checkpoint, and warnings."""
    with tempfile.TemporaryDirectory() as scratch:
        restored, warnings = CheckpointStore(Location.of(where)).restore(Path(scratch), Group())
        return restored and restored.name, warnings


def assert_same(found: Arrays, expected: Arrays) -> None:
    assert largest_difference(found, expected) == 0


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_going_on_with_as_many_workers_is_exact(processes: GroupOf, tmp_path: Path, zero_stage: int) -> None:
    setting = Setting(zero_stage=zero_stage, micro_batch=3)
    unbroken = processes(2).run(run_through, setting, str(tmp_path), (SAVED_AT,), 2)
    (name,) = CheckpointStore(Location.of(tmp_path)).names()
    saved = tmp_path / "checkpoints" / name
    answers = processes(2).run(go_on, setting, str(tmp_path))
    for (results, student, teacher), resumed in zip(unbroken, answers, strict=True):
        assert resumed.warnings == []
        assert_same(resumed.student, load_file(saved / STUDENT))
        assert_same(resumed.teacher, load_file(saved / TEACHER))
        assert resumed.ended[0] == results[SAVED_AT:]
        assert_same(resumed.ended[1], student)
        assert_same(resumed.ended[2], teacher)


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_bf16_goes_on_exactly_too(processes: GroupOf, tmp_path: Path, zero_stage: int) -> None:
    setting = Setting(zero_stage=zero_stage, precision="bf16")
    results, student, teacher = processes(2).run(run_through, setting, str(tmp_path), (SAVED_AT,), 2)[0]
    ended = processes(2).run(go_on, setting, str(tmp_path))[0].ended
    assert ended[0] == results[SAVED_AT:]
    assert_same(ended[1], student)
    assert_same(ended[2], teacher)


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), pytest.param(2, 3, marks=pytest.mark.slow)])
def test_going_on_with_another_number_of_workers(
    processes: GroupOf, tmp_path: Path, zero_stage: int, before: int, after: int
) -> None:
    # A rate at which rounding, which Adam enlarges, stays below the tolerance.
    setting = Setting(zero_stage=zero_stage, learning_rate=3e-5)
    results, student, teacher = processes(before).run(run_through, setting, str(tmp_path), (SAVED_AT,), 2)[0]
    (name,) = CheckpointStore(Location.of(tmp_path)).names()
    saved = tmp_path / "checkpoints" / name
    for resumed in processes(after).run(go_on, setting, str(tmp_path)):
        assert_same(resumed.student, load_file(saved / STUDENT))
        assert_same(resumed.teacher, load_file(saved / TEACHER))
        assert resumed.optimizer_steps == {float(END)}
        assert resumed.decays == [WEIGHT_DECAY, 0.0]
        losses = [result.loss for result in resumed.ended[0]]
        assert losses == pytest.approx([result.loss for result in results[SAVED_AT:]], rel=1e-5)
        assert largest_difference(resumed.ended[1], student) < 1e-5
        assert largest_difference(resumed.ended[2], teacher) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_bf16_goes_on_with_another_number_of_workers(
    processes: GroupOf, tmp_path: Path, zero_stage: int, before: int, after: int
) -> None:
    """Master weights and teacher exactly, losses within what bf16 rounds."""
    setting = Setting(zero_stage=zero_stage, precision="bf16", learning_rate=3e-5)
    results, *_ = processes(before).run(run_through, setting, str(tmp_path), (SAVED_AT,), 2)[0]
    (name,) = CheckpointStore(Location.of(tmp_path)).names()
    saved = tmp_path / "checkpoints" / name
    for resumed in processes(after).run(go_on, setting, str(tmp_path)):
        assert_same(resumed.student, load_file(saved / STUDENT))
        assert_same(resumed.teacher, load_file(saved / TEACHER))
        assert resumed.optimizer_steps == {float(END)}
        assert resumed.decays == [WEIGHT_DECAY, 0.0]
        losses = [result.loss for result in resumed.ended[0]]
        assert losses == pytest.approx([result.loss for result in results[SAVED_AT:]], rel=1e-2)


@pytest.mark.s3
def test_going_on_from_object_storage(processes: GroupOf, s3: S3Server) -> None:
    """Read and written by real processes that find the server by their environment."""
    setting, where = Setting(zero_stage=2), f"s3://ecg/runs/{os.urandom(4).hex()}"
    group = processes(2)
    group.run(set_environment, s3.environment)
    unbroken = group.run(run_through, setting, where, (SAVED_AT, END - 1), 1)[0]
    assert [name[:13] for name in CheckpointStore(Location.of(where)).names()] == [f"step-{END - 1:08d}"]
    ended = group.run(go_on, setting, where)[0].ended
    assert ended[0] == unbroken[0][END - 1 :]
    assert_same(ended[1], unbroken[1])


@pytest.fixture
def two_checkpoints(processes: GroupOf, tmp_path: Path) -> Path:
    """The `checkpoints` folder of a run that saved after steps 2 and 4."""
    processes(2).run(run_through, Setting(zero_stage=2), str(tmp_path), (2, 4), 2)
    return tmp_path / "checkpoints"


def files_of_every_kind(checkpoint: Path) -> list[str]:
    engine = sorted(str(path.relative_to(checkpoint)) for path in (checkpoint / "engine").rglob("*.pt"))
    return [engine[0], engine[-1], "engine/latest", STUDENT, TEACHER]


def flip(path: Path) -> None:
    """Change one bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_changed_file_is_noticed_and_the_checkpoint_before_is_taken(two_checkpoints: Path) -> None:
    older, newer = sorted(two_checkpoints.iterdir())
    for name in files_of_every_kind(newer):
        whole = (newer / name).read_bytes()
        flip(newer / name)
        found, warnings = restore_only(str(two_checkpoints.parent))
        assert found == older.name, name
        assert warnings == [
            f"checkpoint {newer.name}: file {name} differs from its sha256 in {CHECKPOINT}; "
            "the checkpoint before it is taken"
        ]
        (newer / name).write_bytes(whole)
    assert restore_only(str(two_checkpoints.parent)) == (newer.name, [])


def test_a_missing_file_is_noticed_and_the_checkpoint_before_is_taken(two_checkpoints: Path) -> None:
    older, newer = sorted(two_checkpoints.iterdir())
    for name in files_of_every_kind(newer):
        whole = (newer / name).read_bytes()
        (newer / name).unlink()
        found, warnings = restore_only(str(two_checkpoints.parent))
        assert found == older.name, name
        assert [f"{name} is missing" in warning for warning in warnings] == [True]
        (newer / name).write_bytes(whole)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"state": {}, "files": {}}', b"\xff\xfe"])
def test_a_damaged_list_of_files_is_noticed(two_checkpoints: Path, content: bytes) -> None:
    older, newer = sorted(two_checkpoints.iterdir())
    (newer / CHECKPOINT).write_bytes(content)
    found, warnings = restore_only(str(two_checkpoints.parent))
    assert found == older.name
    assert len(warnings) == 1
    assert "damaged" in warnings[0]


def test_the_state_in_the_list_of_files_is_hashed_too(two_checkpoints: Path) -> None:
    """A changed step would resume at the wrong place without any other sign."""
    older, newer = sorted(two_checkpoints.iterdir())
    content = json.loads((newer / CHECKPOINT).read_text())
    content["state"]["step"] = 3
    (newer / CHECKPOINT).write_text(json.dumps(content))
    found, warnings = restore_only(str(two_checkpoints.parent))
    assert found == older.name
    assert "damaged" in warnings[0]


def test_a_folder_without_training_state_is_an_error(processes: GroupOf, tmp_path: Path) -> None:
    (answer,) = processes(1).run(load_from, str(tmp_path))
    assert isinstance(answer, DataError)
    assert "no training state" in str(answer)


def load_from(folder: str) -> None:
    SmallRun(Setting(zero_stage=1)).engine.load(Path(folder))


def test_nothing_whole_is_an_error_and_not_a_fresh_start(two_checkpoints: Path) -> None:
    for checkpoint in two_checkpoints.iterdir():
        flip(checkpoint / TEACHER)
    with pytest.raises(DataError, match="no checkpoint of this run is whole"):
        restore_only(str(two_checkpoints.parent))


def test_all_processes_take_the_checkpoint_that_the_first_one_found(
    processes: GroupOf, two_checkpoints: Path
) -> None:
    older, newer = sorted(two_checkpoints.iterdir())
    flip(newer / STUDENT)
    answers = processes(2).run(go_on, Setting(zero_stage=2), str(two_checkpoints.parent))
    assert [resumed.name for resumed in answers] == [older.name] * 2
    assert all(len(resumed.warnings) == 1 for resumed in answers)


def test_an_interrupted_checkpoint_is_none(two_checkpoints: Path) -> None:
    older, newer = sorted(two_checkpoints.iterdir())
    (newer / CHECKPOINT).unlink()
    assert restore_only(str(two_checkpoints.parent)) == (older.name, [])


def test_a_run_without_checkpoints_begins_anew(tmp_path: Path) -> None:
    assert restore_only(str(tmp_path / "new")) == (None, [])


def test_storage_that_fails_is_no_damaged_checkpoint(
    two_checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a moment without network would throw away the newest checkpoint."""
    real = Location.download

    def refuse(self: Location, local: str) -> None:
        if self.name == STUDENT:
            raise StorageError(f"{self}: the storage server cannot be reached")
        real(self, local)

    monkeypatch.setattr(Location, "download", refuse)
    with pytest.raises(StorageError, match="cannot be reached"):
        restore_only(str(two_checkpoints.parent))


def test_old_and_interrupted_checkpoints_are_removed(processes: GroupOf, tmp_path: Path) -> None:
    interrupted = tmp_path / "checkpoints" / "step-00000001-dead"
    interrupted.mkdir(parents=True)
    (interrupted / STUDENT).write_bytes(b"half")
    processes(1).run(run_through, Setting(), str(tmp_path), (1, 2, 3, 4, 5), 3)
    left = sorted(path.name[:13] for path in (tmp_path / "checkpoints").iterdir())
    assert left == ["step-00000003", "step-00000004", "step-00000005"]


def save_after_going_back(where: str, keep_last: int) -> str:
    """Go on from the checkpoint that is whole, take one step, and save."""
    run = SmallRun(Setting(zero_stage=2))
    with tempfile.TemporaryDirectory() as scratch:
        store = CheckpointStore(Location.of(where))
        restored, _ = store.restore(Path(scratch), run.group)
        assert restored is not None
        state = state_at(restored.state.step + 1, run.group.world_size)
        return store.save(run.engine, run.teacher, state, run.group, keep_last)


@pytest.mark.parametrize("keep_last", [1, 2])
def test_a_new_checkpoint_is_not_removed_in_favour_of_a_damaged_later_one(
    processes: GroupOf, two_checkpoints: Path, keep_last: int
) -> None:
    older, newer = sorted(two_checkpoints.iterdir())
    flip(newer / STUDENT)
    saved = processes(2).run(save_after_going_back, str(two_checkpoints.parent), keep_last)[0]
    assert [path.name for path in sorted(two_checkpoints.iterdir())] == [older.name, saved][-keep_last:]


def test_another_corpus_or_setting_is_refused_with_every_difference() -> None:
    began = state_at(10, 2, engine={"zero_stage": 1}, data={"lanes": 4})
    began.refuse_other_run(state_at(0, 3, engine={"zero_stage": 1}, data={"lanes": 4}))
    asked = state_at(0, 2, engine={"zero_stage": 2}, data={"lanes": 8}).model_copy(
        update={"corpus_id": "other"}
    )
    with pytest.raises(ConfigError) as raised:
        began.refuse_other_run(asked)
    for difference in (
        "corpus_id was 'c0ffee', is now 'other'",
        "data.lanes was 4, is now 8",
        "engine.zero_stage was 1, is now 2",
    ):
        assert difference in str(raised.value)
    assert "seed" not in str(raised.value)


def test_weights_and_teacher_are_published_without_pickle(two_checkpoints: Path) -> None:
    for checkpoint in two_checkpoints.iterdir():
        student, teacher = load_file(checkpoint / STUDENT), load_file(checkpoint / TEACHER)
        assert all(weight.dtype == "float32" for weight in [*student.values(), *teacher.values()])
        assert set(teacher) <= set(student)
        assert json.loads((checkpoint / CHECKPOINT).read_text())["state"]["world_size"] == 2
