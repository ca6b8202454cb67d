"""Windows of a batch of segments, and their scale."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import torch
from torch import Tensor

MIN_STD_UV = 1.0
"""Scaling divides by no less than one step of the stored int16: a flat record is not blown up into noise."""

_LEADS, _TIME = -2, -1

_ROWS_AT_ONCE_CPU = 4
"""So many rows stay in a processor's cache."""


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


def standardise(
    signal_uv: Tensor, valid_samples: Tensor, lead_mask: Tensor, out: Tensor | None = None
) -> Tensor:
    """Zero mean and unit standard deviation for each record, over all its leads together.

    Sums run along time, then over leads. One sum over both would be split among threads when a batch has a single
    row, and its rounding would depend on the batch and on the machine.

    Args:
        signal_uv: ``(batch, leads, samples)`` microvolt, without gradient.
        valid_samples: ``(batch,)`` integers; samples from here on are padding.
        lead_mask: ``(batch, leads)`` bool, True where a lead is present.
        out: where to write, contiguous float32; `signal_uv` itself, if it is not needed any more.

    Returns:
        ``(batch, leads, samples)`` float32, zero in padding and missing leads. Divisor n, not n - 1.
    """
    valid_samples = valid_samples.to(torch.int64)
    if signal_uv.dtype != torch.float64:
        signal_uv = signal_uv.float()
    if out is None:
        out = torch.empty(signal_uv.shape, dtype=torch.float32, device=signal_uv.device)
    write = _standardise_some if signal_uv.device.type == "cpu" else _standardise_all
    write(signal_uv, valid_samples, lead_mask, out)
    return out


def _standardise_all(signal_uv: Tensor, valid_samples: Tensor, lead_mask: Tensor, scaled: Tensor) -> None:
    """`standardise` by masks, for a device that must not be asked what is inside."""
    inside, missing = within(signal_uv, valid_samples, lead_mask), ~lead_mask[:, :, None]
    count, outside = inside.sum((_LEADS, _TIME)).clamp(min=1)[:, None, None], ~inside
    centred = signal_uv.to(torch.float64, copy=True).masked_fill_(outside, 0)
    centred.sub_(_mean(centred, count, missing)).masked_fill_(outside, 0)
    scaled.copy_(centred.div_(_mean(centred.square(), count, missing).sqrt().clamp(min=MIN_STD_UV)))


def within(signal: Tensor, valid_samples: Tensor, lead_mask: Tensor) -> Tensor:
    """``(batch, leads, samples)`` bool, False in padding and missing leads; for the arguments see `standardise`."""
    time = torch.arange(signal.shape[_TIME], device=signal.device)
    return (time < valid_samples[:, None])[:, None] & lead_mask[:, :, None]


def _standardise_some(signal_uv: Tensor, valid_samples: Tensor, lead_mask: Tensor, scaled: Tensor) -> None:
    """`standardise` of few rows at once, which stay in a processor's cache, and of no sample of the padding."""
    num_samples = signal_uv.shape[_TIME]
    squares = torch.empty(_ROWS_AT_ONCE_CPU, *signal_uv.shape[1:], dtype=torch.float32)
    missing = ~lead_mask[:, :, None]
    lengths = valid_samples.clamp(0, num_samples)
    count = (lengths * lead_mask.sum(dim=1)).clamp_(min=1)[:, None, None]
    for some, length in _runs(lengths.tolist()):
        inside_uv, centred = signal_uv[some, :, :length], scaled[some, :, :length]
        torch.sub(inside_uv, _mean(inside_uv, count[some], missing[some]), out=centred)
        # An offset far above the signal leaves a rounded mean; what is left of it is small, and so is its error.
        centred.sub_(_mean(centred, count[some], missing[some]))
        squared = torch.mul(centred, centred, out=squares[: len(centred), :, :length])
        centred.div_(_mean(squared, count[some], missing[some]).sqrt_().clamp_(min=MIN_STD_UV))
        scaled[some, :, length:] = 0
    scaled.view(-1, num_samples).index_fill_(0, missing.flatten().nonzero()[:, 0], 0)


def _runs(lengths: list[int]) -> Iterator[tuple[slice, int]]:
    """Rows of one length that follow each other, few at once."""
    first = 0
    for length, same in groupby(lengths):
        end = first + len(list(same))
        for start in range(first, end, _ROWS_AT_ONCE_CPU):
            yield slice(start, min(start + _ROWS_AT_ONCE_CPU, end)), length
        first = end


def _mean(values: Tensor, count: Tensor, missing: Tensor) -> Tensor:
    """``(rows, 1, 1)``: over samples and the leads that are not `missing`, ``(rows, leads, 1)``."""
    sums = values.sum(_TIME, keepdim=True).double().masked_fill_(missing, 0).sum(_LEADS, keepdim=True)
    return sums.div_(count).to(values.dtype)
