"""Cutting and rounding."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ecgdist.signals.segments import segment_bounds, to_int16


@given(st.integers(0, 20_000), st.integers(1, 3000), st.integers(1, 3000))
def test_no_sample_is_lost_or_doubled(total: int, length: int, shortest: int) -> None:
    shortest = min(shortest, length)
    bounds, dropped = segment_bounds(total, length, shortest)
    covered = [sample for start, stop in bounds for sample in range(start, stop)]
    assert covered == list(range(total - dropped))
    assert all(stop - start == length for start, stop in bounds[:-1])
    assert all(shortest <= stop - start <= length for start, stop in bounds)
    assert 0 <= dropped < shortest


def test_a_remainder_is_kept_from_the_shortest_length_on() -> None:
    assert segment_bounds(3750, 2500, 1250) == ([(0, 2500), (2500, 3750)], 0)
    assert segment_bounds(3749, 2500, 1250) == ([(0, 2500)], 1249)
    assert segment_bounds(5000, 2500, 1250) == ([(0, 2500), (2500, 5000)], 0)


@given(st.lists(st.integers(-65_534, 65_534), min_size=1, max_size=50))
def test_halves_round_the_same_way_from_any_unit_and_float_type(half_uv: list[int]) -> None:
    exact = np.array(half_uv) / 2
    expected = np.rint(exact).astype(np.int16)
    for unit_in_uv in (1e-3, 1.0, 1e3, 1e6):
        np.testing.assert_array_equal(to_int16((exact / unit_in_uv) * unit_in_uv), expected)
    in_mv = (exact / 1000).astype(np.float32)
    np.testing.assert_array_equal(to_int16(in_mv.astype(np.float64) * 1000), expected)


def test_the_range_of_int16_is_reached() -> None:
    assert to_int16(np.array([-32767.0, 32767.0, 0.49, -0.51])).tolist() == [-32767, 32767, 0, -1]
