"""Calibration: equal to torchmetrics, scikit-learn and loops; what perfect, random and constant predictors get."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss
from torchmetrics.functional.classification import binary_calibration_error

from ecgdist.downstream.calibration import (
    BINS,
    BoolArray,
    FloatArray,
    brier,
    expected_calibration_error,
    reliability,
)


def sample(rows: int = 400, seed: int = 0) -> tuple[BoolArray, FloatArray]:
    rng = np.random.default_rng(seed)
    probability = rng.random(rows)
    return rng.random(rows) < probability**2, probability


def ece(truth: BoolArray, probability: FloatArray) -> float:
    return float(expected_calibration_error(truth, probability, np.ones((1, len(truth))))[0])


def test_it_equals_torchmetrics_and_a_loop() -> None:
    truth, probability = sample()
    theirs = binary_calibration_error(
        torch.from_numpy(probability), torch.from_numpy(truth).long(), n_bins=BINS, norm="l1"
    )
    assert ece(truth, probability) == pytest.approx(float(theirs), abs=1e-6)
    error = 0.0
    for number in range(BINS):
        inside = [i for i, p in enumerate(probability) if number / BINS <= p < (number + 1) / BINS]
        if inside:
            share = sum(truth[i] for i in inside) / len(inside)
            mean = sum(probability[i] for i in inside) / len(inside)
            error += len(inside) / len(truth) * abs(share - mean)
    assert ece(truth, probability) == pytest.approx(error, abs=1e-12)


def test_weights_are_repeated_records() -> None:
    truth, probability = sample()
    times = np.random.default_rng(1).integers(0, 4, len(truth))
    again = np.repeat(np.arange(len(truth)), times)
    weighted = expected_calibration_error(truth, probability, times[None].astype(float))[0]
    assert weighted == pytest.approx(ece(truth[again], probability[again]), abs=1e-12)
    score = brier(truth, probability, times[None].astype(float))[0]
    assert score == pytest.approx(brier_score_loss(truth[again], probability[again]), abs=1e-12)


def test_perfect_and_constant_predictors() -> None:
    truth, _ = sample()
    assert ece(truth, truth.astype(float)) == 0.0
    assert ece(truth, np.full(len(truth), truth.mean())) == pytest.approx(0, abs=1e-12)
    assert ece(truth, np.full(len(truth), 0.25)) == pytest.approx(abs(truth.mean() - 0.25))
    assert ece(truth, 1.0 - truth) == 1.0
    blind = np.random.default_rng(3).random(50_000)
    half = np.random.default_rng(4).random(50_000) < 0.5
    assert ece(half, blind) == pytest.approx(0.25, abs=0.01)


def test_the_edges_belong_to_a_bin() -> None:
    truth = np.array([True, False, True])
    diagram = reliability(truth, np.array([0.0, 1 / BINS, 1.0]), "AF")
    assert [each.probability for each in diagram.bins] == [0.0, pytest.approx(1 / BINS), 1.0]
    assert ece(truth, np.array([0.0, 0.0, 1.0])) == pytest.approx(1 / 3)


def test_what_is_no_probability_is_refused() -> None:
    for wrong in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match="from 0 to 1"):
            ece(np.array([True]), np.array([wrong]))


def test_the_diagram_is_that_of_sklearn_and_adds_up_to_the_error() -> None:
    truth, probability = sample()
    diagram = reliability(truth, probability, "AF")
    share, mean = calibration_curve(truth, probability, n_bins=BINS)
    np.testing.assert_allclose([each.positives for each in diagram.bins], share)
    np.testing.assert_allclose([each.probability for each in diagram.bins], mean)
    assert sum(each.records for each in diagram.bins) == len(truth)
    total = sum(each.records * abs(each.positives - each.probability) for each in diagram.bins)
    assert total / len(truth) == pytest.approx(ece(truth, probability), abs=1e-12)
