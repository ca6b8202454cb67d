"""The learning rate is a function of the step alone."""

from __future__ import annotations

import math

import pytest

from ecgdist.models.config import EncoderConfig
from ecgdist.pretraining.config import OptimizerConfig
from ecgdist.pretraining.schedule import learning_rate_at, peak_learning_rate


def test_the_rate_rises_in_a_line_and_falls_along_half_a_cosine() -> None:
    rates = [learning_rate_at(step, 100, 0.5, 0.1) for step in range(100)]
    assert rates[:10] == pytest.approx([0.05 * (step + 1) for step in range(10)])
    expected = [0.5 * (1 + math.cos(math.pi * (step - 10) / 90)) / 2 for step in range(10, 100)]
    assert rates[10:] == pytest.approx(expected)


def test_the_first_step_learns_and_the_last_one_still_does() -> None:
    for total_steps in (1, 2, 7, 1000):
        for warmup_share in (0.0, 0.1, 0.99):
            rates = [learning_rate_at(step, total_steps, 1.0, warmup_share) for step in range(total_steps)]
            assert all(0 < rate <= 1 for rate in rates)


def test_the_peak_is_reached_once_the_warm_up_is_over() -> None:
    assert learning_rate_at(9, 100, 2.0, 0.1) == 2.0
    assert learning_rate_at(10, 100, 2.0, 0.1) == 2.0
    assert learning_rate_at(0, 100, 2.0, 0.0) == 2.0


def test_after_the_end_there_is_nothing_to_learn_with() -> None:
    assert learning_rate_at(100, 100, 2.0, 0.1) == pytest.approx(0)


def test_the_size_s_peak_grows_with_the_global_batch() -> None:
    encoder = EncoderConfig(size="base")
    assert peak_learning_rate(OptimizerConfig(), encoder, 256) == encoder.shape.peak_learning_rate
    assert peak_learning_rate(OptimizerConfig(), encoder, 1024) == 4 * encoder.shape.peak_learning_rate


def test_a_configured_peak_is_taken_as_it_is() -> None:
    assert peak_learning_rate(OptimizerConfig(learning_rate=0.02), EncoderConfig(), 1024) == 0.02
