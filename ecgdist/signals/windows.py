"""Windows of a batch of segments, and their scale."""

from __future__ import annotations

import torch
from torch import Tensor

MIN_STD_UV = 1.0
"""Scaling divides by no less than one step of the stored int16: a flat record is not blown up into noise."""

_LEADS, _TIME = -2, -1

_ROWS_AT_ONCE_CPU = 8
"""So many float64 rows stay in a processor's cache."""


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
    scaled = torch.empty(signal_uv.shape, dtype=torch.float32, device=signal_uv.device)
    at_once = _ROWS_AT_ONCE_CPU if signal_uv.device.type == "cpu" else max(1, len(scaled))
    for first in range(0, len(scaled), at_once):
        rows = slice(first, first + at_once)
        scaled[rows] = _standardise_rows(signal_uv[rows], inside[rows])
    return scaled


def _standardise_rows(signal_uv: Tensor, inside: Tensor) -> Tensor:
    """`standardise` of a few rows, in float64."""
    count = inside.sum((_LEADS, _TIME)).clamp(min=1)[:, None, None]

    def mean(values: Tensor) -> Tensor:
        """Of values that are 0 where not `inside`."""
        return values.sum(_TIME, keepdim=True).sum(_LEADS, keepdim=True) / count

    if signal_uv.device.type == "cpu" and bool(inside.all()):
        # As nearly always. A GPU is not asked: it would have to finish what it does first.
        centred = signal_uv.to(torch.float64, copy=True)
        centred.sub_(mean(centred))
    else:
        outside = ~inside
        centred = signal_uv.to(torch.float64, copy=True).masked_fill_(outside, 0)
        centred.sub_(mean(centred)).masked_fill_(outside, 0)
    std = mean(centred.square()).sqrt()
    return centred.div_(std.clamp(min=MIN_STD_UV))
