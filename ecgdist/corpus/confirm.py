"""Whether two rows hold one waveform: the correlation of their signals, whatever gain and rate they have."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import scipy.fft

from ecgdist.corpus.candidates import Pairs
from ecgdist.corpus.corpus import Corpus
from ecgdist.record import NUM_LEADS, bits_to_mask
from ecgdist.signals.fingerprint import BAND_HZ

SAME_CORRELATION = 0.99
"""From here on two waveforms are one."""

_STEP_S = 0.2
"""Signals are compared over a multiple of this, which is a whole number of samples at all usual rates."""
_LEAST_RMS_UV = 3.0
"""A lead below it is flat but for its rounding to whole microvolts."""
_PAIRS_AT_ONCE = 8192
_ROWS_AT_ONCE = 64

Floats = npt.NDArray[np.float32]
Spectra = npt.NDArray[np.complex64]
Ints = npt.NDArray[np.int64]


def correlations(corpus: Corpus, other: Corpus, pairs: Pairs) -> Floats:
    """``(pairs,)``: the correlation of a row of `corpus` with a row of `other`.

    Both signals are reduced to their spectrum from 1 to 15 Hz over the samples that both have: it is the same at
    every sampling rate, and the correlation of two spectra is that of the band-limited signals (Parseval). A
    pair's correlation is the median over the leads that both have and that are not flat; 0 if there is none.

    Raises:
        DataError, StorageError: if a corpus cannot be read.
    """
    found = np.zeros(len(pairs), dtype=np.float32)
    steps = np.minimum(_steps(corpus, pairs.first), _steps(other, pairs.second))
    for length in np.unique(steps[steps > 0]):
        same_length = np.flatnonzero(steps == length)
        # In the order of rows, so that a row group is read for many pairs at once.
        same_length = same_length[np.argsort(pairs.first[same_length], kind="stable")]
        for start in range(0, len(same_length), _PAIRS_AT_ONCE):
            part = same_length[start : start + _PAIRS_AT_ONCE]
            seconds = int(length) * _STEP_S
            one = _spectra(corpus, pairs.first[part], seconds)
            two = _spectra(other, pairs.second[part], seconds)
            found[part] = _median_correlation(*one, *two)
    return found


def _steps(corpus: Corpus, rows: Ints) -> Ints:
    """``(rows,)`` valid length of rows, in whole `_STEP_S`."""
    valid = corpus.columns("valid_samples")["valid_samples"].to_numpy()[rows]
    # Half a sample more: a copy at another rate may end that much earlier.
    steps: Ints = ((valid + 0.5) / corpus.manifest.pack.rate_hz / _STEP_S).astype(np.int64)
    return steps


def _spectra(corpus: Corpus, rows: Ints, seconds: float) -> tuple[Spectra, Ints]:
    """``(distinct rows, 12, bins)`` unit spectra, zero where a lead is missing or flat, and the place of each row."""
    distinct, place = np.unique(rows, return_inverse=True)
    width = round(seconds * corpus.manifest.pack.rate_hz)
    low, high = math.ceil(BAND_HZ[0] * seconds), math.floor(BAND_HZ[1] * seconds)
    present = bits_to_mask(corpus.columns("lead_mask")["lead_mask"].to_numpy()[distinct])
    spectra = np.zeros((len(distinct), NUM_LEADS, high - low + 1), dtype=np.complex64)
    taper = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(width) / width)
    done = 0
    for found, signal_uv in corpus.iter_signals(distinct, _ROWS_AT_ONCE):
        wave = signal_uv[:, :, :width].astype(np.float64)
        wave -= wave.mean(axis=2, keepdims=True)
        usable = present[done : done + len(found)] & (wave.std(axis=2) >= _LEAST_RMS_UV)
        bins = scipy.fft.rfft(wave * taper, n=width, axis=2)[:, :, low : high + 1]
        norm = np.linalg.norm(bins, axis=2)
        scale = np.divide(1.0, norm, out=np.zeros_like(norm), where=usable & (norm > 0))
        spectra[done : done + len(found)] = bins * scale[:, :, None]
        done += len(found)
    return spectra, place


def _median_correlation(one: Spectra, place: Ints, two: Spectra, other_place: Ints) -> Floats:
    there, there_too = np.asarray(one.any(axis=2)), np.asarray(two.any(axis=2))
    shared = there[place] & there_too[other_place]
    found = np.empty(shared.shape, dtype=np.float32)
    for lead in range(NUM_LEADS):
        found[:, lead] = np.einsum("pb,pb->p", one[place, lead], two[other_place, lead].conj()).real
    found[~shared] = np.nan
    median = np.zeros(len(found), dtype=np.float32)
    any_lead = shared.any(axis=1)
    median[any_lead] = np.nanmedian(found[any_lead], axis=1)
    return median
