"""Random draws depend on seed, step and position alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.special import ndtri
from scipy.stats import kstest

from ecgdist.streaming.draws import CROP_STUDENT, MASK, Draws, Stream, hashed, quantiles


def test_any_split_of_positions_draws_the_same() -> None:
    draws = Draws(seed=3, global_batch=12)
    whole = draws.uniform(MASK, 7, np.arange(12), 5)
    parts = [draws.uniform(MASK, 7, part, 5) for part in np.array_split(np.arange(12), 5)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_step_seed_and_stream_change_the_draw() -> None:
    every = np.arange(8)
    base = Draws(0, 8).uniform(MASK, 0, every, 4)
    assert not np.array_equal(base, Draws(0, 8).uniform(MASK, 1, every, 4))
    assert not np.array_equal(base, Draws(1, 8).uniform(MASK, 0, every, 4))
    assert not np.array_equal(base, Draws(0, 8).uniform(CROP_STUDENT, 0, every, 4))


def test_integers_cover_their_range_and_stay_in_it() -> None:
    draws = Draws(0, 1000)
    below = np.tile(np.array([1, 3, 251]), 334)[:1000]
    drawn = draws.integers(CROP_STUDENT, 5, np.arange(1000), below)
    assert (drawn >= 0).all()
    assert (drawn < below).all()
    assert set(drawn[below == 3].tolist()) == {0, 1, 2}
    assert drawn[below == 251].max() > 200


def draw_normal(
    positions: npt.NDArray[np.int64], width: int, seed: int = 3, stream: Stream = (1, 2), step: int = 7
) -> npt.NDArray[np.float32]:
    return Draws(seed, 64).normal(stream, step, positions, width, torch.device("cpu")).numpy()


def test_normal_numbers_are_splitmix64_number_by_number() -> None:
    found = draw_normal(np.array([5]), 6)[0]
    (key,) = np.random.SeedSequence(3, spawn_key=(1, 2, 7)).generate_state(1, np.uint64)

    def mix(number: int) -> int:
        number = (number ^ (number >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        number = (number ^ (number >> 27)) * 0x94D049BB133111EB % 2**64
        return number ^ (number >> 31)

    step = 0x9E3779B97F4A7C15
    row = mix((int(key) + 5 * step) % 2**64)
    words = [mix((row + number * step) % 2**64) for number in range(2)]
    parts = [word >> shift & 0xFFFF for word in words for shift in (0, 16, 32, 48)]
    # As signed numbers: the upper half comes first.
    quantiles = [((part + 2**15) % 2**16 + 0.5) / 2**16 for part in parts[:6]]
    np.testing.assert_allclose(found, ndtri(quantiles), rtol=1e-4)


def test_normal_numbers_are_normal_and_independent() -> None:
    drawn = draw_normal(np.arange(64), 20_000).astype(np.float64)
    error = 1 / np.sqrt(drawn.size)
    assert abs(drawn.mean()) < 4 * error
    assert abs(drawn.var() - 1) < 4 * np.sqrt(2) * error
    assert kstest(drawn.flatten(), "norm").pvalue > 0.001
    for along_time in (1, 2, 3, 4, 5, 8):
        assert abs((drawn[:, along_time:] * drawn[:, :-along_time]).mean()) < 4 * error
    assert abs((drawn[1:] * drawn[:-1]).mean()) < 4 * error


def test_normal_numbers_depend_on_seed_stream_step_and_position_alone() -> None:
    every = np.arange(12)
    whole = draw_normal(every, 10)
    parts = [draw_normal(part, 10) for part in np.array_split(every, 5)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    np.testing.assert_array_equal(draw_normal(every[::-1], 10), whole[::-1])
    np.testing.assert_array_equal(draw_normal(every, 7), whole[:, :7])
    assert len(np.unique(whole[:, 0])) == 12
    for other in (
        draw_normal(every, 10, seed=4),
        draw_normal(every, 10, stream=(1, 3)),
        draw_normal(every, 10, stream=(2, 2)),
        draw_normal(every, 10, stream=1),
        draw_normal(every, 10, step=8),
    ):
        assert (other != whole).mean() > 0.99


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_normal_numbers_have_the_same_bits_on_a_gpu() -> None:
    on_gpu = Draws(3, 64).normal((1, 2), 7, np.arange(12), 1001, torch.device("cuda")).cpu().numpy()
    np.testing.assert_array_equal(on_gpu, draw_normal(np.arange(12), 1001))


def test_streams_with_parts_are_told_apart() -> None:
    every, draws = np.arange(8), Draws(0, 8)
    drawn = [
        draws.uniform(stream, 0, every, 4) for stream in (103, (103, 0), (103, 0, 0), (103, 1), (104, 0))
    ]
    assert len({numbers.tobytes() for numbers in drawn}) == 5


@pytest.mark.parametrize(("distribution", "law"), [("uniform", "uniform"), ("gumbel", "gumbel_r")])
def test_hashed_numbers_stand_for_quantiles_of_a_distribution(distribution: str, law: str) -> None:
    seeds = torch.from_numpy(Draws(3, 64).seeds(MASK, 7, np.arange(64)))
    integers = hashed(seeds, 5001)
    assert integers.shape == (64, 5001)
    assert (integers.min(), integers.max()) == (0, 2**16 - 1)
    numbers = quantiles(distribution, integers)
    assert kstest(numbers.flatten().numpy(), law).pvalue > 0.001
    middle = (integers[0, :4].double() + 0.5) / 2**16
    expected = middle if distribution == "uniform" else -(-middle.log()).log()
    torch.testing.assert_close(numbers[0, :4].double(), expected, rtol=1e-5, atol=1e-6)


def test_seeds_depend_on_seed_stream_step_and_position_alone() -> None:
    every = np.arange(12)
    whole = Draws(3, 64).seeds(MASK, 7, every)
    parts = [Draws(3, 64).seeds(MASK, 7, part) for part in np.array_split(every, 5)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    others = [
        Draws(4, 64).seeds(MASK, 7, every),
        Draws(3, 64).seeds(CROP_STUDENT, 7, every),
        Draws(3, 64).seeds(MASK, 8, every),
    ]
    assert len({*whole.tolist(), *np.concatenate(others).tolist()}) == 48
    torch.testing.assert_close(
        hashed(torch.from_numpy(whole), 9)[4:6], hashed(torch.from_numpy(whole[4:6]), 9)
    )
