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
    if signal.device.type == "cpu" and bool((start < 0).any()):
        raise IndexError(f"windows start out of bounds, at {start.tolist()}")
    row = torch.arange(len(signal), device=signal.device)
    return signal.unfold(_TIME, num_samples, 1)[row, :, start]


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
    if signal_uv.device.type == "cpu":
        return _standardise_each(signal_uv, valid_samples, lead_mask)
    inside = within(signal_uv, valid_samples, lead_mask)
    count = inside.sum((_LEADS, _TIME)).clamp(min=1)[:, None, None]

    def mean(values: Tensor) -> Tensor:
        """Of values that are 0 where not `inside`."""
        return values.sum(_TIME, keepdim=True).sum(_LEADS, keepdim=True) / count

    centred = signal_uv.double() * inside
    centred.sub_(mean(centred)).mul_(inside)
    return centred.div_(mean(centred.square()).sqrt().clamp(min=MIN_STD_UV)).float()


def within(signal: Tensor, valid_samples: Tensor, lead_mask: Tensor) -> Tensor:
    """``(batch, leads, samples)`` bool, False in padding and missing leads; for the arguments see `standardise`."""
    time = torch.arange(signal.shape[_TIME], device=signal.device)
    return (time < valid_samples[:, None])[:, None] & lead_mask[:, :, None]


def _standardise_each(signal_uv: Tensor, valid_samples: Tensor, lead_mask: Tensor) -> Tensor:
    """`standardise` row by row, on what is inside alone: what is made of one row stays in a processor's cache."""
    scaled = torch.empty(signal_uv.shape, dtype=torch.float32)
    all_present = lead_mask.all(dim=1).tolist()
    for row, valid in enumerate(valid_samples.tolist()):
        is_whole = all_present[row] and valid == signal_uv.shape[_TIME]
        leads = slice(None) if all_present[row] else lead_mask[row].nonzero()[:, 0]
        inside = signal_uv[row, leads, :valid].to(torch.float64, copy=True)
        count = max(inside.numel(), 1)
        inside.sub_(inside.sum(_TIME).sum() / count)
        std = ((inside * inside).sum(_TIME).sum() / count).sqrt_()
        inside.mul_(1 / std.clamp_(min=MIN_STD_UV))
        if is_whole:
            scaled[row] = inside
        else:
            scaled[row] = 0
            scaled[row, leads, :valid] = inside.float()
    return scaled
