"""Windows of a batch of segments, and their scale."""

from __future__ import annotations

import torch
from torch import Tensor

MIN_STD_UV = 1.0
"""Scaling divides by no less than one step of the stored int16: a flat record is not blown up into noise."""

_LEADS, _TIME = -2, -1


def cut_windows(signal: Tensor, start: Tensor, num_samples: int) -> Tensor:
    """Cut `num_samples` out of each row, from its `start` (``(batch,)`` int64) on.

    ``(batch, leads, samples)`` -> ``(batch, leads, num_samples)``.
    """
    index = start[:, None] + torch.arange(num_samples, device=signal.device)
    return signal.gather(_TIME, index[:, None].expand(-1, signal.shape[_LEADS], -1))


def standardise(signal_uv: Tensor, inside: Tensor) -> Tensor:
    """Zero mean and unit standard deviation for each record, over all its leads together.

    Sums run along time, then over leads, in float64. One sum over both would be split among threads when a
    batch has a single row, and its rounding would depend on the batch and on the machine.

    Args:
        signal_uv: ``(batch, leads, samples)`` microvolt.
        inside: the same shape, bool; False for what is padding or a missing lead.

    Returns:
        ``(batch, leads, samples)`` float32, zero where not `inside`. Divisor n, not n - 1.
    """
    count = inside.sum((_LEADS, _TIME)).clamp(min=1)[:, None, None]

    def mean(values: Tensor) -> Tensor:
        per_lead = torch.where(inside, values, 0.0).sum(_TIME, keepdim=True)
        return per_lead.sum(_LEADS, keepdim=True) / count

    exact = signal_uv.double()
    centred = exact - mean(exact)
    std = mean(centred.square()).sqrt()
    return torch.where(inside, centred / std.clamp(min=MIN_STD_UV), 0.0).float()
