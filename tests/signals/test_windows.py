"""Windows and their scale, against numpy row by row."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from ecgdist.signals.windows import _standardise_all, _standardise_some, cut_windows, standardise
from tests.signals.real_ecgs import signals_uv


def test_each_row_is_cut_at_its_own_start() -> None:
    x = torch.from_numpy(signals_uv(3))
    cut = cut_windows(x, torch.tensor([0, 7, 100]), 900)
    for row, start in enumerate((0, 7, 100)):
        assert torch.equal(cut[row], x[row, :, start : start + 900])


@pytest.mark.parametrize("start", [-1, 101])
def test_a_window_outside_the_segment_is_an_error(start: int) -> None:
    with pytest.raises(IndexError, match="out of bounds"):
        cut_windows(torch.zeros(1, 12, 1000), torch.tensor([start]), 900)


def test_standardise_uses_only_what_is_inside() -> None:
    x = signals_uv(5)
    rng = np.random.default_rng(0)
    leads = rng.random((5, 12)) < 0.7
    valid = rng.integers(300, 1000, 5)
    inside = leads[:, :, None] & (np.arange(1000) < valid[:, None])[:, None]
    scaled = standardise(
        torch.from_numpy(x).float(), torch.from_numpy(valid), torch.from_numpy(leads)
    ).numpy()
    for row in range(5):
        values = x[row][inside[row]]
        expected = np.where(inside[row], (x[row] - values.mean()) / values.std(), 0)
        np.testing.assert_allclose(scaled[row], expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_record_is_bit_equal_among_whole_and_padded_ones_and_the_input_stays(dtype: torch.dtype) -> None:
    x = torch.from_numpy(signals_uv(11)).to(dtype)
    valid, leads = torch.full((11,), 1000), torch.ones(11, 12, dtype=torch.bool)
    valid[3] = 600
    leads[9, 2] = False
    before = x.clone()
    together = standardise(x, valid, leads)
    for row in range(11):
        one = slice(row, row + 1)
        assert torch.equal(standardise(x[one], valid[one], leads[one])[0], together[row])
    assert torch.equal(x, before)
    in_place = x.float().contiguous()
    assert standardise(in_place, valid, leads, out=in_place) is in_place
    torch.testing.assert_close(in_place, together, rtol=0, atol=0 if dtype == torch.float32 else 1e-6)


def test_a_flat_or_empty_record_gives_zeros_and_noise_below_a_microvolt_is_not_blown_up() -> None:
    leads = torch.ones(4, 12, dtype=torch.bool)
    leads[1] = False
    x = torch.full((4, 12, 500), 40.0)
    x[2] += 0.01 * torch.sin(torch.arange(500.0))
    scaled = standardise(x, torch.tensor([500, 500, 500, 0]), leads)
    assert scaled.dtype == torch.float32
    assert not scaled[[0, 1, 3]].any()
    assert 0 < scaled[2].abs().max() < 0.02


@pytest.mark.parametrize("dtype", [torch.int16, torch.bfloat16, torch.float64])
def test_any_type_is_scaled_as_its_numbers(dtype: torch.dtype) -> None:
    x = torch.zeros(2, 12, 100)
    x[:, :, ::4], x[:, :, 1::4], x[:, :, 2::4], x[:, :, 3::4] = -30_000, 30_000, 12_000, 11_001
    x = x.to(dtype)
    valid, leads = torch.tensor([100, 60]), torch.ones(2, 12, dtype=torch.bool)
    scaled = standardise(x, valid, leads)
    assert scaled.dtype == torch.float32
    torch.testing.assert_close(scaled, standardise(x.double(), valid, leads), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("way", [_standardise_some, _standardise_all])
def test_an_offset_far_above_the_signal_costs_no_digits(way: Callable[..., None]) -> None:
    """Without a high-pass, an amplifier's offset of 30 mV stays; in float32 its samples are 1/512 microvolt apart."""
    x = torch.from_numpy(np.rint(signals_uv(5))).float() + 30_000
    valid, leads = torch.tensor([1000, 1000, 1000, 700, 1000]), torch.ones(5, 12, dtype=torch.bool)
    leads[1, :11] = False
    scaled = torch.empty(x.shape)
    way(x, valid, leads, scaled)
    for row in range(5):
        values = x[row, leads[row], : valid[row]].double()
        expected = (values - values.mean()) / values.std(correction=0)
        torch.testing.assert_close(
            scaled[row, leads[row], : valid[row]].double(), expected, rtol=1e-6, atol=1e-6
        )


def test_what_is_outside_may_be_anything_and_masks_give_the_same_as_rows() -> None:
    """Masks are for GPUs; here they run on the CPU."""
    x = torch.from_numpy(signals_uv(5)).float()
    valid, leads = torch.tensor([1000, 700, 1000, 300, 1000]), torch.ones(5, 12, dtype=torch.bool)
    leads[2, 3:] = False
    expected = standardise(x, valid, leads)
    x[1, :, 700:], x[2, 5], x[3, :, 300:] = torch.nan, torch.inf, 1e30
    masked = torch.empty(x.shape)
    _standardise_all(x, valid, leads, masked)
    for scaled in (standardise(x, valid, leads), masked):
        torch.testing.assert_close(scaled, expected, rtol=0, atol=1e-5)
        assert not scaled[1, :, 700:].any()
