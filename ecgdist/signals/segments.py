"""Cutting and rounding: the arithmetic of a signal at rest."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def segment_bounds(total: int, length: int, shortest: int) -> tuple[list[tuple[int, int]], int]:
    """Cut `total` samples into consecutive pieces of `length`, and a last one of at least `shortest`.

    Returns:
        ``(start, stop)`` of each piece, and how many samples at the end are too few for one.
    """
    bounds = [(start, min(start + length, total)) for start in range(0, total, length)]
    if bounds and bounds[-1][1] - bounds[-1][0] < shortest:
        start, stop = bounds.pop()
        return bounds, stop - start
    return bounds, 0


def to_int16(signal_uv: npt.NDArray[np.floating]) -> npt.NDArray[np.int16]:
    """Whole microvolts of a signal that fits into int16.

    Recorders with steps of 0.5 µV make values that lie exactly between two integers. Rounding to 0.01 µV
    first lets them go the same way whether they were given in mV or µV, in float32 or float64.
    """
    whole: npt.NDArray[np.int16] = np.rint(np.round(signal_uv.astype(np.float64), 2)).astype(np.int16)
    return whole
