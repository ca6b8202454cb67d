"""Which ZeRO stage a run gets whose configuration names none.

Stages save memory and cost communication (`python -m tests.benchmarks.zero` measures both). So the rule
is: the lowest stage whose state fits into half of a 16 GiB device, the smallest that is usual; the other half is
for activations. It looks at the model and the number of workers alone, never at the machine, so that a run keeps
its stage wherever it goes on.
"""

from __future__ import annotations

import torch

from ecgdist.models.config import EncoderConfig
from ecgdist.objectives.config import ObjectiveConfig
from ecgdist.objectives.hybrid import PretrainingModule

STATE_BYTES = 8 * 2**30
"""Weights, gradients, optimizer and teacher may take this much of a device."""

_TEACHER = 4
"""Bytes per parameter; every worker holds it whole, in fp32."""


def state_bytes(parameters: int, stage: int, workers: int) -> float:
    """Bytes of training state on one worker.

    Per parameter 4 for the weight, 4 for the gradient and 8 for Adam's two moments; ZeRO divides the moments
    (stage 1), and the gradients (2), and the weights (3) by the number of workers (Rajbhandari et al. 2020, figure
    1). In bf16 the weight and gradient take 2 each and the fp32 copy 4 more: the same sum.
    """
    whole = {0: 16, 1: 8, 2: 4, 3: 0}[stage]
    return parameters * (whole + (16 - whole) / workers + _TEACHER)


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
