"""DeepSpeed trains the same student at every ZeRO stage, and hands out whole fp32 weights."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr

import deepspeed
import numpy as np
import pytest
import torch

from ecgdist.objectives.hybrid import PretrainingModule
from ecgdist.pretraining.engine import parameter_groups
from ecgdist.pretraining.step import StepResult
from tests.pretraining.processes import Processes
from tests.pretraining.runs import (
    ARMS,
    ENCODER,
    PREPROCESSING,
    STAGES,
    WEIGHT_DECAY,
    Arrays,
    Setting,
    SmallRun,
    largest_difference,
    slow,
)

GroupOf = Callable[[int], Processes]

STEPS = 3


def train(setting: Setting) -> tuple[list[StepResult], Arrays, Arrays]:
    run = SmallRun(setting)
    return run.steps(0, STEPS), run.weights(), run.teacher_weights()


def first_update(setting: Setting) -> tuple[float, Arrays]:
    """The reported gradient norm, and how far one step moves every weight."""
    run = SmallRun(setting)
    before = run.weights()
    (result,) = run.steps(0, 1)
    after = run.weights()
    return result.gradient_norm, {name: after[name] - before[name] for name in after}


@pytest.mark.parametrize("zero_stage", [*slow(1, 2), 3])
def test_every_stage_trains_the_same_student(processes: GroupOf, zero_stage: int) -> None:
    group = processes(2)
    expected, student, teacher = group.run(train, Setting(micro_batch=3, learning_rate=1e-4))[0]
    for answer in group.run(train, Setting(micro_batch=3, learning_rate=1e-4, zero_stage=zero_stage)):
        for mine, theirs in zip(answer[0], expected, strict=True):
            assert mine.loss == pytest.approx(theirs.loss, rel=1e-6)
            assert mine.gradient_norm == pytest.approx(theirs.gradient_norm, rel=1e-6)
        assert largest_difference(answer[1], student) < 1e-5
        assert largest_difference(answer[2], teacher) < 1e-6


def said(setting: Setting) -> tuple[str, str]:
    """What two steps write to standard error, and what two more do without our filters."""
    run = SmallRun(setting)
    with redirect_stderr(io.StringIO()) as usual:
        run.steps(0, 2)
    with redirect_stderr(io.StringIO()) as unfiltered, warnings.catch_warnings():
        warnings.simplefilter("default")
        run.steps(2, 4)
    return usual.getvalue(), unfiltered.getvalue()


@pytest.mark.parametrize(("zero_stage", "old_name"), [*slow((2, "all_gather_into")), (3, "reduce_scatter")])
def test_steps_fill_no_log_with_warnings(processes: GroupOf, zero_stage: int, old_name: str) -> None:
    """Of names that DeepSpeed still calls by; once it does not, there is nothing to filter any more."""
    for usual, unfiltered in processes(2).run(said, Setting(zero_stage=zero_stage)):
        assert "Warning" not in usual
        assert f"FutureWarning: `torch.distributed.{old_name}_tensor` is deprecated" in unfiltered


@pytest.mark.parametrize("zero_stage", STAGES)
def test_bf16_keeps_fp32_master_weights(processes: GroupOf, zero_stage: int) -> None:
    fp32 = processes(2).run(train, Setting(learning_rate=1e-4))[0]
    for results, student, teacher in processes(2).run(
        train, Setting(zero_stage=zero_stage, precision="bf16", learning_rate=1e-4)
    ):
        assert [r.loss for r in results] == pytest.approx([r.loss for r in fp32[0]], rel=0.03)
        assert all(np.isfinite(r.gradient_norm) for r in results)
        # A master weight lies between the numbers that bf16 can hold; a copy of a bf16 weight never does.
        matrices = [w for name, w in student.items() if w.ndim > 1]
        values = torch.cat([torch.from_numpy(w).flatten() for w in matrices])
        assert values.dtype == torch.float32
        assert (values != values.bfloat16().float()).float().mean() > 0.9
        assert largest_difference(student, fp32[1]) < 1e-3
        assert all(w.dtype == np.float32 for w in teacher.values())


def update_teacher_once(setting: Setting, momentum: float) -> float:
    """Largest difference between an updated teacher and ``m t + (1 - m) s`` in float64."""
    run = SmallRun(setting)
    run.steps(0, 1)
    before = run.teacher_weights()
    named = dict(run.engine.module.named_parameters())
    with deepspeed.zero.GatheredParameters(list(named.values()), enabled=setting.zero_stage == 3):
        student = {name: named[name].detach().double().numpy().copy() for name in before}
    run.engine.update_teacher(run.teacher, momentum)
    after = run.teacher_weights()
    wanted = {n: momentum * before[n].astype(np.float64) + (1 - momentum) * student[n] for n in before}
    assert largest_difference(before, after) > 0
    return largest_difference(after, wanted)


@pytest.mark.parametrize("precision", ["fp32", *slow("bf16")])
@pytest.mark.parametrize("zero_stage", STAGES)
def test_the_teacher_follows_the_weights_that_the_student_computes_with(
    processes: GroupOf, zero_stage: int, precision: str
) -> None:
    setting = Setting(zero_stage=zero_stage, precision=precision)
    assert max(processes(2).run(update_teacher_once, setting, 0.9)) < 2e-7


@pytest.mark.parametrize("zero_stage", STAGES)
def test_clipping_scales_the_gradient_that_the_optimizer_sees(processes: GroupOf, zero_stage: int) -> None:
    """Adam's first step is ``lr * g / (|g| + 1e-8)``: a gradient clipped to such a size shows."""
    clip_norm, rate = 1e-6, 1e-3
    plain = SmallRun(Setting(), plain=True)
    (result,) = plain.steps(0, 1)
    setting = Setting(zero_stage=zero_stage, clip_norm=clip_norm, learning_rate=rate)
    norm, moved = processes(2).run(first_update, setting)[0]
    assert norm == pytest.approx(result.gradient_norm, rel=1e-5), "reported before clipping"
    clipped = {
        n: g * clip_norm / norm for n, g in plain.engine.gradients.items() if g.ndim == 1
    }  # not decayed
    expected = {name: -rate * g / (np.abs(g) + 1e-8) for name, g in clipped.items()}
    assert largest_difference({name: moved[name] for name in expected}, expected) < 1e-3 * rate


