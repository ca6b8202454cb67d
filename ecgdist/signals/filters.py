"""Zero-phase Butterworth band-pass of a batch of ECGs, on whatever device they are."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.signal import butter
from torch import Tensor

# Rows filtered at once. On a GPU it bounds the memory (about 1 MB a row at 12 x 2500 samples) whatever the batch; on a
# processor it keeps them in its cache.
_ROWS_AT_ONCE, _ROWS_AT_ONCE_CPU = 64, 4


@dataclass(frozen=True)
class Band:
    """What a band-pass lets through.

    Attributes:
        rate_hz: sampling rate of the signals.
        highpass_hz: lower cut-off (-3 dB of one pass), or None to keep the drift.
        lowpass_hz: upper cut-off, below half the rate, or None.
        order: of each Butterworth filter; it is passed forward and backward, which doubles it.
    """

    rate_hz: float
    highpass_hz: float | None
    lowpass_hz: float | None
    order: int

    def sections(self) -> npt.NDArray[np.float64]:
        """``(sections, 6)`` second-order sections of the high-pass followed by the low-pass."""
        cutoffs = (("highpass", self.highpass_hz), ("lowpass", self.lowpass_hz))
        filters = [
            butter(self.order, hz, kind, fs=self.rate_hz, output="sos")
            for kind, hz in cutoffs
            if hz is not None
        ]
        return np.concatenate([np.zeros((0, 6)), *filters])


@torch.no_grad()
def band_pass(signal: Tensor, valid_samples: Tensor, band: Band) -> Tensor:
    """Filter each lead forward and backward, so that no wave is shifted in time.

    The straight line through a lead's first and last valid sample is set aside: a high-pass removes it, a low-pass
    leaves it as it is. What remains is continued at each end by its mirror image, and that again, without end. The
    reference is ``scipy.signal.sosfiltfilt(band.sections(), numpy.pad(rest, at least 20 s, mode="symmetric"),
    padlen=0)``. On 5 s cut out of 10 s, this is three times nearer to the filtered 10 s than the point reflection of
    scipy's default (tested).

    So continued, n samples are a sum of n cosines, ``cos(pi m (t + 1/2) / n)`` with m from 0 to n - 1. A filter without
    phase multiplies each with ``|H|^2`` at its frequency, so no continuation has to be computed. Arithmetic is in
    float64: 8 mV of wander under 0.2 mV of ECG costs float32 more than the 1e-5 that devices may differ by.

    A row's result does not depend on the other rows.

    Args:
        signal: ``(batch, leads, samples)``, int16 or floating point, any unit.
        valid_samples: ``(batch,)`` integers, samples of each row that are real; the rest is padding. Best on the CPU:
            a GPU would have to finish what it does before it could say them.
        band: what to let through; with neither cut-off the signal is only converted.

    Returns:
        ``(batch, leads, samples)`` float32 in the unit of `signal`, zero from `valid_samples` on.

    Raises:
        ValueError: if there are not as many `valid_samples` as rows, or one is not between 0 and the samples.
    """
    lengths = valid_samples.tolist()
    if len(lengths) != len(signal) or not all(0 <= length <= signal.shape[-1] for length in lengths):
        raise ValueError(f"{lengths} are not the valid samples of signals of shape {tuple(signal.shape)}")
    is_whole = all(length == signal.shape[-1] for length in lengths)
    filtered = (torch.empty if is_whole else torch.zeros)(
        signal.shape, dtype=torch.float32, device=signal.device
    )
    rows_of_length = defaultdict(list)
    for row, num_samples in enumerate(lengths):
        rows_of_length[num_samples].append(row)
    at_once = _ROWS_AT_ONCE_CPU if signal.device.type == "cpu" else _ROWS_AT_ONCE
    for num_samples, rows in rows_of_length.items():
        for first in range(0, len(rows), at_once):
            some = rows[first : first + at_once]
            if some[-1] - some[0] == len(some) - 1:
                together = slice(some[0], some[-1] + 1)
                _filter_rows(signal[together, :, :num_samples], band, filtered[together, :, :num_samples])
            else:
                index = torch.tensor(some, device=signal.device)
                part = filtered.new_empty((len(some), signal.shape[1], num_samples))
                _filter_rows(signal[index, :, :num_samples], band, part)
                filtered[index, :, :num_samples] = part
    return filtered


def _filter_rows(signal: Tensor, band: Band, filtered: Tensor) -> None:
    """`band_pass` of rows without padding, ``(rows, leads, samples)``, written into `filtered`.

    The coefficients of the cosines are real and negative imaginary part of ``exp(-i pi k / 2n) V[k]``, where V is the
    transform of the even samples in order and then the odd ones backward (Makhoul, IEEE Trans. ASSP 28:27, 1980).
    Turning by the angle, two gains, and turning back is one symmetric 2 x 2 matrix for each k. Its products are taken
    one by one, because the sums in those of complex numbers are rounded otherwise at the end of a stretch of memory.
    """
    num_samples = signal.shape[-1]
    if not num_samples or (band.highpass_hz is None and band.lowpass_hz is None):
        filtered.copy_(signal)
        return
    num_even = (num_samples + 1) // 2
    direct, crosswise, signs, time = _constants(num_samples, band, str(signal.device))
    first, last = signal[..., :1].double(), signal[..., -1:].double()
    reordered = torch.empty(signal.shape, dtype=torch.float64, device=signal.device)
    reordered[..., :num_even] = signal[..., ::2]
    reordered[..., num_even:] = signal[..., 1::2].flip(-1)
    reordered.sub_(first).addcmul_(last - first, time, value=-1)

    spectrum = torch.fft.rfft(reordered)
    across = spectrum * crosswise
    torch.view_as_real(spectrum).mul_(direct).addcmul_(torch.view_as_real(across), signs)
    torch.fft.irfft(spectrum, n=num_samples, out=reordered)

    if band.highpass_hz is None:
        reordered.add_(first).addcmul_(last - first, time)
    filtered[..., ::2] = reordered[..., :num_even]
    filtered[..., 1::2] = reordered[..., num_even:].flip(-1)


@lru_cache(maxsize=256)
def _constants(num_samples: int, band: Band, device: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `_filter_rows` needs to know of a length.

    After the turn, the real part belongs to the cosine with ``m = k`` and the imaginary one to that with ``m = n - k``.

    Returns:
        The diagonal of the matrix of each k: ``(samples // 2 + 1, 2)`` float64.
        What is beside it, times i, so that real and imaginary part change places: ``(samples // 2 + 1,)`` complex128.
        The sign that this gets wrong, -1 for real parts and 1 for imaginary ones: as the first.
        Time from 0 to 1 of the samples in the order of the transform: ``(samples,)`` float64.
    """
    k = np.arange(num_samples // 2 + 1)
    real, imaginary = _squared_response(np.pi * np.stack([k, num_samples - k]) / num_samples, band)
    angle = np.pi * k / (2 * num_samples)
    cos, sin = np.cos(angle), np.sin(angle)
    direct = np.stack([cos**2 * real + sin**2 * imaginary, sin**2 * real + cos**2 * imaginary], axis=-1)
    crosswise = 1j * cos * sin * (real - imaginary)
    signs = np.tile([-1.0, 1.0], (len(k), 1))
    time = np.arange(num_samples) / max(num_samples - 1, 1)
    time = np.concatenate([time[::2], time[1::2][::-1]])

    def there(values: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(values).to(device)

    return there(direct), there(crosswise), there(signs), there(time)


def _squared_response(radians_per_sample: npt.NDArray[np.float64], band: Band) -> npt.NDArray[np.float64]:
    """``|H|^2`` of `Band.sections`: Butterworth's, whose frequencies the bilinear transform turns into tangents.

    scipy finds the same from the sections, but takes milliseconds for each length of a padded segment.
    """
    warped = np.tan(radians_per_sample / 2)
    response = np.ones_like(warped)
    with np.errstate(divide="ignore", over="ignore"):
        if band.highpass_hz is not None:
            response /= 1 + (np.tan(np.pi * band.highpass_hz / band.rate_hz) / warped) ** (2 * band.order)
        if band.lowpass_hz is not None:
            response /= 1 + (warped / np.tan(np.pi * band.lowpass_hz / band.rate_hz)) ** (2 * band.order)
    return response
