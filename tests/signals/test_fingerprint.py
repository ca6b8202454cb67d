"""A fingerprint is the same for one waveform at any gain and rate, and far from that of another ECG."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest

from ecgdist.preprocessing import PackStep
from ecgdist.record import Recording
from ecgdist.sample import sample_folder
from ecgdist.signals.fingerprint import (
    FINGERPRINT_BYTES,
    SAME_BITS,
    differing_bits,
    fingerprints,
)
from ecgdist.sources import open_source

ALL = np.ones(12, dtype=np.bool_)

Signals = npt.NDArray[np.int16]


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    """The shipped ECGs, 100 Hz."""
    source = open_source("ptbxl", str(sample_folder()))
    return [source.read_record(listing) for listing in source.list_records()]


def packed(recordings: list[Recording], rate_hz: float) -> Signals:
    pack = PackStep(rate_hz=rate_hz)
    return np.stack([pack.segments(recording)[0].signal_uv for recording in recordings])


@pytest.fixture(scope="module")
def signals(recordings: list[Recording]) -> Signals:
    return packed(recordings, 100.0)


def of(signals: Signals, rate_hz: float = 100.0, mask: npt.NDArray[np.bool_] = ALL) -> npt.NDArray[np.uint8]:
    rows, _, samples = signals.shape
    return fingerprints(signals, rate_hz, np.tile(mask, (rows, 1)), np.full(rows, samples))


def test_its_values_never_change() -> None:
    """They are in corpora and model folders of years ago: if this fails, mend the code, not the test."""
    time_s = np.arange(1000) / 100
    wave = np.round(800 * np.sin(2 * np.pi * 1.3 * time_s) + 300 * np.cos(2 * np.pi * 7.7 * time_s + 1))
    (found,) = of(np.tile(wave, (1, 12, 1)).astype(np.int16))
    assert found.tobytes().hex() == (
        "2506df52fef7d88aa83b7c1a5da6ebc6b800e50a4c2cea4a3759c60375fca134bf6b2d7132cca336cef410cc34b11788"
    )


@pytest.mark.parametrize("gain", [0.5, 2.0, 4.88])
def test_a_gain_changes_no_more_than_rounding(signals: Signals, gain: float) -> None:
    small = signals[np.abs(signals).max(axis=(1, 2)) * gain < 32767]
    assert len(small) > 300
    scaled = np.round(small * gain).astype(np.int16)
    assert differing_bits(of(small), of(scaled)).max() <= SAME_BITS // 2


@pytest.mark.parametrize("rate_hz", [125.0, 250.0, 257.0, 500.0])
def test_another_rate_changes_few_bits(recordings: list[Recording], signals: Signals, rate_hz: float) -> None:
    assert differing_bits(of(signals), of(packed(recordings, rate_hz), rate_hz)).max() <= SAME_BITS // 2


def test_other_ecgs_are_far(recordings: list[Recording], signals: Signals) -> None:
    prints = of(signals)
    near = {
        (recordings[i].record_id, recordings[j].record_id)
        for i, j in itertools.combinations(range(len(prints)), 2)
        if differing_bits(prints[[i]], prints[[j]])[0] <= 36
    }
    # PTB-XL has these signals twice, the second pair under two patients.
    assert near == {("137", "138"), ("145", "463"), ("456", "457"), ("459", "460")}


def test_rows_do_not_depend_on_their_neighbours(signals: Signals) -> None:
    prints = of(signals)
    for place in (0, 255, 256, 352):
        np.testing.assert_array_equal(of(signals[[place]])[0], prints[place])


def test_one_lead_is_enough_and_the_next_takes_the_place_of_a_flat_one(signals: Signals) -> None:
    prints = of(signals)
    only_ii = np.zeros(12, dtype=np.bool_)
    only_ii[1] = True
    np.testing.assert_array_equal(of(np.where(only_ii[:, None], signals, 0), mask=only_ii), prints)
    flat_ii = signals.copy()
    flat_ii[:, 1] = 5
    without_ii = ALL.copy()
    without_ii[1] = False
    np.testing.assert_array_equal(of(flat_ii), of(signals, mask=without_ii))
    assert np.median(differing_bits(of(flat_ii), prints)) > SAME_BITS


def test_padding_does_not_count(signals: Signals) -> None:
    """7 s, padded with zeros or cut out."""
    padded = signals.copy()
    padded[:, :, 700:] = 0
    valid, mask = np.full(len(signals), 700), np.tile(ALL, (len(signals), 1))
    one = fingerprints(padded, 100.0, mask, valid)
    np.testing.assert_array_equal(one, fingerprints(signals[:, :, :700], 100.0, mask, valid))


def test_only_the_first_ten_seconds_count(signals: Signals) -> None:
    longer = np.concatenate([signals, signals[::-1]], axis=2)
    np.testing.assert_array_equal(of(longer), of(signals))


def test_without_a_wave_there_is_no_fingerprint() -> None:
    flat = np.full((3, 12, 1000), 40, dtype=np.int16)
    assert not of(flat).any()
    assert not of(np.zeros((2, 12, 1000), np.int16), mask=np.zeros(12, np.bool_)).any()
    assert of(flat[:0]).shape == (0, FINGERPRINT_BYTES)
