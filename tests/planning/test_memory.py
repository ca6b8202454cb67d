"""Memory: closed forms by hand, and activations against what autograd really saves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from ecgdist.config import build
from ecgdist.models.config import EncoderConfig
from ecgdist.objectives.config import ObjectiveConfig
from ecgdist.objectives.hybrid import PretrainingModule
from ecgdist.planning.activations import activation_bytes, saved_bytes, view_bytes
from ecgdist.planning.layout import RunLayout
from ecgdist.planning.memory import checkpoint_bytes, state_table, worker_memory
from ecgdist.pretraining.config import PretrainConfig
from ecgdist.pretraining.zero import BUCKET, StateBytes, count_followed, divided_state, state_bytes
from tests.pretraining.runs import ARMS, METHODS

TINY = EncoderConfig(size="tiny")


def parts(*arguments: Any, **named: Any) -> tuple[float, ...]:
    found = divided_state(*arguments, **named)
    return found.weights, found.gradients, found.optimizer, found.teacher


@pytest.mark.parametrize(
    ("stage", "fp32", "bf16"),
    [
        (0, (4, 4, 8, 4), (2, 2, 12, 4)),
        (1, (4, 4, 2, 4), (2, 2, 3, 4)),
        (2, (4, 1, 2, 4), (2, 0.5, 3, 4)),
        (3, (1, 1, 2, 4), (0.5, 0.5, 3, 4)),
    ],
)
def test_zero_divides_state_by_its_stage(
    stage: int, fp32: tuple[float, ...], bf16: tuple[float, ...]
) -> None:
    """Rajbhandari et al. 2020, figure 1, for four workers: 2 + 2 + 12 bytes in bf16."""
    assert parts(1, stage, 4) == fp32
    assert parts(1, stage, 4, is_bf16=True) == bf16
    assert parts(10**6, stage, 4, teacher_parameters=0)[3] == 0


def test_the_papers_example_comes_out() -> None:
    """7.5 thousand million parameters on 64 GPUs: 120, 31.4, 16.6 and 1.9 GB (figure 1)."""
    gb = [sum(parts(7.5e9, stage, 64, is_bf16=True, teacher_parameters=0)) / 1e9 for stage in range(4)]
    assert gb == pytest.approx([120, 31.4, 16.6, 1.9], abs=0.05)


def test_the_rule_looks_at_the_same_numbers() -> None:
    for stage in range(4):
        assert state_bytes(1000, stage, 8) == divided_state(1000, stage, 8).by_zero
        assert divided_state(1000, stage, 8, is_bf16=True).by_zero <= state_bytes(1000, stage, 8)


def test_what_deepspeed_has_beside_is_its_bucket_and_copies() -> None:
    def engine(stage: int, is_bf16: bool) -> float:
        found: StateBytes = divided_state(10**9, stage, 10, is_bf16)
        return found.engine

    assert [engine(stage, False) for stage in range(4)] == [
        0,
        4 * BUCKET + 4 * 10**8 + 4 * 10**8,
        4 * BUCKET + 4 * 10**8,
        4 * BUCKET + 4 * 10**8,
    ]
    assert [engine(stage, True) for stage in range(4)] == [0, 2 * BUCKET + 2 * 10**8, 2 * BUCKET, 2 * BUCKET]


def test_what_autograd_saves_is_counted_once() -> None:
    """Of a perceptron: its input, which is there anyway, what GELU is given, and what GELU gives."""
    net = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2))
    signal = torch.zeros(3, 4)
    held = [*net.parameters(), signal]
    assert saved_bytes(lambda: net(signal), held) == 2 * 3 * 8 * 4
    assert saved_bytes(lambda: (net(signal), signal * 1), held) == 2 * 3 * 8 * 4
    with torch.no_grad():
        assert saved_bytes(lambda: net(signal), held) == 0


@pytest.mark.parametrize("arm", [*ARMS, "SimCLR", "CMSC", "wav2vec", "WCR"])
def test_activations_are_what_autograd_saves_of_real_tensors(arm: str) -> None:
    from ecgdist.objectives.part import Window
    from ecgdist.planning.activations import _losses

    objective = (ARMS | METHODS)[arm]
    window_samples = 1125 if objective.contrastive.kind.adjacent else 2250
    module = PretrainingModule(TINY, objective, window_samples)
    window = Window(
        torch.randn(4, 12, window_samples),
        torch.full((4,), window_samples),
        torch.ones(4, 12, dtype=torch.bool),
    )
    noise = torch.rand(4, module.num_tokens)
    held = [*module.parameters(), *module.buffers(), *window, noise]
    real = saved_bytes(lambda: _losses(module, objective, window, noise, 8), held)
    assert activation_bytes(TINY, objective, window_samples, 4, 8) == pytest.approx(real, rel=1e-3)


def test_recomputing_saves_most_of_them() -> None:
    again = EncoderConfig(size="tiny", activation_checkpointing=True)
    full, tokens, width, depth = ARMS["CL"], 30, 128, 4
    kept = activation_bytes(again, full, 2250, 4, 8)
    assert depth * 4 * tokens * width * 4 < kept, "the input of every block is kept"
    assert kept < 0.6 * activation_bytes(TINY, full, 2250, 4, 8)


def layout(**changed: Any) -> RunLayout:
    values = {
        "corpus": "none",
        "out": "run",
        "steps": 10,
        "data": {"lanes": 8, "global_batch": 64},
        "encoder": {"size": "tiny"},
        **changed,
    }
    return RunLayout.of_rows(build(PretrainConfig, values), 1000)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_activations_of_a_micro_batch_grow_by_its_rows(precision: Any, dtype: torch.dtype) -> None:
    run = layout(engine={"micro_batch": 12, "precision": precision})
    found = worker_memory(run, 2).activations
    counted = activation_bytes(TINY, ObjectiveConfig(), 2250, 11, 64, dtype)
    assert found == pytest.approx(counted, rel=1e-4), "32 rows in three parts"


def test_the_views_of_all_rows_of_a_step_are_there() -> None:
    run = layout()
    assert worker_memory(run, 2).views == 32 * 2 * 12 * 2250 * 4
    assert view_bytes(ARMS["GL"], 2250, 32) == 32 * 12 * 2250 * 4


def test_the_table_has_both_precisions_and_all_stages() -> None:
    run = layout()
    table = state_table(run, [1, 2])
    assert len({(one.precision, one.zero_stage, one.workers) for one in table}) == len(table) == 16
    for one in table:
        memory = one.memory
        assert memory.total == pytest.approx(memory.state + memory.activations + memory.views)
        assert one.memory == worker_memory(run, one.workers, one.precision, one.zero_stage)


@pytest.mark.parametrize(
    ("stage", "precision", "each"),
    [
        (0, "fp32", 16),
        (1, "fp32", 20),
        (2, "fp32", 20),
        (3, "fp32", 16),
        (0, "bf16", 18),
        (1, "bf16", 18),
        (3, "bf16", 16),
    ],
)
def test_a_checkpoint_takes_so_many_bytes_a_parameter(stage: int, precision: str, each: int) -> None:
    """And the teacher four more; `tests/pretraining/test_planned_state.py` looks at real ones."""
    run = layout(engine={"zero_stage": stage, "precision": precision})
    assert checkpoint_bytes(run) == each * run.parameters + 4 * run.teacher_parameters


def test_the_teacher_is_encoder_and_projector_or_nothing() -> None:
    module = PretrainingModule(TINY, ObjectiveConfig(), 2250)
    followed = sum(weight.numel() for _, weight in module.student_parameters())
    assert count_followed(TINY, ObjectiveConfig(), 2250) == followed
    assert count_followed(TINY, ARMS["GL"], 2250) == 0
