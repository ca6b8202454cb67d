"""Noise, wander and hum against a loop over records and leads, and in microvolt and hertz."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.signal import freqz_sos

from ecgdist.errors import ConfigError
from ecgdist.preprocessing import DeviceStep, PackStep
from ecgdist.signals.augment import Rows, View
from ecgdist.signals.augment.interference import (
    BaselineWander,
    GaussianNoise,
    Powerline,
    baseline_wander,
    electrode_leads,
    gaussian_noise,
    powerline,
)
from ecgdist.signals.filters import Band
from ecgdist.signals.limbs import limb_residual_uv
from tests.signals.augment.batches import RATE_HZ, SAMPLES, Array, applied, batch, randoms, rows

JUST_BELOW_1 = 1 - 2**-24


def twelve_leads(electrodes: Array) -> Array:
    """Lead by lead, from the right arm, left arm, left leg and six chest electrodes."""
    right, left, leg, *chest = electrodes
    lead_i, lead_ii, terminal = left - right, leg - right, (right + left + leg) / 3
    limbs = [
        lead_i,
        lead_ii,
        lead_ii - lead_i,
        -(lead_i + lead_ii) / 2,
        lead_i - lead_ii / 2,
        lead_ii - lead_i / 2,
    ]
    return np.array([*limbs, *(electrode - terminal for electrode in chest)])


def add(signal_uv: Array, added_uv: Array, valid: int, lead_mask: Array) -> Array:
    """Where there is signal."""
    total = signal_uv.copy()
    for lead in np.flatnonzero(lead_mask):
        total[lead, :valid] += added_uv[lead, :valid]
    return total


def silence(count: int, samples: int) -> View:
    return View(torch.zeros(count, 12, samples), torch.full((count,), samples), torch.ones(count, 12).bool())


def test_leads_are_differences_of_electrodes() -> None:
    potential = np.random.default_rng(0).normal(size=(4, 9, 5))
    found = electrode_leads(torch.from_numpy(potential)).numpy()
    np.testing.assert_allclose(found, [twelve_leads(one) for one in potential], atol=1e-12)


def test_noise_is_added_electrode_by_electrode() -> None:
    view, (uniform, normal) = batch(), randoms(GaussianNoise())
    assert normal is not None
    found = gaussian_noise(Rows(view), 50.0, uniform, normal).of(view).signal_uv.numpy()
    for row, (signal_uv, valid, lead_mask) in enumerate(rows(view)):
        sigma_uv = 50 * float(uniform[row, 0].double()) / np.sqrt(2)
        expected = add(signal_uv, twelve_leads(sigma_uv * normal[row].double().numpy()), valid, lead_mask)
        np.testing.assert_allclose(found[row], expected, atol=1e-3)


def test_noise_has_its_rms_in_microvolt() -> None:
    normal = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 9, 100_000), dtype=np.float32))
    view, uniform = silence(1, 100_000), torch.tensor([[JUST_BELOW_1]])
    noise_uv = gaussian_noise(Rows(view), 20.0, uniform, normal).of(view).signal_uv[0]
    rms_uv = noise_uv.square().mean(dim=1).sqrt().numpy()
    np.testing.assert_allclose(rms_uv[:3], 20, rtol=0.02)
    np.testing.assert_allclose(rms_uv[3:6], 20 * 0.87, rtol=0.02)
    np.testing.assert_allclose(rms_uv[6:], 20 * 0.82, rtol=0.02)


def test_wander_is_three_sines_of_one_size_in_each_electrode() -> None:
    view, (uniform, _) = batch(), randoms(BaselineWander())
    found = baseline_wander(Rows(view), RATE_HZ, 300.0, 0.2, 1.5, uniform).of(view).signal_uv.numpy()
    for row, (signal_uv, valid, lead_mask) in enumerate(rows(view)):
        size, *numbers = uniform[row].double().tolist()
        wave = np.zeros(SAMPLES)
        for frequency, phase in zip(numbers[:3], numbers[3:6], strict=True):
            time_s = np.arange(SAMPLES) / RATE_HZ
            wave += np.sin(2 * np.pi * ((0.2 + 1.3 * frequency) * time_s + phase)) / 3
        gains = twelve_leads(np.array(numbers[6:])[:, None] - 0.5)
        expected = add(signal_uv, 300 * size * gains * wave, valid, lead_mask)
        np.testing.assert_allclose(found[row], expected, atol=1e-3)


def test_hum_is_one_sine_of_one_size_in_each_electrode() -> None:
    view, (uniform, _) = batch(), randoms(Powerline())
    chosen = [(40.0, 48.0)[int(2 * float(number))] for number in uniform[:, 1]]
    assert set(chosen) == {40.0, 48.0}
    found = powerline(Rows(view), RATE_HZ, 80.0, (40.0, 48.0), uniform).of(view).signal_uv.numpy()
    for row, (signal_uv, valid, lead_mask) in enumerate(rows(view)):
        size, _, phase, *electrodes = uniform[row].double().tolist()
        wave = np.sin(2 * np.pi * (chosen[row] * np.arange(SAMPLES) / RATE_HZ + phase))
        gains = twelve_leads(np.array(electrodes)[:, None] - 0.5)
        expected = add(signal_uv, 80 * size * gains * wave, valid, lead_mask)
        np.testing.assert_allclose(found[row], expected, atol=1e-3)


@pytest.mark.parametrize("hz", [50.0, 60.0])
def test_hum_has_the_frequency_of_the_mains_and_no_more_than_its_amplitude(hz: float) -> None:
    uniform = torch.from_numpy(np.random.default_rng(0).random((500, 12), dtype=np.float32))
    uniform[:, 0] = JUST_BELOW_1
    view = silence(500, 2500)
    hum_uv = powerline(Rows(view), 250.0, 20.0, (hz,), uniform).of(view).signal_uv
    spectrum = torch.fft.rfft(hum_uv.double()).abs()
    assert (spectrum.argmax(dim=-1) == hz * 10).all()  # 10 s: a bin is 0.1 Hz
    assert 15 < hum_uv.abs().max() < 20


@pytest.mark.slow
def test_wander_keeps_to_its_frequencies_and_amplitude() -> None:
    uniform = torch.from_numpy(np.random.default_rng(0).random((500, 16), dtype=np.float32))
    uniform[:, 0] = JUST_BELOW_1
    view = silence(500, 20_000)
    drift_uv = baseline_wander(Rows(view), 100.0, 100.0, 0.2, 1.0, uniform).of(view).signal_uv
    power = torch.fft.rfft(drift_uv.double() * torch.hann_window(20_000, dtype=torch.float64)).abs() ** 2
    frequency_hz = torch.fft.rfftfreq(20_000, 1 / 100)
    outside = (frequency_hz < 0.18) | (frequency_hz > 1.02)
    assert power[..., outside].sum() < 1e-4 * power.sum()
    assert 70 < drift_uv.abs().max() < 100


@pytest.mark.parametrize("kind", [GaussianNoise, BaselineWander, Powerline])
def test_limb_leads_go_on_obeying_einthoven(
    kind: type[GaussianNoise | BaselineWander | Powerline],
) -> None:
    augmentation = kind()
    added_uv = applied(augmentation, silence(6, SAMPLES), 250.0, randoms(augmentation)).signal_uv.numpy()
    assert np.abs(added_uv).max() > 1
    assert all(limb_residual_uv(one) < 1e-3 for one in added_uv)


def test_what_the_default_filter_would_leave_of_them_is_as_the_module_says() -> None:
    step = DeviceStep()
    band = Band(PackStep().rate_hz, step.highpass_hz, step.lowpass_hz, step.filter_order)
    _, response = freqz_sos(band.sections(), worN=[50.0, 60.0, 0.3], fs=band.rate_hz)
    np.testing.assert_allclose(np.abs(response) ** 2, [0.058, 0.005, 0.0003], rtol=0.1)


@pytest.mark.parametrize(
    ("augmentation", "sentence"),
    [
        (Powerline(), "augmentation powerline: 60 Hz cannot be told apart at 100 samples per second"),
        (BaselineWander(highest_hz=50), "augmentation baseline_wander: 50 Hz cannot be told apart at 100"),
    ],
)
def test_a_frequency_that_the_rate_cannot_hold_is_refused(
    augmentation: Powerline | BaselineWander, sentence: str
) -> None:
    augmentation.check(250.0)
    with pytest.raises(ConfigError, match=sentence):
        augmentation.check(100.0)
