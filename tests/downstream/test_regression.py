"""Figures of numbers: equal to scikit-learn, torchmetrics and loops; the ridge probe is chosen on validation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from torchmetrics.functional.regression import mean_absolute_error as torch_mae
from torchmetrics.functional.regression import mean_squared_error as torch_mse
from torchmetrics.functional.regression import r2_score as torch_r2

from ecgdist.downstream.bootstrap import FloatArray, Resamples
from ecgdist.downstream.regression import (
    NUMBER_METRICS,
    bootstrap_numbers,
    number_difference,
    number_figures,
    number_summary,
)
from ecgdist.downstream.ridge import RidgeResult, ridge_probe
from ecgdist.errors import DataError


def sample(rows: int = 200) -> tuple[FloatArray, FloatArray, list[str]]:
    rng = np.random.default_rng(0)
    truth = rng.normal(60, 15, rows)
    return truth, truth + rng.normal(2, 8, rows), [f"p{n}" for n in rng.integers(0, rows // 2, rows)]


def test_figures_equal_sklearn_torchmetrics_and_a_loop() -> None:
    truth, predicted, _ = sample()
    mae, rmse, r2 = number_figures(truth, predicted, np.ones((1, len(truth))))[0]
    assert mae == pytest.approx(mean_absolute_error(truth, predicted), abs=1e-12)
    assert rmse == pytest.approx(root_mean_squared_error(truth, predicted), abs=1e-12)
    assert r2 == pytest.approx(r2_score(truth, predicted), abs=1e-12)
    tensors = torch.from_numpy(predicted), torch.from_numpy(truth)
    assert mae == pytest.approx(float(torch_mae(*tensors)))
    assert rmse == pytest.approx(float(torch_mse(*tensors, squared=False)))
    assert r2 == pytest.approx(float(torch_r2(*tensors)))
    mean = sum(truth) / len(truth)
    squared = sum((p - t) ** 2 for p, t in zip(predicted, truth, strict=True))
    assert r2 == pytest.approx(1 - squared / sum((t - mean) ** 2 for t in truth), abs=1e-12)


def test_weights_are_repeated_records() -> None:
    truth, predicted, _ = sample()
    times = np.random.default_rng(1).integers(0, 4, len(truth))
    again = np.repeat(np.arange(len(truth)), times)
    found = number_figures(truth, predicted, times[None].astype(float))[0]
    expected = number_figures(truth[again], predicted[again], np.ones((1, len(again))))[0]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_perfect_predictor_and_the_mean() -> None:
    truth, _, patients = sample()
    drawn = Resamples.of(patients, 50, 0)
    perfect = number_summary(bootstrap_numbers(truth, truth, drawn))
    for metric, wanted in zip(NUMBER_METRICS, (0, 0, 1), strict=True):
        figure = getattr(perfect, metric)
        assert (figure.value, figure.low, figure.high) == (wanted, wanted, wanted)
    mean = number_summary(bootstrap_numbers(truth, np.full(len(truth), truth.mean()), drawn))
    assert mean.r2.value == pytest.approx(0, abs=1e-12)
    assert mean.rmse.value == pytest.approx(truth.std())
    blind = number_summary(bootstrap_numbers(truth, np.random.default_rng(5).permutation(truth), drawn))
    assert blind.r2.value == pytest.approx(-1, abs=0.4)


def test_one_number_for_all_is_refused() -> None:
    with pytest.raises(DataError, match="all test records have the same number"):
        bootstrap_numbers(np.full(5, 61.3), np.arange(5.0), Resamples.of(list("abcde"), 10, 0))


def test_intervals_are_those_of_a_loop_over_patients() -> None:
    truth, predicted, patients = sample(60)
    result = bootstrap_numbers(truth, predicted, Resamples.of(patients, 200, 3))
    names = sorted(set(patients))
    errors = []
    for resample in range(200):
        drawn = np.random.default_rng([3, resample]).integers(len(names), size=len(names))
        rows = [row for d in drawn for row, name in enumerate(patients) if name == names[d]]
        errors.append(mean_absolute_error(truth[rows], predicted[rows]))
    np.testing.assert_allclose(result.samples[:, 0], errors)
    figure = number_summary(result).mae
    assert (figure.low, figure.high) == pytest.approx(tuple(np.quantile(errors, [0.025, 0.975])))


def test_the_better_of_two_has_the_lower_error() -> None:
    truth, predicted, patients = sample()
    drawn = Resamples.of(patients, 200, 0)
    good, bad = (bootstrap_numbers(truth, each, drawn) for each in (predicted, 100 - predicted))
    difference, p_value = number_difference(good, bad)
    assert difference.mae.high < 0 < difference.r2.low
    assert p_value == pytest.approx(2 / 201)
    same, p_same = number_difference(good, good)
    assert (same.mae.low, same.mae.high, p_same) == (0, 0, 1)


def data(rows: int, seed: int) -> tuple[FloatArray, FloatArray]:
    """Feature 0 tells the number; the others are noise, on very different scales."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(rows, 10))
    return features * np.logspace(-3, 3, 10), 60 + 10 * features[:, 0] + rng.normal(0, 3, rows)


def probe(**changes: object) -> RidgeResult:
    (train, y_train), (validation, y_validation), (test, _) = data(200, 0), data(80, 1), data(90, 2)
    arguments = {
        "features_train": train,
        "y_train": y_train,
        "features_validation": validation,
        "y_validation": y_validation,
        "features_test": test,
    }
    return ridge_probe(**(arguments | changes))  # type: ignore[arg-type]


def test_the_probe_finds_what_the_features_tell_and_is_deterministic() -> None:
    assert r2_score(data(90, 2)[1], probe().test) > 0.85
    np.testing.assert_array_equal(probe().test, probe().test)


def test_the_probe_equals_the_closed_form_on_scaled_features() -> None:
    train, numbers = data(200, 0)
    scaled = (train - train.mean(axis=0)) / train.std(axis=0)
    weights = np.linalg.solve(scaled.T @ scaled + 100 * np.eye(10), scaled.T @ (numbers - numbers.mean()))
    test = (data(90, 2)[0] - train.mean(axis=0)) / train.std(axis=0)
    np.testing.assert_allclose(probe(grid=(100.0,)).test, test @ weights + numbers.mean(), rtol=1e-9)
    assert Ridge().fit(scaled, numbers).coef_ == pytest.approx(
        np.linalg.solve(scaled.T @ scaled + np.eye(10), scaled.T @ numbers)
    )


def test_regularisation_is_chosen_on_validation_and_not_on_test() -> None:
    alone = {strength: probe(grid=(strength,)).validation_rmse for strength in (1.0, 1e3, 1e6)}
    result = probe(grid=tuple(alone))
    assert result.validation_rmse == min(alone.values()) == alone[result.regularisation]
    other = probe(features_test=np.zeros((5, 10)))
    assert other.regularisation == probe().regularisation
    np.testing.assert_array_equal(other.validation, probe().validation)


def test_features_that_are_not_finite_are_refused() -> None:
    features = data(90, 2)[0]
    features[3, 0] = np.nan
    with pytest.raises(DataError, match="1 of 90 test records have features that are not finite"):
        probe(features_test=features)
