"""Random draws depend on seed, step and position alone."""

from __future__ import annotations

import numpy as np

from ecgdist.streaming.draws import CROP_STUDENT, MASK, Draws


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
