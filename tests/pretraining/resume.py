"""Small runs that save checkpoints and go on from them."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecgdist.pretraining.checkpoint import CheckpointStore, TrainState, load_teacher
from ecgdist.pretraining.config import CheckpointConfig
from ecgdist.pretraining.engine import to_universal
from ecgdist.pretraining.group import Group
from ecgdist.pretraining.step import StepResult
from ecgdist.pretraining.writer import CheckpointWriter
from ecgdist.storage import Location
from tests.pretraining.runs import Arrays, Setting, SmallRun

Ended = tuple[list[StepResult], Arrays, Arrays]

SAVED_AT, END = 2, 5


def state_at(step: int, world_size: int, **settings: Any) -> TrainState:
    return TrainState(
        step=step, total_steps=50, world_size=world_size, corpus_id="c0ffee", settings={"seed": 0, **settings}
    )


def run_through(setting: Setting, where: str, save_at: tuple[int, ...], keep_last: int) -> Ended:
    """Train to the end and save on the way."""
    run = SmallRun(setting)
    results = []
    with writer_for(where, run.group, keep_last=keep_last) as writer:
        for step in range(END):
            results += run.steps(step, step + 1)
            if step + 1 in save_at:
                writer.save(run.engine, run.teacher, state_at(step + 1, run.group.world_size))
    return results, run.weights(), run.teacher_weights()


def writer_for(where: str, group: Group, **settings: Any) -> CheckpointWriter:
    """A writer without a lease."""
    return CheckpointWriter(Location.of(where), group, CheckpointConfig(**settings), "test", None)


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
