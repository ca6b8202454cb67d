"""Augmentations of time: a stretched crop, a stretch of silence, a small shift."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ecgdist.signals.augment.view import Augmentation, Randoms, View


def resized_crop(view: View, stretch: float, uniform: Tensor) -> View:
    """Keep a part of each record and stretch it to the record's length: time runs up to `stretch` slower.

    The part is ``1 / (1 + stretch * u)`` of the valid samples, from anywhere, not only from whole samples. Between
    samples the signal is interpolated by cubic convolution (Keys 1981, a = -1/2), which at 250 Hz is off by
    0.2 % at 20 Hz and 2.2 % at 40 Hz (straight lines: 3 % and 12 %). Slower only: nothing is aliased.

    Args:
        view: what to change.
        stretch: largest lengthening; 0.25 makes 75 beats per minute look like 60.
        uniform: ``(batch, 2)``: how much, and from where.
    """
    last = (view.valid_samples - 1).clamp(min=0)[:, None].double()
    share = 1 / (1 + stretch * uniform[:, :1].double())
    time = torch.arange(view.signal_uv.shape[-1], device=view.signal_uv.device)
    position = uniform[:, 1:].double() * (1 - share) * last + time * share
    return view._replace(signal_uv=_interpolate(view, position))


def _interpolate(view: View, position: Tensor) -> Tensor:
    """All leads of each row at ``(batch, samples)`` fractional positions; zero in padding."""
    signal_uv, last = view.signal_uv, (view.valid_samples - 1).clamp(min=0)[:, None]
    before = position.floor()
    x = (position - before).float()
    weights = (
        ((-0.5 * x + 1) * x - 0.5) * x,
        (1.5 * x - 2.5) * x * x + 1,
        ((-1.5 * x + 2) * x + 0.5) * x,
        (0.5 * x - 0.5) * x * x,
    )
    found = torch.zeros_like(signal_uv)
    for offset, weight in zip((-1, 0, 1, 2), weights, strict=True):
        index = (before.long() + offset).clamp(min=0).minimum(last)
        taken = signal_uv.gather(-1, index[:, None].expand(signal_uv.shape))
        found.addcmul_(taken, weight.masked_fill(~view.in_time[:, 0], 0)[:, None])
    return found


def time_out(view: View, rate_hz: float, longest_s: float, uniform: Tensor) -> View:
    """Set a stretch of up to `longest_s` seconds, the same in all leads, to zero microvolt.

    Args:
        view: what to change.
        rate_hz: sampling rate.
        longest_s: longest silence; no more than the whole record.
        uniform: ``(batch, 2)``: how long, and where.
    """
    share = uniform.double()
    longest = torch.full_like(share[:, 0], longest_s * rate_hz)
    length = (share[:, 0] * longest).round().long().minimum(view.valid_samples)
    start = (share[:, 1] * (view.valid_samples - length + 1)).long()
    time = torch.arange(view.signal_uv.shape[-1], device=view.signal_uv.device)
    heard = (time < start[:, None]) | (time >= (start + length)[:, None])
    return view._replace(signal_uv=view.signal_uv * heard[:, None].float())


def time_shift(view: View, rate_hz: float, longest_s: float, uniform: Tensor) -> View:
    """Move each record by up to `longest_s` seconds, earlier or later; what comes in from outside is zero.

    Args:
        view: what to change.
        rate_hz: sampling rate.
        longest_s: largest shift to either side.
        uniform: ``(batch, 1)``: 0 is earliest, 1 latest.
    """
    shift = ((2 * uniform.double() - 1) * longest_s * rate_hz).round().long()
    time = torch.arange(view.signal_uv.shape[-1], device=view.signal_uv.device)
    source = time - shift
    inside = (source >= 0) & (source < view.valid_samples[:, None]) & view.in_time[:, 0]
    index = source.clamp(0, view.signal_uv.shape[-1] - 1)[:, None].expand(view.signal_uv.shape)
    return view._replace(signal_uv=view.signal_uv.gather(-1, index).mul_(inside[:, None].float()))


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

    def apply(self, view: View, rate_hz: float, randoms: Randoms) -> View:
        return resized_crop(view, self.stretch, randoms.uniform)


class TimeOut(Augmentation):
    """A stretch of all leads is set to zero (time-out; Mehari & Strodthoff 2022).

    May destroy: whatever happens once. The stretch can hide the only ectopic beat, the one dropped beat of a
    second-degree block or the start of a tachycardia, and looks itself like a pause (sinus arrest) of its length.
    """

    num_uniform: ClassVar[int] = 2

    name: Literal["time_out"] = "time_out"
    longest_s: float = Field(default=2.0, ge=0, allow_inf_nan=False)
    """Longest silence, in seconds."""

    def apply(self, view: View, rate_hz: float, randoms: Randoms) -> View:
        return time_out(view, rate_hz, self.longest_s, randoms.uniform)


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

    def apply(self, view: View, rate_hz: float, randoms: Randoms) -> View:
        return time_shift(view, rate_hz, self.longest_s, randoms.uniform)