@pytest.mark.parametrize("zero_stage", STAGES)
def test_update_uses_the_learning_rate_that_it_is_given(processes: GroupOf, zero_stage: int) -> None:
    """Adam's first step, and the decay with it, is proportional to the learning rate."""
    moved = {}
    for rate in (0.0, 1e-4, 2e-4):
        setting = Setting(zero_stage=zero_stage, learning_rate=rate)
        _, moved[rate] = processes(2).run(first_update, setting)[0]
    assert all(not change.any() for change in moved[0.0].values())
    doubled = {name: 2 * change for name, change in moved[1e-4].items()}
    assert largest_difference(moved[2e-4], doubled) < 1e-6
    # The step, plus what decays of the weight.
    largest = max(float(np.abs(change).max()) for change in moved[1e-4].values())
    assert 0.99e-4 < largest < 1.5e-4


def count_steps(setting: Setting) -> set[float]:
    """What Adam's counters say after some steps."""
    run = SmallRun(setting)
    run.steps(0, STEPS)
    return {float(state["step"]) for state in run.engine.optimizer.state.values()}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("zero_stage", STAGES)
def test_adam_counts_the_steps_that_were_taken(processes: GroupOf, zero_stage: int, precision: str) -> None:
    """Its bias correction depends on them."""
    setting = Setting(zero_stage=zero_stage, precision=precision)
    assert processes(2).run(count_steps, setting) == [{float(STEPS)}] * 2


def test_matrices_decay_and_nothing_else() -> None:
    module = PretrainingModule(ENCODER, ARMS["HL"], PREPROCESSING.window_samples)
    decayed, plain = parameter_groups(module, WEIGHT_DECAY)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (WEIGHT_DECAY, 0.0)
    names = {id(weight): name for name, weight in module.named_parameters()}
    found = (
        {names[id(weight)] for weight in decayed["params"]},
        {names[id(weight)] for weight in plain["params"]},
    )
    assert not found[0] & found[1]
    assert found[0] | found[1] == set(names.values())
    assert all(name.endswith("weight") and "norm" not in name for name in found[0])
    assert "generative.decoder.mask_token" in found[1]


@pytest.mark.parametrize("zero_stage", STAGES)
def test_training_on_cpu_compiles_nothing(processes: GroupOf, zero_stage: int) -> None:
    group = processes(2)
    group.run(train, Setting(zero_stage=zero_stage))
    assert list(group.extensions.iterdir()) == []
