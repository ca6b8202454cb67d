"""The learning rate as a function of the step, so that resuming needs no scheduler state."""

from __future__ import annotations

import math

from ecgdist.models.config import EncoderConfig
from ecgdist.pretraining.config import OptimizerConfig

_REFERENCE_BATCH = 256


def peak_learning_rate(config: OptimizerConfig, encoder: EncoderConfig, global_batch: int) -> float:
    """The configured peak, or the size's, scaled with the global batch (Goyal et al. 2017, section 2.1)."""
    if config.learning_rate is not None:
        return config.learning_rate
    return encoder.shape.peak_learning_rate * global_batch / _REFERENCE_BATCH


def learning_rate_at(step: int, total_steps: int, peak: float, warmup_share: float) -> float:
    """Learning rate of a step: linear warm-up to `peak`, then a half cosine that ends at zero.

    The first step already learns; the last step of the warm-up has the peak (Loshchilov & Hutter 2017,
    eq. 5).
    """
    warmup = math.ceil(total_steps * warmup_share)
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, total_steps - warmup)
    return peak * (1 + math.cos(math.pi * progress)) / 2
