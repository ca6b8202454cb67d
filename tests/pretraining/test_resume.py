"""Training goes on from a checkpoint as if nothing had happened, with any number of workers."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from ecgdist.pretraining.checkpoint import STUDENT, TEACHER, CheckpointStore
from ecgdist.storage import Location
from tests.conftest import S3Server
from tests.pretraining.processes import Processes
from tests.pretraining.resume import END, SAVED_AT, go_on, run_through
from tests.pretraining.runs import STAGES, WEIGHT_DECAY, Arrays, Setting, largest_difference, slow

GroupOf = Callable[[int], Processes]


def set_environment(values: dict[str, str]) -> None:
    os.environ.update(values)


def assert_same(found: Arrays, expected: Arrays) -> None:
    assert largest_difference(found, expected) == 0


@pytest.mark.parametrize("zero_stage", [*slow(0, 1, 2), 3])
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


@pytest.mark.parametrize("zero_stage", [*slow(0, 1, 2), 3])
def test_bf16_goes_on_exactly_too(processes: GroupOf, tmp_path: Path, zero_stage: int) -> None:
    setting = Setting(zero_stage=zero_stage, precision="bf16")
    results, student, teacher = processes(2).run(run_through, setting, str(tmp_path), (SAVED_AT,), 2)[0]
    ended = processes(2).run(go_on, setting, str(tmp_path))[0].ended
    assert ended[0] == results[SAVED_AT:]
    assert_same(ended[1], student)
    assert_same(ended[2], teacher)


@pytest.mark.parametrize("zero_stage", STAGES)
@pytest.mark.parametrize(("before", "after"), [(2, 1), *slow((1, 2), (2, 3))])
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


@pytest.mark.long
@pytest.mark.parametrize("zero_stage", STAGES)
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


@pytest.mark.slow
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
