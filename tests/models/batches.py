"""Made-up windows for tests: smooth waves with noise, a short record, a record that lacks leads."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ecgdist.models.config import EncoderConfig

PATCH = 25
TOKENS = 12
WINDOW = PATCH * TOKENS
TINY = EncoderConfig(size="tiny", patch_samples=PATCH)


def windows(rows: int, seed: int = 0, window: int = WINDOW) -> Tensor:
    """``(rows, 12, window)``: every lead of every row a wave of its own frequency and phase, plus noise."""
    draw = torch.Generator().manual_seed(seed)
    time = torch.arange(window) / 250
    frequency = 1 + 9 * torch.rand(rows, 12, 1, generator=draw)
    phase = 2 * math.pi * torch.rand(rows, 12, 1, generator=draw)
    noise = 0.2 * torch.randn(rows, 12, window, generator=draw)
    return (2 * math.pi * frequency * time + phase).sin() + noise


def ragged(rows: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Signal, valid_samples and lead_mask of a batch; row 1 is short, row 2 has leads I, II and V1 only."""
    signal = windows(rows, seed)
    valid_samples = torch.full((rows,), WINDOW)
    lead_mask = torch.ones(rows, 12, dtype=torch.bool)
    valid_samples[1] = 7 * PATCH + 10
    lead_mask[2] = False
    lead_mask[2, [0, 1, 6]] = True
    past = torch.arange(WINDOW) >= valid_samples[:, None, None]
    return signal.masked_fill(past | ~lead_mask[:, :, None], 0), valid_samples, lead_mask


ENCODER_CASES = {
    "vit, time": TINY,
    "vit, lead": EncoderConfig(size="tiny", tokens="lead", patch_samples=WINDOW, stem="linear"),
    "vit, lead_time": EncoderConfig(size="tiny", tokens="lead_time", patch_samples=PATCH),
    "xresnet": EncoderConfig(kind="xresnet", size="tiny"),
    "s4d": EncoderConfig(kind="s4d", size="tiny"),
}
"""Every kind of encoder and every layout, for windows of `WINDOW` samples."""

VIT_CASES = {name: config for name, config in ENCODER_CASES.items() if config.kind == "vit"}
