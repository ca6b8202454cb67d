"""Change of sampling rate, with an exact rational ratio and quiet edges."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.signal import firwin, resample_poly

# The polyphase filter has 20 taps per unit of the larger factor: an odd rate (999.4113 Hz) must not ask for
# millions of them. The ratio is then wrong by 25 ppm at most, no more than the clock of a recorder.
_LARGEST_FACTOR = 20_000

_HALF_TAPS = 10
"""Taps on either side of the middle, per unit of the larger factor; as in `scipy.signal.resample_poly`."""
_WINDOW = ("kaiser", 5.0)

# Elements of the matrices of a ratio. With larger ones (257 Hz) the filter itself is as fast.
_MOST_ELEMENTS = 2**15

Float64 = npt.NDArray[np.float64]


@lru_cache(maxsize=256)
def rate_ratio(rate_hz: float, to_rate_hz: float) -> Fraction:
    """`to_rate_hz / rate_hz`, exact for the rates that recorders have (500, 360, 257, 128.5 Hz)."""
    return Fraction(to_rate_hz / rate_hz).limit_denominator(_LARGEST_FACTOR)


def resampled_length(num_samples: int, rate_hz: float, to_rate_hz: float) -> int:
    """How many samples `resample` makes of `num_samples`: the nearest whole number."""
    return round(num_samples * rate_ratio(rate_hz, to_rate_hz))


def resample(signal: npt.NDArray[np.floating], rate_hz: float, to_rate_hz: float) -> npt.NDArray[np.floating]:
    """Bring a signal to another sampling rate; sample 0 stays where it is.

    The zero-phase polyphase low-pass of `scipy.signal.resample_poly` (Kaiser window) in float64. Beyond the ends
    the signal is continued with the slope it has there. Of the continuations that scipy offers this one comes
    nearest to how a longer recording really goes on, tried on 10 s out of longer recordings of CPSC 2018
    (500 Hz) and PTB (1000 Hz): where the cut goes through a QRS complex, its largest error is about a sixth
    of that of holding the last value or of a straight line from end to end. Each lead's mean is set aside
    meanwhile, because the phases of the filter differ in their gain for a constant, which would put a ripple
    on a large electrode offset.

    Args:
        signal: ``(leads, samples)``, finite, any unit.
        rate_hz: its rate.
        to_rate_hz: the rate wanted.

    Returns:
        ``(leads, round(samples * to_rate_hz / rate_hz))`` float64; the signal itself if the rate is the same.
    """
    ratio = rate_ratio(rate_hz, to_rate_hz)
    if ratio == 1 or signal.shape[1] == 0:
        return signal
    exact = np.ascontiguousarray(signal, dtype=np.float64)
    offset = exact.mean(axis=1, keepdims=True)
    num_out = resampled_length(signal.shape[1], rate_hz, to_rate_hz)
    if signal.shape[1] == 1:
        # It has no slope; scipy 1.17 reads beyond the array for it.
        return np.repeat(exact, num_out, axis=1)
    blocks = _blocks(ratio.numerator, ratio.denominator)
    if blocks is None:
        taps = _taps(ratio.numerator, ratio.denominator)
        moved = resample_poly(
            exact - offset, ratio.numerator, ratio.denominator, axis=1, window=taps, padtype="smooth"
        )
    else:
        moved = blocks.apply(exact, offset, num_out)
    # scipy rounds the length up.
    resampled: Float64 = moved[:, :num_out]
    resampled += offset
    return resampled


@dataclass(frozen=True)
class _Blocks:
    """A polyphase filter as two matrices, so that BLAS does the work: in blocks, the filter is the same each time.

    `num_in` input samples are as long as a block of outputs, and no output sees further than the next block:
    with the signal in rows of `num_in`, and `reach` samples before its start, the outputs of a row are
    ``row @ first + next_row[: 2 * reach] @ second``.

    Attributes:
        first: ``(num_in, outputs of a block)``.
        second: ``(2 * reach, outputs of a block)``.
        reach: input samples on either side that an output sees.
    """

    first: Float64
    second: Float64
    reach: int

    def apply(self, signal: Float64, offset: Float64, num_out: int) -> Float64:
        """``(leads, samples)`` less ``(leads, 1)`` -> ``(leads, at least num_out)``, each lead for itself."""
        num_in, per_block = self.first.shape
        num_blocks = -(-num_out // per_block)
        rows = _extended(signal, offset, self.reach, (num_blocks + 1) * num_in).reshape(
            len(signal), num_blocks + 1, num_in
        )
        moved: Float64 = rows[:, :-1] @ self.first
        moved += rows[:, 1:, : 2 * self.reach] @ self.second
        return moved.reshape(len(signal), -1)


def _extended(signal: Float64, offset: Float64, before: int, length: int) -> Float64:
    """``(leads, length)``: the signal less its offset from `before` on, continued at both ends with its slope there."""
    num_leads, num_samples = signal.shape
    end = before + num_samples
    extended = np.empty((num_leads, length))
    np.subtract(signal[:, : length - before], offset, out=extended[:, before:end])
    extended[:, :before] = _continued(signal, offset, 0, 1, np.arange(-before, 0))
    if end < length:
        extended[:, end:] = _continued(signal, offset, -1, -2, np.arange(1, length - end + 1))
    return extended


def _continued(
    signal: Float64, offset: Float64, edge: int, inner: int, steps: npt.NDArray[np.int64]
) -> Float64:
    """``(leads, steps)``: the straight line through the last two samples of an end, so many samples from it."""
    last = signal[:, [edge]] - offset
    slope = last - (signal[:, [inner]] - offset)
    line: Float64 = last + steps * (slope if edge else -slope)
    return line


@lru_cache(maxsize=16)
def _taps(up: int, down: int) -> Float64:
    """The low-pass that `scipy.signal.resample_poly` designs, before it is scaled by `up`."""
    larger = max(up, down)
    taps: Float64 = firwin(2 * _HALF_TAPS * larger + 1, 1 / larger, window=_WINDOW)
    return taps


@lru_cache(maxsize=16)
def _blocks(up: int, down: int) -> _Blocks | None:
    """The matrices of a ratio, or None where they would be too large."""
    half = _HALF_TAPS * max(up, down)
    reach = half // up
    repeats = math.ceil(
        2 * reach / down
    )  # so many times the filter's period that a block is two reaches long
    num_in, per_block = repeats * down, repeats * up
    if (num_in + 2 * reach) * per_block > _MOST_ELEMENTS:
        return None
    # On the grid that both rates share, output r is at r * down and input i of the row at (i - reach) * up.
    place = half + np.arange(per_block) * down - (np.arange(num_in + 2 * reach)[:, None] - reach) * up
    inside = (place >= 0) & (place <= 2 * half)
    matrix = np.where(inside, up * _taps(up, down)[np.where(inside, place, 0)], 0.0)
    return _Blocks(matrix[:num_in].copy(), matrix[num_in:].copy(), reach)
