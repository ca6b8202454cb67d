"""Resampling: right samples, right length, quiet edges."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import resample_poly

from ecgdist.signals.resample import rate_ratio, resample, resampled_length
from ecgdist.signals.segments import to_int16
from tests.signals.real_ecgs import signals_uv

RATES_HZ = (100.0, 128.5, 200.0, 257.0, 360.0, 400.0, 500.0, 1000.0)


@pytest.mark.parametrize(
    ("rate_hz", "up", "down"),
    [(500, 1, 2), (400, 5, 8), (360, 25, 36), (257, 250, 257), (128.5, 500, 257), (1000, 1, 4), (100, 5, 2)],
)
def test_the_ratio_is_exact(rate_hz: float, up: int, down: int) -> None:
    ratio = rate_ratio(rate_hz, 250.0)
    assert (ratio.numerator, ratio.denominator) == (up, down)


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_equals_scipy_sample_by_sample_away_from_the_ends(rate_hz: float) -> None:
    x = signals_uv(4).reshape(48, 1000)
    x = x - x.mean(axis=1, keepdims=True)
    ratio = rate_ratio(rate_hz, 250.0)
    expected = resample_poly(x, ratio.numerator, ratio.denominator, axis=1)
    reach = 10 * max(1, int(np.ceil(ratio))) + 1  # output samples that see beyond an end
    inner = slice(reach, resampled_length(1000, rate_hz, 250.0) - reach)
    np.testing.assert_allclose(resample(x, rate_hz, 250.0)[:, inner], expected[:, inner], rtol=0, atol=1e-9)


@given(
    st.integers(2, 3000),
    st.sampled_from((*RATES_HZ, 977.0, 999.4113)),
    st.sampled_from((100.0, 250.0, 500.0)),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_equals_scipy_sample_by_sample_up_to_the_ends(
    samples: int, rate_hz: float, to_rate_hz: float, seed: int
) -> None:
    x = np.random.default_rng(seed).normal(scale=1000, size=(2, samples))
    np.testing.assert_allclose(
        resample(x, rate_hz, to_rate_hz), by_scipy(x, rate_hz, to_rate_hz), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("rate_hz", [100.0, 400.0, 999.4113])
def test_one_sample_stays_what_it_is(rate_hz: float) -> None:
    """Here scipy's own continuation reads beyond the array, and gives what happens to be there."""
    x = np.array([[345.5], [-12.25]])
    found = resample(x, rate_hz, 500.0)
    assert found.shape == (2, resampled_length(1, rate_hz, 500.0))
    assert (found == x).all()


def by_scipy(x: np.ndarray, rate_hz: float, to_rate_hz: float) -> np.ndarray:
    ratio = rate_ratio(rate_hz, to_rate_hz)
    offset = x.mean(axis=1, keepdims=True)
    moved = resample_poly(x - offset, ratio.numerator, ratio.denominator, axis=1, padtype="smooth")
    return moved[:, : resampled_length(x.shape[1], rate_hz, to_rate_hz)] + offset


@pytest.mark.parametrize("to_rate_hz", [240.0, 250.0, 360.0, 400.0, 500.0])
def test_real_ecgs_give_the_same_whole_microvolts_as_with_scipy(to_rate_hz: float) -> None:
    x = signals_uv(64).reshape(-1, 1000)
    ours, scipys = (to_int16(each(x, 100.0, to_rate_hz)) for each in (resample, by_scipy))
    assert (ours != scipys).sum() == 0


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_a_sine_stays_a_sine_in_place_and_size(rate_hz: float) -> None:
    def sine(at_hz: float) -> np.ndarray:
        return np.sin(2 * np.pi * 7.0 * np.arange(round(10 * at_hz)) / at_hz)[None]

    moved, expected = resample(sine(rate_hz), rate_hz, 250.0), sine(250.0)
    assert moved.shape == expected.shape
    np.testing.assert_allclose(moved[:, 50:-50], expected[:, 50:-50], atol=2e-3)


@given(st.integers(0, 6000), st.sampled_from(RATES_HZ), st.sampled_from((100.0, 250.0, 500.0)))
def test_the_length_is_the_nearest_whole_number(samples: int, rate_hz: float, to_rate_hz: float) -> None:
    out = resample(np.ones((1, samples)), rate_hz, to_rate_hz)
    assert out.shape == (1, resampled_length(samples, rate_hz, to_rate_hz))
    assert abs(out.shape[1] - samples * to_rate_hz / rate_hz) <= 0.5


def test_the_same_rate_returns_the_signal_unchanged() -> None:
    x = signals_uv(1)[0]
    assert resample(x, 250.0, 250.0) is x


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_an_electrode_offset_neither_rings_nor_ripples(rate_hz: float) -> None:
    x = np.full((1, 2000), 250_000.0)
    assert np.abs(resample(x, rate_hz, 250.0) - 250_000.0).max() < 1e-6


@pytest.mark.parametrize("padtype", ["constant", "line", "reflect"])
def test_the_ends_are_nearer_to_the_longer_recording_than_with_simpler_padding(padtype: str) -> None:
    at_500_hz = resample(signals_uv(24).reshape(288, 1000), 100.0, 500.0)
    cut = at_500_hz[:, 500:4500]
    truth = resample(at_500_hz, 500.0, 250.0)[:, 250:2250]

    def error_at_ends(resampled: np.ndarray) -> np.ndarray:
        error = np.abs(resampled - truth)
        return np.maximum(error[:, :10].max(axis=1), error[:, -10:].max(axis=1))

    ours = error_at_ends(resample(cut, 500.0, 250.0))
    simpler = error_at_ends(resample_poly(cut, 1, 2, axis=1, padtype=padtype))
    assert np.median(ours) < np.median(simpler)
    assert ours.max() < simpler.max()


def test_is_deterministic_and_does_not_depend_on_the_other_leads_or_the_memory_layout() -> None:
    x = signals_uv(1)[0]
    whole = resample(x, 100.0, 250.0)
    np.testing.assert_array_equal(whole, resample(np.asfortranarray(x), 100.0, 250.0))
    for lead in range(12):
        np.testing.assert_array_equal(whole[lead : lead + 1], resample(x[lead : lead + 1], 100.0, 250.0))


def test_an_odd_rate_is_within_the_accuracy_of_a_clock() -> None:
    for rate_hz in (999.4113, 250.01, 333.337):
        assert abs(float(rate_ratio(rate_hz, 250.0)) * rate_hz / 250.0 - 1) < 25e-6 * 1.01
