"""How a signal is stored: 12 leads as the little that each adds to the others and to its own past, without loss.

Each step was chosen by measurement (``python -m tests.benchmarks.codec KIND=DIR`` prints it against the others).
492 real ECGs of five data sets at 250 Hz take 16.0 kB each, and 34.9 kB as plain int16 under the same zstd level:

1. *Limb leads.* III, aVR, aVL and aVF follow from I and II (Einthoven 1908, Goldberger 1942); what is stored of
   them is their difference from that, mostly 0 or 1 µV of rounding. Dropping it would save another 16 %, but none
   of those ECGs keeps the identities to 1 µV throughout, and a corpus would not hold what was recorded.
2. *Delta.* Of the other eight, the first sample and then the difference from the sample before. Differences of
   these would save 3 % more of some data sets and cost as much in others.
3. *Byte planes.* These residuals are small. Moved up by 128 (as unsigned 16-bit numbers, modulo 65536), the
   high byte of nearly all is zero, so all high bytes come first, then all low bytes; Parquet's zstd does the rest.

All sums are modulo 65536, so any int16 content comes back bit by bit, and any bytes of the right length decode to
some signal: a damaged shard is found by its pages' checksums, and can neither overrun nor allocate anything here.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from ecgdist.record import NUM_LEADS

CODEC = "limb-delta-planes"
"""Name of this form in a manifest. Whoever changes the form changes the name."""

_INDEPENDENT = (slice(0, 2), slice(6, 12))
"""Leads I and II, and V1 to V6; `STANDARD_LEADS` has the other four limb leads between them."""
_BIAS = 128
_ROWS_AT_ONCE = 8
"""So many rows' intermediate arrays (0.1 MB each at 10 s of 250 Hz) stay in a core's cache."""
_MOST_BY_ONE_THREAD = 32_767
"""Numbers that torch adds up without its own threads, which a forked process does not have and would wait for."""

Signals = npt.NDArray[np.int16]


def encode(signal_uv: Signals) -> npt.NDArray[np.uint8]:
    """The stored bytes of signals: ``(rows, 12, samples)`` -> ``(rows, 24 * samples)``."""
    rows, leads, samples = signal_uv.shape
    stored = np.empty((rows, 2, leads, samples), dtype=np.uint8)
    for start in range(0, rows, _ROWS_AT_ONCE):
        here = slice(start, start + _ROWS_AT_ONCE)
        residual = _residuals(signal_uv[here]).view(np.uint16)
        residual += np.uint16(_BIAS)
        stored[here, 0] = residual >> 8
        stored[here, 1] = residual & 0xFF
    return stored.reshape(rows, 2 * leads * samples)


def decode(
    stored: npt.NDArray[np.uint8], num_samples: int, rows: npt.NDArray[np.int64] | None = None
) -> Signals:
    """Signals from their stored bytes, `rows` of them in that order (default: all, in their own order).

    Args:
        stored: ``(n, 24 * num_samples)``.
        num_samples: samples of a lead.
        rows: ``(m,)`` indices into `stored`.

    Returns:
        ``(m, 12, num_samples)`` little-endian int16, a new array.
    """
    planes = stored.reshape(len(stored), 2, NUM_LEADS, num_samples)
    count = len(stored) if rows is None else len(rows)
    signal_uv = np.empty((count, NUM_LEADS, num_samples), dtype="<i2")
    for start in range(0, count, _ROWS_AT_ONCE):
        here = slice(start, start + _ROWS_AT_ONCE)
        _decode_some(planes[here if rows is None else rows[here]], signal_uv[here])
    return signal_uv


def _residuals(signal_uv: Signals) -> Signals:
    """Limb leads less their prediction, the others less their own past."""
    residual = np.array(signal_uv, dtype=np.int16)
    residual[:, 2] -= signal_uv[:, 1] - signal_uv[:, 0]
    for lead, prediction in enumerate(_augmented(signal_uv), start=3):
        residual[:, lead] -= prediction
    for leads in _INDEPENDENT:
        residual[:, leads, 1:] -= signal_uv[:, leads, :-1]
    return residual


def _decode_some(planes: npt.NDArray[np.uint8], signal_uv: Signals) -> None:
    """Decode ``(rows, 2, 12, samples)`` into `signal_uv`."""
    unsigned = planes[:, 0].astype(np.uint16)
    unsigned <<= 8
    unsigned |= planes[:, 1]
    unsigned -= _BIAS
    residual = unsigned.view(np.int16)
    for leads in _INDEPENDENT:
        # torch keeps a running sum in a register; numpy, which takes it from memory again, needs five times as long.
        steps, sums = torch.from_numpy(residual[:, leads]), torch.from_numpy(signal_uv[:, leads])
        at_once = max(1, _MOST_BY_ONE_THREAD // max(1, steps[:1].numel()))
        for start in range(0, len(steps), at_once):
            here = slice(start, start + at_once)
            torch.cumsum(steps[here], dim=-1, dtype=torch.int16, out=sums[here])
    i, ii, iii = signal_uv[:, 0], signal_uv[:, 1], signal_uv[:, 2]
    np.subtract(ii, i, out=iii)
    iii += residual[:, 2]
    for lead, prediction in enumerate(_augmented(signal_uv), start=3):
        np.add(residual[:, lead], prediction, out=signal_uv[:, lead])


def _augmented(signal_uv: Signals) -> tuple[Signals, Signals, Signals]:
    """aVR = -(I + II) / 2, aVL = (I - III) / 2, aVF = (II + III) / 2, rounded down (Goldberger).

    From III as stored rather than from I and II alone: halving halves the rounding noise of each.
    """
    i, ii, iii = signal_uv[:, 0], signal_uv[:, 1], signal_uv[:, 2]
    return -((i + ii) >> 1), (i - iii) >> 1, (ii + iii) >> 1
