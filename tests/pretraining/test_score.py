"""What a checkpoint is judged by."""

from __future__ import annotations

import pytest

from ecgdist.pretraining.config import KeepBest
from ecgdist.pretraining.score import ScoreMean


def test_it_is_the_mean_since_the_last_checkpoint() -> None:
    score = ScoreMean(KeepBest(metric="contrastive"))
    for value in (1.0, 2.0, 6.0):
        score.add(100.0, {"contrastive": value, "reconstruction": 50.0})
    assert score.take() == pytest.approx(3.0)
    assert score.take() is None
    score.add(100.0, {"contrastive": 4.0})
    assert score.take() == 4.0


def test_the_loss_is_a_value_too_and_nothing_is_measured_unless_asked_for() -> None:
    asked, not_asked = ScoreMean(KeepBest()), ScoreMean(None)
    for score in (asked, not_asked):
        score.add(2.5, {})
    assert asked.take() == 2.5
    assert not_asked.take() is None
