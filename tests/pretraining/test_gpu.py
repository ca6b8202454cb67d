"""Training on a GPU: the losses of the CPU, in every precision and stage, compiled or not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from ecgdist.pretraining.step import StepResult
from tests.pretraining.processes import Processes
from tests.pretraining.runs import Arrays, Setting, SmallRun, largest_difference

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]

STEPS = 4
GPU = Setting(device="cuda", micro_batch=4, learning_rate=5e-5)


def train(setting: Setting, plain: bool = False) -> tuple[list[StepResult], Arrays, Arrays]:
    run = SmallRun(setting, plain)
    return run.steps(0, STEPS), run.weights(), run.teacher_weights()


@pytest.mark.parametrize("arm", ["HL", "GL", "CMAE", "SimCLR, hybrid", "CMSC", "BYOL, two views, hybrid"])
@pytest.mark.parametrize("zero_stage", [0, 2, 3])
def test_a_gpu_trains_what_the_cpu_trains(
    processes: Callable[[int], Processes], arm: str, zero_stage: int
) -> None:
    setting = replace(GPU, arm=arm, zero_stage=zero_stage)
    (found,) = processes(1).run(train, setting)
    # DeepSpeed trains on the one or on the other for the life of a process.
    expected = train(replace(setting, device="cpu"), plain=True)
    for mine, theirs in zip(found[0], expected[0], strict=True):
        assert mine.loss == pytest.approx(theirs.loss, rel=1e-4)
        assert mine.gradient_norm == pytest.approx(theirs.gradient_norm, rel=1e-3)
    assert largest_difference(found[1], expected[1]) < 1e-4
    assert largest_difference(found[2], expected[2]) < 1e-4


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
@pytest.mark.parametrize("compiled", [False, True])
def test_bf16_on_a_gpu_stays_within_two_per_cent(
    processes: Callable[[int], Processes], zero_stage: int, compiled: bool
) -> None:
    setting = replace(GPU, precision="bf16", zero_stage=zero_stage, compile=compiled)
    (found,) = processes(1).run(train, setting)
    expected = train(replace(GPU, device="cpu"), plain=True)
    for mine, theirs in zip(found[0], expected[0], strict=True):
        assert mine.loss == pytest.approx(theirs.loss, rel=2e-2)


@pytest.mark.parametrize("zero_stage", [0, 3])
def test_compiled_layers_train_alike_on_a_gpu(processes: Callable[[int], Processes], zero_stage: int) -> None:
    (found,) = processes(1).run(train, replace(GPU, compile=True, zero_stage=zero_stage))
    expected = train(replace(GPU, device="cpu"), plain=True)
    for mine, theirs in zip(found[0], expected[0], strict=True):
        assert mine.loss == pytest.approx(theirs.loss, rel=1e-4)
