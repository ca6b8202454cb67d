"""How many floating-point operations a step takes, and what share of a device's peak that is (MFU)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ecgdist.models.config import EncoderConfig
from ecgdist.objectives.hybrid import ObjectiveConfig, PretrainingModule, check_together
from ecgdist.record import NUM_LEADS

_BACKWARD = 2
"""A backward pass takes twice the operations of its forward pass."""

PEAKS = {
    # Longer names first: the first one that is part of the device's is taken.
    "H200": (989.4e12, 66.9e12),
    "H100 PCIe": (756e12, 51.2e12),
    "H100": (989.4e12, 66.9e12),
    "A100": (312e12, 19.5e12),
    "A10G": (70e12, 35e12),
    "L40S": (362e12, 91.6e12),
    "L4": (121e12, 30.3e12),
    "V100": (125e12, 15.7e12),
}
"""Dense operations per second by the data sheets of NVIDIA: in bf16 (V100: fp16) on tensor cores, and in fp32."""


def flops_per_ecg(encoder: EncoderConfig, objective: ObjectiveConfig, window_samples: int) -> int:
    """Floating-point operations of one ECG of a global batch in one training step; a product and sum are two.

    For each view of the student, forward and backward (three times the forward pass), and the pass that makes the keys:
    the teacher's over the whole view, or the student's where a method has no teacher. Matrix products, convolutions and
    attention count, as in Chowdhery et al. 2022 (PaLM, appendix B); norms, activations, the contrast itself and
    recomputed activations do not.
    """
    with torch.device("meta"), torch.no_grad():
        module = PretrainingModule(encoder, objective, window_samples)
        signal = torch.zeros(1, NUM_LEADS, window_samples)
        whole = signal, torch.full((1,), window_samples), torch.ones(1, NUM_LEADS, dtype=torch.bool)
        valid = module.encoder.token_valid(*whole[1:], module.num_tokens)
        kept, kept_valid, _ = check_together(encoder, objective)(torch.zeros(1, module.num_tokens), valid)
        tokens = torch.zeros(1, kept.shape[1], module.encoder.dim)
        shown = (kept, kept_valid) if module.encoder.drops_tokens else ()
        query = _count(lambda: module.encoder(*whole, *shown))
        if module.feature_decoder is not None:
            feature_decoder = module.feature_decoder
            query += _count(lambda: feature_decoder(tokens, kept, kept_valid, valid))
        if module.projector is not None:
            embedding = tokens[:, 0]
            projector, predictor = module.projector, module.predictor or nn.Identity()
            query += _count(lambda: predictor(projector(embedding)))
        student = query
        if module.decoder is not None:
            reconstruct = module.decoder
            student += _count(lambda: reconstruct(tokens, kept, kept_valid, valid))
        teacher = module.teacher()
        keys = 0
        if teacher is not None:
            keys = _count(lambda: teacher.keys(*whole))
        elif module.projector is not None:
            keys = query
    return objective.student_passes * (student * (1 + _BACKWARD) + keys)


def _count(call: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


def peak_flops(device_name: str, precision: str) -> float | None:
    """Operations per second that a device could do, or None if it is not in `PEAKS`."""
    for name, (low, full) in PEAKS.items():
        if name in device_name:
            return low if precision == "bf16" else full
    return None


@dataclass(frozen=True)
class Meter:
    """Model FLOPs utilisation (MFU) of a run.

    Attributes:
        step_flops: operations of a step, all devices together.
        peak_flops: operations per second that all devices together could do.
    """

    step_flops: float
    peak_flops: float

    def share(self, seconds: float) -> float:
        """The share of the peak that a step in so many seconds reaches."""
        return self.step_flops / (seconds * self.peak_flops)
