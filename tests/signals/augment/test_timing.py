"""Crop, silence and shift against a loop over records, leads and samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ecgdist.signals.augment import Rows, View
from ecgdist.signals.augment.timing import (
    ResizedCrop,
    TimeOut,
    TimeShift,
    resized_crop,
    time_out,
    time_shift,
)
from tests.signals.augment.batches import RATE_HZ, SAMPLES, Array, batch, randoms, rows

JUST_BELOW_1 = 1 - 2**-24


def keys(x: float) -> float:
    """Keys' kernel of cubic convolution, IEEE Trans. ASSP 29 (1981) 1153, equation 15."""
    x = abs(x)
    if x < 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def test_a_crop_is_interpolated_sample_by_sample() -> None:
    view, (uniform, _) = batch(), randoms(ResizedCrop())
    found = resized_crop(Rows(view), 0.5, uniform).of(view).signal_uv.numpy()
    for row, (signal_uv, valid, _) in enumerate(rows(view)):
        how_much, where = uniform[row].double().tolist()
        share = 1 / (1 + 0.5 * how_much)
        expected = np.zeros_like(signal_uv)
        for sample in range(valid):
            position = where * (1 - share) * (valid - 1) + sample * share
            for near in range(int(position) - 1, int(position) + 3):
                expected[:, sample] += keys(position - near) * signal_uv[:, min(max(near, 0), valid - 1)]
        np.testing.assert_allclose(found[row], expected, atol=1e-2)


@pytest.mark.parametrize(("hz", "off"), [(20, 0.0025), (40, 0.023)])
def test_a_stretched_sine_has_its_shape_and_a_lower_frequency(hz: float, off: float) -> None:
    """At 250 Hz, where straight lines would be off by 3 and 12 %."""
    time_s = np.arange(500) / 250
    sines = np.stack([np.sin(2 * np.pi * hz * time_s + phase) for phase in np.arange(12)])
    view = View(torch.from_numpy(sines[None]).float(), torch.tensor([500]), torch.ones(1, 12).bool())
    found = resized_crop(Rows(view), 0.25, torch.tensor([[JUST_BELOW_1, 0.0]])).of(view).signal_uv[0].numpy()
    expected = np.stack([np.sin(2 * np.pi * hz / 1.25 * time_s + phase) for phase in np.arange(12)])
    assert np.abs(found - expected)[:, 2:].max() < off


def test_a_crop_reaches_from_the_first_to_the_last_sample() -> None:
    ramp = torch.arange(SAMPLES, dtype=torch.float32).expand(2, 12, -1)
    view = View(ramp, torch.tensor([SAMPLES] * 2), torch.ones(2, 12).bool())
    uniform = torch.tensor([[JUST_BELOW_1, 0.0], [JUST_BELOW_1, JUST_BELOW_1]])
    first, last = resized_crop(Rows(view), 1.0, uniform).of(view).signal_uv[:, 0].numpy()
    assert first[0] == 0
    assert last[-1] == pytest.approx(SAMPLES - 1, abs=1e-3)
    np.testing.assert_allclose(np.diff(first[2:-2]), 0.5, atol=1e-3)


def test_silence_is_cut_out_of_each_record() -> None:
    view, (uniform, _) = batch(), randoms(TimeOut())
    found = time_out(Rows(view), RATE_HZ, 1.5, uniform).of(view).signal_uv.numpy()
    for row, (signal_uv, valid, _) in enumerate(rows(view)):
        length = min(round(float(uniform[row, 0].double()) * 1.5 * RATE_HZ), valid)
        start = int(float(uniform[row, 1].double()) * (valid - length + 1))
        expected = signal_uv.copy()
        for sample in range(start, start + length):
            expected[:, sample] = 0
        np.testing.assert_array_equal(found[row], expected.astype(np.float32))


def test_silence_is_as_long_as_it_says_and_lies_anywhere() -> None:
    ones = View(torch.ones(1000, 12, SAMPLES), torch.full((1000,), SAMPLES), torch.ones(1000, 12).bool())
    uniform = torch.from_numpy(np.random.default_rng(0).random((1000, 2), dtype=np.float32))
    uniform[:, 0] = JUST_BELOW_1
    silent = time_out(Rows(ones), RATE_HZ, 0.5, uniform).of(ones).signal_uv[:, 0] == 0
    assert (silent.sum(dim=1) == 0.5 * RATE_HZ).all()
    assert silent.any(dim=0).all()
    assert not silent.all(dim=0).any()
    longer = time_out(Rows(ones), RATE_HZ, 60.0, uniform).of(ones).signal_uv
    assert not longer.any(), "a silence longer than the record is the record"


def shifted(signal_uv: Array, valid: int, shift: int) -> Array:
    moved = np.zeros_like(signal_uv)
    for sample in range(valid):
        if 0 <= sample - shift < valid:
            moved[:, sample] = signal_uv[:, sample - shift]
    return moved


def test_a_shift_moves_samples_and_leaves_zeros() -> None:
    view, (uniform, _) = batch(), randoms(TimeShift())
    found = time_shift(Rows(view), RATE_HZ, 0.9, uniform).of(view)
    assert found.signal_uv.shape == view.signal_uv.shape
    shifts = [round((2 * float(u) - 1) * 0.9 * RATE_HZ) for u in uniform[:, 0].double()]
    assert min(shifts) < -10
    assert max(shifts) > 10
    for row, (signal_uv, valid, _) in enumerate(rows(view)):
        expected = shifted(signal_uv, valid, shifts[row])
        np.testing.assert_array_equal(found.signal_uv[row].numpy(), expected.astype(np.float32))


def test_a_shift_reaches_as_many_seconds_to_either_side() -> None:
    impulse = torch.zeros(2, 12, SAMPLES)
    impulse[:, :, 100] = 1
    view = View(impulse, torch.tensor([SAMPLES] * 2), torch.ones(2, 12).bool())
    uniform = torch.tensor([[0.0], [JUST_BELOW_1]])
    found = time_shift(Rows(view), RATE_HZ, 0.3, uniform).of(view).signal_uv[:, 0]
    assert found.argmax(dim=1).tolist() == [70, 130]
