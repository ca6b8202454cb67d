"""How many floating-point operations a step takes, and what share of a device's peak that is (MFU)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ecgdist.models.config import EncoderConfig
from ecgdist.objectives.config import ObjectiveConfig
from ecgdist.objectives.hybrid import PretrainingModule
from ecgdist.objectives.part import Seen, Window
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

    For each view of the student, forward and backward (three times the forward pass), and what goes before: the
    teacher's pass over the whole view, or the student's own without gradient where a method has no teacher or the
    generative part looks ahead. Matrix products, convolutions and attention count, as in Chowdhery et al. 2022 (PaLM,
    appendix B), the comparisons of wav2vec among them; norms, activations, the contrast itself and recomputed
    activations do not.
    """
    with torch.device("meta"), torch.no_grad():
        module = PretrainingModule(encoder, objective, window_samples)
        leads = torch.ones(1, NUM_LEADS, dtype=torch.bool)
        window = Window(torch.zeros(1, NUM_LEADS, window_samples), torch.full((1,), window_samples), leads)
        shown = *window, torch.zeros(1, module.num_tokens), torch.ones(1)
        student, seen = _count(lambda: module.see(window, shown[3]))
        student += _heads(module, seen)
        before = 0
        if module.looks_ahead:
            before, _ = _count(lambda: module(*shown, look_ahead=True))
        teacher = module.teacher()
        if teacher is not None:
            before += _count(lambda: teacher.keys(*window))[0]
        part = module.generative
        if part is not None:
            look = part.look(module.encoder, window, seen.hidden, shown[4])
            census = torch.cat([module.count(*shown).double(), look])
            seeds = torch.zeros(1, dtype=torch.int64)
            student += _count(lambda: part.sums(seen, window, shown[4], seeds, census, 0))[0]
    return objective.student_passes * (student * (1 + _BACKWARD) + before)


def _heads(module: PretrainingModule, seen: Seen) -> int:
    """Of the contrastive part of a student, for one view."""
    flops = 0
    if module.feature_decoder is not None:
        decoder = module.feature_decoder
        flops += _count(lambda: decoder(*seen.encoded))[0]
    if module.projector is not None:
        projector, predictor = module.projector, module.predictor or nn.Identity()
        flops += _count(lambda: predictor(projector(seen.tokens[:, 0])))[0]
    return flops


_Made = TypeVar("_Made")


def _count(call: Callable[[], _Made]) -> tuple[int, _Made]:
    """How many operations a call takes, and what it returns."""
    with FlopCounterMode(display=False) as counter:
        made = call()
    return int(counter.get_total_flops()), made


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
