"""Change of sampling rate, with an exact rational ratio and quiet edges."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt
from scipy.signal import resample_poly

# The polyphase filter has 20 taps per unit of the larger factor: an odd rate (999.4113 Hz) must not ask for
# millions of them. The ratio is then wrong by 25 ppm at most, no more than the clock of a recorder.
_LARGEST_FACTOR = 20_000


def rate_ratio(rate_hz: float, to_rate_hz: float) -> Fraction:
    """`to_rate_hz / rate_hz`, exact for the rates that recorders have (500, 360, 257, 128.5 Hz)."""
    return Fraction(to_rate_hz / rate_hz).limit_denominator(_LARGEST_FACTOR)


def resampled_length(num_samples: int, rate_hz: float, to_rate_hz: float) -> int:
    """How many samples `resample` makes of `num_samples`: the nearest whole number."""
    return round(num_samples * rate_ratio(rate_hz, to_rate_hz))


def resample(signal: npt.NDArray[np.floating], rate_hz: float, to_rate_hz: float) -> npt.NDArray[np.floating]:
    """Bring a signal to another sampling rate; sample 0 stays where it is.

    A zero-phase polyphase low-pass (`scipy.signal.resample_poly`, Kaiser window) in float64. Beyond the ends
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
    exact = np.array(signal, dtype=np.float64, order="C")
    offset = exact.mean(axis=1, keepdims=True)
    moved = (
        resample_poly(exact - offset, ratio.numerator, ratio.denominator, axis=1, padtype="smooth") + offset
    )
    # scipy rounds the length up.
    resampled: npt.NDArray[np.float64] = moved[:, : resampled_length(signal.shape[1], rate_hz, to_rate_hz)]
    return resampled
