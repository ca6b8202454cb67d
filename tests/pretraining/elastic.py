"""Stretches of a small run, each with another number of workers, and everything that must survive the change."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from deepspeed.utils import lazy_init_hp_params_optimizer_state, safe_get_full_optimizer_state

from ecgdist.pretraining.checkpoint import CheckpointStore, load_teacher
from ecgdist.pretraining.engine import to_universal
from ecgdist.pretraining.group import Group
from ecgdist.storage import Location
from tests.pretraining.resume import state_at, writer_for
from tests.pretraining.runs import Arrays, Setting, SmallRun

MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Stretch:
    """What became of a run between two checkpoints.

    Attributes:
        losses: of every step.
        loaded: the whole state just after loading; None if the run began here.
        ended: the same at the end, of which the next checkpoint was made.
    """

    losses: list[float]
    loaded: Arrays | None
    ended: Arrays


def stretch(setting: Setting, where: str, start: int, end: int) -> Stretch:
    """Train steps ``start ... end - 1``, from the newest checkpoint unless `start` is 0, and save."""
    group = Group()
    run, loaded = _begin(setting, where, group, start)
    results = run.steps(start, end)
    with writer_for(where, group) as writer:
        writer.save(run.engine, run.teacher, state_at(end, group.world_size))
    return Stretch([result.loss for result in results], loaded, whole_state(run))


def _begin(setting: Setting, where: str, group: Group, start: int) -> tuple[SmallRun, Arrays | None]:
    if start == 0:
        return SmallRun(setting), None
    with tempfile.TemporaryDirectory() as scratch:
        restored, warnings = CheckpointStore(Location.of(where)).restore(Path(scratch), group)
        assert restored is not None
        assert warnings == []
        assert restored.state.step == start
        universal = setting.zero_stage > 0 and restored.state.world_size != group.world_size
        if universal:
            to_universal(restored.engine_folder)
        run = SmallRun(setting, universal=universal)
        run.engine.load(restored.engine_folder)
        load_teacher(run.teacher, restored)
    return run, whole_state(run)


def whole_state(run: SmallRun) -> Arrays:
    """Weights, Adam's moments and counters, buffers and teacher, gathered from all ranks, by name."""
    optimizer, module = run.engine.optimizer, run.engine.module
    if run.setting.zero_stage in (1, 2):
        # DeepSpeed 0.19 links weights to their moments once, and maybe before there are any.
        for weights, partition in zip(
            optimizer.bit16_groups, optimizer.single_partition_of_fp32_groups, strict=True
        ):
            lazy_init_hp_params_optimizer_state(weights, partition, optimizer.optimizer.state)
    state = {f"weight {name}": values for name, values in run.weights().items()}
    for name, weight in module.named_parameters():
        for moment in MOMENTS:
            split = run.setting.zero_stage > 0
            values = (
                safe_get_full_optimizer_state(weight, moment) if split else optimizer.state[weight][moment]
            )
            state[f"{moment} {name}"] = values.detach().cpu().float().numpy().copy()
    counters = {float(each["step"]) for each in optimizer.state.values()}
    state["steps of Adam"] = np.array(sorted(counters), np.float32)
    state |= {f"buffer {name}": b.detach().cpu().numpy().copy() for name, b in module.named_buffers()}
    return state | {f"teacher {name}": values for name, values in run.teacher_weights().items()}
