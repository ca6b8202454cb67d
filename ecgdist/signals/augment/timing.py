"""Augmentations of time: a stretched crop, a stretch of silence, a small shift."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from ecgdist.signals.augment.effect import Replaced, Scaled
from ecgdist.signals.augment.view import Augmentation, Randoms, Rows


def resized_crop(rows: Rows, stretch: float, uniform: Tensor) -> Replaced:
    """Keep a part of each record and stretch it to the record's length: time runs up to `stretch` slower.

    The part is ``1 / (1 + stretch * u)`` of the valid samples, from anywhere, not only from whole samples. Between
    samples the signal is interpolated by cubic convolution (Keys 1981, a = -1/2), which at 250 Hz is off by
    0.2 % at 20 Hz and 2.2 % at 40 Hz (straight lines: 3 % and 12 %). Slower only: nothing is aliased.

    Args:
        rows: what to change.
        stretch: largest lengthening; 0.25 makes 75 beats per minute look like 60.
        uniform: ``(rows, 2)``: how much, and from where.
    """
    last = (rows.valid_samples - 1).clamp(min=0)[:, None].double()
    share = 1 / (1 + stretch * uniform[:, :1].double())
    position = uniform[:, 1:].double() * (1 - share) * last + rows.time * share
    return Replaced(_interpolate(rows, position))


def _interpolate(rows: Rows, position: Tensor) -> Tensor:
    """All leads of each row at ``(rows, samples)`` fractional positions; zero in padding."""
    signal_uv = rows.signal_uv
    count, num_leads, num_samples = signal_uv.shape
    last = (rows.valid_samples - 1).clamp(min=0)[:, None]
    before = position.floor()
    inside = rows.in_time.float()
    x = (position - before).float()
    inside_x = x * inside
    weights = position.new_empty((count, num_samples, 4), dtype=torch.float32)
    torch.mul(((-0.5 * x + 1) * x - 0.5), inside_x, out=weights[..., 0])
    torch.add((1.5 * x - 2.5) * x * inside_x, inside, out=weights[..., 1])
    torch.mul((-1.5 * x + 2) * x + 0.5, inside_x, out=weights[..., 2])
    torch.mul((0.5 * x - 0.5) * x, inside_x, out=weights[..., 3])
    # All leads of a sample are needed together, so they are put side by side: a third of the time of gathering from
    # each lead.
    before, start = before.long(), torch.arange(count, device=position.device)[:, None] * num_samples
    near = torch.empty((count, num_samples, 4), dtype=torch.int64, device=position.device)
    for place, offset in enumerate((-1, 0, 1, 2)):
        torch.add((before + offset).clamp_(min=0).minimum(last), start, out=near[..., place])
    found = functional.embedding_bag(
        near.view(-1, 4),
        # Of a single row, a mere reshape would be no copy, and be summed in another way.
        signal_uv.transpose(1, 2).contiguous().view(-1, num_leads),
        per_sample_weights=weights.view(-1, 4),
        mode="sum",
    )
    return found.view(count, num_samples, num_leads).transpose(1, 2)


def time_out(rows: Rows, rate_hz: float, longest_s: float, uniform: Tensor) -> Scaled:
    """Set a stretch of up to `longest_s` seconds, the same in all leads, to zero microvolt.

    Args:
        rows: what to change.
        rate_hz: sampling rate.
        longest_s: longest silence; no more than the whole record.
        uniform: ``(rows, 2)``: how long, and where.
    """
    share, valid_samples, time = uniform.double(), rows.valid_samples, rows.time
    longest = torch.full_like(share[:, 0], longest_s * rate_hz)
    length = (share[:, 0] * longest).round().long().minimum(valid_samples)
    start = (share[:, 1] * (valid_samples - length + 1)).long()
    heard = (time < start[:, None]) | (time >= (start + length)[:, None])
    return Scaled(heard[:, None].float())


def time_shift(rows: Rows, rate_hz: float, longest_s: float, uniform: Tensor) -> Replaced:
    """Move each record by up to `longest_s` seconds, earlier or later; what comes in from outside is zero.

    Args:
        rows: what to change.
        rate_hz: sampling rate.
        longest_s: largest shift to either side.
        uniform: ``(rows, 1)``: 0 is earliest, 1 latest.
    """
    shift = ((2 * uniform.double() - 1) * longest_s * rate_hz).round().long()
    source = rows.time - shift
    inside = (source >= 0) & (source < rows.valid_samples[:, None]) & rows.in_time
    signal_uv = rows.signal_uv
    index = source.clamp_(0, signal_uv.shape[-1] - 1)[:, None].expand(signal_uv.shape)
    return Replaced(signal_uv.gather(-1, index).mul_(inside[:, None].float()))


class ResizedCrop(Augmentation):
    """A part of the record, stretched to its length (random resized crop; Mehari & Strodthoff 2022).

    May destroy: heart rate and every duration. Each is lengthened by the same factor, so a PR of 180 ms looks like a
    first-degree block at a stretch of 0.2, a QRS of 100 ms like a bundle branch block, tachycardia like a normal
    rate, a normal QT like a long one. What the crop leaves out may hold the only ectopic beat.
    """

    num_uniform: ClassVar[int] = 2

    name: Literal["resized_crop"] = "resized_crop"
    stretch: float = Field(default=0.2, ge=0, le=4, allow_inf_nan=False)
    """Largest lengthening of time; 0.2 makes 72 beats per minute look like 60."""

    def effect(self, rows: Rows, rate_hz: float, randoms: Randoms) -> Replaced:
        return resized_crop(rows, self.stretch, randoms.uniform)


class TimeOut(Augmentation):
    """A stretch of all leads is set to zero (time-out; Mehari & Strodthoff 2022).

    May destroy: whatever happens once. The stretch can hide the only ectopic beat, the one dropped beat of a
    second-degree block or the start of a tachycardia, and looks itself like a pause (sinus arrest) of its length.
    """

    num_uniform: ClassVar[int] = 2

    name: Literal["time_out"] = "time_out"
    longest_s: float = Field(default=2.0, ge=0, allow_inf_nan=False)
    """Longest silence, in seconds."""

    def effect(self, rows: Rows, rate_hz: float, randoms: Randoms) -> Scaled:
        return time_out(rows, rate_hz, self.longest_s, randoms.uniform)


class TimeShift(Augmentation):
    """The record begins a little earlier or later, with zeros for what was not recorded.

    Where segments are longer than the window, the window moves by itself, over recorded signal; this is for windows
    as long as the segment. May destroy: a beat at the very start or end; and the silence cuts through waves, so a
    half QRS complex at its edge is no finding.
    """

    num_uniform: ClassVar[int] = 1

    name: Literal["time_shift"] = "time_shift"
    longest_s: float = Field(default=0.2, ge=0, allow_inf_nan=False)
    """Largest shift to either side, in seconds."""

    def effect(self, rows: Rows, rate_hz: float, randoms: Randoms) -> Replaced:
        return time_shift(rows, rate_hz, self.longest_s, randoms.uniform)
