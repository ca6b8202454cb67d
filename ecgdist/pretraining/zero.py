"""Which ZeRO stage a run gets whose configuration names none.

Stages save memory and cost communication (`python -m tests.benchmarks.zero` measures both). So the rule
is: the lowest stage whose state fits into half of a 16 GiB device, the smallest that is usual; the other half is
for activations. It looks at the model and the number of workers alone, never at the machine, so that a run keeps
its stage wherever it goes on.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ecgdist.models.config import EncoderConfig
from ecgdist.objectives.config import ObjectiveConfig
from ecgdist.objectives.hybrid import PretrainingModule

STATE_BYTES = 8 * 2**30
"""Weights, gradients, optimizer and teacher may take this much of a device."""

BUCKET = 500_000_000
"""Gradients that DeepSpeed collects before it divides them: its default ``reduce_bucket_size``."""
WHOLE_UNDER_3 = 100_000
"""A weight of at most so many numbers stays whole under stage 3: the default ``stage3_param_persistence_threshold``."""

_FULL, _HALF, _MOMENTS = 4, 2, 8
"""Bytes per parameter: in fp32, in bf16, and of Adam's two moments."""


@dataclass(frozen=True)
class StateBytes:
    """Bytes of training state on one worker.

    Attributes:
        weights, gradients: in the precision of training.
        optimizer: Adam's moments, and in bf16 the fp32 copy of the weights.
        teacher: in fp32; every worker holds it whole.
        engine: what DeepSpeed 0.19.8 has beside what ZeRO asks for in a backward pass: under stages 1 to 3 the bucket,
            which it makes in its full size whatever the model's, and the fp32 copy that it keeps of fp32 weights, too;
            under stage 1 the worker's own part of the gradients once more.
    """

    weights: float
    gradients: float
    optimizer: float
    teacher: float
    engine: float

    @property
    def by_zero(self) -> float:
        """What ZeRO asks for, with the teacher."""
        return self.weights + self.gradients + self.optimizer + self.teacher


def divided_state(
    parameters: int, stage: int, workers: int, is_bf16: bool = False, teacher_parameters: int | None = None
) -> StateBytes:
    """Training state on one worker.

    Per parameter, fp32 takes 4 bytes for the weight, 4 for the gradient and 8 for Adam's two moments; bf16 2 and 2, and
    4 more for an fp32 copy of the weight. ZeRO divides the optimizer (stage 1), and the gradients (2), and the weights
    (3) by the number of workers (Rajbhandari et al. 2020, section 5 and figure 1).

    Args:
        parameters: of the student.
        stage: of ZeRO.
        workers: among which it divides.
        is_bf16: whether training is in bf16.
        teacher_parameters: of the teacher; None: as many as the student's.
    """
    size = _HALF if is_bf16 else _FULL
    each = parameters / workers
    engine = 0.0
    if stage > 0:
        engine = size * BUCKET + (0 if is_bf16 else _FULL * each) + (size * each if stage == 1 else 0)
    return StateBytes(
        weights=size * (each if stage > 2 else parameters),
        gradients=size * (each if stage > 1 else parameters),
        optimizer=(_MOMENTS + (_FULL if is_bf16 else 0)) * (each if stage > 0 else parameters),
        teacher=_FULL * (parameters if teacher_parameters is None else teacher_parameters),
        engine=engine,
    )


def state_bytes(parameters: int, stage: int, workers: int) -> float:
    """Bytes of training state on one worker, as the rule looks at it: in fp32, by what ZeRO asks for.

    In bf16 it is less under stages 1 and 2, and the same under the others.
    """
    return divided_state(parameters, stage, workers).by_zero


def default_stage(parameters: int, workers: int, is_bf16: bool) -> int:
    """The lowest stage whose state fits into `STATE_BYTES`, else 3.

    In bf16 that is at least 1: without ZeRO, DeepSpeed's optimizer for it looks at every weight's gradient by itself,
    and waits for the GPU each time (`python -m tests.benchmarks.gpu`).

    Args:
        workers: the fewest that the run may have.
    """
    stages = range(1 if is_bf16 else 0, 4)
    fitting = (stage for stage in stages if state_bytes(parameters, stage, workers) <= STATE_BYTES)
    return next(fitting, 3)


def count_parameters(encoder: EncoderConfig, objective: ObjectiveConfig, window_samples: int) -> int:
    """Parameters of a student, without making it."""
    with torch.device("meta"):
        module = PretrainingModule(encoder, objective, window_samples)
    return sum(weight.numel() for weight in module.parameters())


def count_followed(encoder: EncoderConfig, objective: ObjectiveConfig, window_samples: int) -> int:
    """Parameters of a student's momentum teacher, without making it; 0 without one."""
    with torch.device("meta"):
        module = PretrainingModule(encoder, objective, window_samples)
        teacher = module.teacher()
    return 0 if teacher is None else sum(weight.numel() for weight in teacher.parameters())


def count_whole_under_3(encoder: EncoderConfig, objective: ObjectiveConfig, window_samples: int) -> int:
    """Parameters of a student that stay whole on every worker under stage 3."""
    with torch.device("meta"):
        module = PretrainingModule(encoder, objective, window_samples)
    return sum(weight.numel() for weight in module.parameters() if weight.numel() <= WHOLE_UNDER_3)
