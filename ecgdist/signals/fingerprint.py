"""A short signature of a waveform that survives a change of gain and of sampling rate.

It is a locality-sensitive hash for angles (Charikar, STOC 2002, "Similarity estimation techniques from rounding
algorithms"): the signs of fixed random projections of the waveform's spectrum from 1 to 15 Hz, where most of an
ECG's energy lies and which every sampling rate of a corpus holds. Two waveforms whose spectra enclose an angle a
differ in about a / pi of their bits: equal ones in none, a correlation of 0.99 in 4.5 %, unrelated ones in half.
A positive gain changes no sign. The constants below are part of every corpus and model: they never change.
"""

from __future__ import annotations

import hashlib
from functools import cache, lru_cache

import numpy as np
import numpy.typing as npt
import scipy.fft

from ecgdist.record import STANDARD_LEADS

FINGERPRINT_BYTES = 48
"""Bytes of one fingerprint."""

SAME_BITS = 20
"""So few differing bits are taken for one waveform where no signal is at hand to confirm it. Measured on PTB-XL:
its published 500 and 100 Hz copies differ in at most 17, a change of gain in at most 6; of 25 million pairs of
different patients (PTB-XL, Challenge 2021, MIT-BIH) the nearest differ in 36."""

CANDIDATE_BITS = 28
"""So few differing bits make two rows candidates, which their signals then confirm or not."""

WINDOW_S = 10.0
"""The beginning of a segment that is looked at; a shorter one is padded with zeros. Over 5 s, ECGs of two
patients with one heart rate come 25 times as often as near to each other (of 25 million pairs)."""
BAND_HZ = (1.0, 15.0)

_BATCH_ROWS = 256
"""Rows transformed at once; they stay in the processor's cache."""

LEAD_ORDER = [STANDARD_LEADS.index(lead) for lead in ("II", "I", "V5", "V2")]
LEAD_ORDER += [lead for lead in range(len(STANDARD_LEADS)) if lead not in LEAD_ORDER]
"""The first of these that is there and not flat is looked at: one lead, so that copies with fewer leads match."""

Bytes = npt.NDArray[np.uint8]


def fingerprints(
    signal_uv: npt.NDArray[np.int16],
    rate_hz: float,
    lead_mask: npt.NDArray[np.bool_],
    valid_samples: npt.NDArray[np.int64],
) -> Bytes:
    """The fingerprint of each row.

    Args:
        signal_uv: ``(rows, 12, samples)`` int16 microvolt.
        rate_hz: sampling rate.
        lead_mask: ``(rows, 12)``, True where a lead is present.
        valid_samples: ``(rows,)`` samples before the padding.

    Returns:
        ``(rows, FINGERPRINT_BYTES)``; all zero for a row without any lead that is not flat.
    """
    prints = np.zeros((len(signal_uv), FINGERPRINT_BYTES), dtype=np.uint8)
    width = round(WINDOW_S * rate_hz)
    valid = np.minimum(np.asarray(valid_samples, dtype=np.int64), min(width, signal_uv.shape[2]))
    for first in range(0, len(signal_uv), _BATCH_ROWS):
        batch = slice(first, first + _BATCH_ROWS)
        wave = _first_lead_with_signal(signal_uv[batch, :, :width], lead_mask[batch], valid[batch])
        spectrum = _spectrum(wave, valid[batch], width)
        found = np.packbits(spectrum @ _hyperplanes(spectrum.shape[1]) > 0, axis=1)
        prints[batch] = np.where(wave.any(axis=1, keepdims=True), found, 0)
    return prints


def differing_bits(one: Bytes, other: Bytes) -> npt.NDArray[np.int64]:
    """``(rows,)`` bits in which fingerprints ``(rows, FINGERPRINT_BYTES)`` differ."""
    words = np.ascontiguousarray(one).view(np.uint64) ^ np.ascontiguousarray(other).view(np.uint64)
    bits: npt.NDArray[np.int64] = np.bitwise_count(words).sum(axis=1, dtype=np.int64)
    return bits


def _first_lead_with_signal(
    begin: npt.NDArray[np.int16], lead_mask: npt.NDArray[np.bool_], valid: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """``(rows, samples)`` of the chosen lead; zero where every lead is flat."""
    wave = np.zeros((len(begin), begin.shape[2]))
    open_rows = np.arange(len(begin))
    inside = np.arange(begin.shape[2]) < valid[:, None]
    for lead in LEAD_ORDER:
        found = begin[open_rows, lead]
        first = found[:, :1]
        usable = lead_mask[open_rows, lead] & ((found != first) & inside[open_rows]).any(axis=1)
        wave[open_rows[usable]] = found[usable]
        open_rows = open_rows[~usable]
        if not len(open_rows):
            break
    return wave


def _spectrum(
    wave: npt.NDArray[np.float64], valid: npt.NDArray[np.int64], width: int
) -> npt.NDArray[np.float64]:
    """``(rows, dimensions)``: real and imaginary parts in the band, 1 / `WINDOW_S` apart at every rate."""
    lengths, which = np.unique(valid, return_inverse=True)
    taper = np.stack([_hann(int(length), wave.shape[1]) for length in lengths])[which]
    mean = (wave * taper).sum(axis=1, keepdims=True) / np.maximum(taper.sum(axis=1, keepdims=True), 1.0)
    low, high = (round(hz * WINDOW_S) for hz in BAND_HZ)
    bins = scipy.fft.rfft((wave - mean) * taper, n=width, axis=1)[:, low : high + 1]
    return np.concatenate([bins.real, bins.imag], axis=1)


@lru_cache(maxsize=64)
def _hann(length: int, width: int) -> npt.NDArray[np.float64]:
    """``(width,)`` Hann taper over the first `length` samples: it keeps a cut's edges out of the spectrum."""
    taper = np.zeros(width)
    taper[:length] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / max(length, 1))
    return taper


@cache
def _hyperplanes(dimensions: int) -> npt.NDArray[np.float64]:
    """``(dimensions, bits)`` of +1 and -1, drawn from SHAKE-256, whose output no library version changes."""
    bits = FINGERPRINT_BYTES * 8
    stream = hashlib.shake_256(b"ecgdist waveform fingerprint 1").digest(dimensions * bits // 8)
    drawn = np.unpackbits(np.frombuffer(stream, dtype=np.uint8)).reshape(dimensions, bits)
    planes: npt.NDArray[np.float64] = np.where(drawn == 1, 1.0, -1.0)
    return planes
