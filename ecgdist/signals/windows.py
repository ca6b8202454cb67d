"""Windows of a batch of segments, and their scale."""

from __future__ import annotations

import torch
from torch import Tensor

MIN_STD_UV = 1.0
"""Scaling divides by no less than one step of the stored int16: a flat record is not blown up into noise."""

_LEADS, _TIME = -2, -1

_ROWS_AT_ONCE_CPU = 4
"""So many float64 rows stay in a processor's cache."""


def cut_windows(signal: Tensor, start: Tensor, num_samples: int) -> Tensor:
    """Cut `num_samples` out of each row, from its `start` (``(batch,)`` int64) on.

    ``(batch, leads, samples)`` -> ``(batch, leads, num_samples)``.

    Raises:
        IndexError: if a window reaches outside; on a GPU, torch's own error, later.
    """
    row = torch.arange(len(signal), device=signal.device)
    # Negative indices would count from the end.
    inside = start.masked_fill(start < 0, signal.shape[_TIME])
    return signal.unfold(_TIME, num_samples, 1)[row, :, inside]


def standardise(signal_uv: Tensor, valid_samples: Tensor, lead_mask: Tensor) -> Tensor:
    """Zero mean and unit standard deviation for each record, over all its leads together.

    Sums run along time, then over leads, in float64. One sum over both would be split among threads when a
    batch has a single row, and its rounding would depend on the batch and on the machine.

    Args:
        signal_uv: ``(batch, leads, samples)`` microvolt.
        valid_samples: ``(batch,)`` integers; samples from here on are padding.
        lead_mask: ``(batch, leads)`` bool, True where a lead is present.

    Returns:
        ``(batch, leads, samples)`` float32, zero in padding and missing leads. Divisor n, not n - 1.
    """
    valid_samples = valid_samples.to(torch.int64)
    if signal_uv.device.type == "cpu":
        return _standardise_each(signal_uv, valid_samples, lead_mask)
    return _standardise_all(signal_uv, valid_samples, lead_mask)


def _standardise_all(signal_uv: Tensor, valid_samples: Tensor, lead_mask: Tensor) -> Tensor:
    """`standardise` by masks, for a device that must not be asked what is inside."""
    inside = within(signal_uv, valid_samples, lead_mask)
    count, outside = inside.sum((_LEADS, _TIME)).clamp(min=1)[:, None, None], ~inside
    centred = signal_uv.to(torch.float64, copy=True).masked_fill_(outside, 0)
    centred.sub_(_mean(centred, count)).masked_fill_(outside, 0)
    return centred.div_(_mean(centred.square(), count).sqrt().clamp(min=MIN_STD_UV)).float()


def within(signal: Tensor, valid_samples: Tensor, lead_mask: Tensor) -> Tensor:
    """``(batch, leads, samples)`` bool, False in padding and missing leads; for the arguments see `standardise`."""
    time = torch.arange(signal.shape[_TIME], device=signal.device)
    return (time < valid_samples[:, None])[:, None] & lead_mask[:, :, None]


def _standardise_each(signal_uv: Tensor, valid_samples: Tensor, lead_mask: Tensor) -> Tensor:
    """`standardise` on what is inside alone, on so few rows at once that they stay in a processor's cache."""
    scaled = torch.empty(signal_uv.shape, dtype=torch.float32)
    is_whole = (lead_mask.all(dim=1) & (valid_samples >= signal_uv.shape[_TIME])).tolist()
    for first in range(0, len(scaled), _ROWS_AT_ONCE_CPU):
        some = slice(first, first + _ROWS_AT_ONCE_CPU)
        if all(is_whole[some]):
            scaled[some] = _standardise_whole(signal_uv[some])
            continue
        for row in range(*some.indices(len(scaled))):
            leads, valid = lead_mask[row].nonzero()[:, 0], int(valid_samples[row])
            scaled[row] = 0
            scaled[row, leads, :valid] = _standardise_whole(signal_uv[row : row + 1, leads, :valid])[
                0
            ].float()
    return scaled


def _standardise_whole(signal_uv: Tensor) -> Tensor:
    """Rows without padding or missing leads, in float64."""
    count = max(signal_uv[0].numel(), 1)
    centred = signal_uv.to(torch.float64, copy=True)
    centred.sub_(_mean(centred, count))
    std = _mean(centred * centred, count).sqrt_().clamp_(min=MIN_STD_UV)
    return centred.mul_(std.reciprocal_())


def _mean(values: Tensor, count: Tensor | int) -> Tensor:
    """``(rows, 1, 1)``: of `count` values in each row; any others are 0."""
    return values.sum(_TIME, keepdim=True).sum(_LEADS, keepdim=True) / count
