"""Figures of a predictor of numbers, with bootstrap intervals, from plain arrays of truth and prediction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from ecgdist.downstream.bootstrap import Figure, Resamples, figure, p_value
from ecgdist.errors import DataError

NUMBER_METRICS = ("mae", "rmse", "r2")
NUMBER_METHOD = "95 % percentile interval of a bootstrap over test patients"

FloatArray = npt.NDArray[np.float64]


class NumberFigures(BaseModel):
    """The metrics of a predictor of numbers, or differences of two.

    Attributes:
        mae: mean absolute error, in the unit of the task.
        rmse: root of the mean squared error, in the same unit.
        r2: share of the variance that is explained: 1 is perfect, 0 is what predicting the mean gives.
    """

    model_config = ConfigDict(frozen=True)

    mae: Figure
    rmse: Figure
    r2: Figure


@dataclass(frozen=True)
class NumberBootstrap:
    """A predictor's figures on the test set and on resamples of it.

    Attributes:
        point: ``(3,)`` in the order of `NUMBER_METRICS`.
        samples: ``(resamples, 3)``; R2 is NaN where all records of a resample have one number.
        draw: what the resamples were drawn from; predictors with equal `draw` saw the same resamples.
    """

    point: FloatArray
    samples: FloatArray
    draw: tuple[int, int, int]


def number_figures(truth: FloatArray, predicted: FloatArray, weights: FloatArray) -> FloatArray:
    """The metrics under every weighting of the records.

    Args:
        truth: ``(n,)``.
        predicted: ``(n,)``.
        weights: ``(resamples, n)``.

    Returns:
        ``(resamples, 3)`` in the order of `NUMBER_METRICS`; R2 is NaN where all records have one number.
    """
    total = weights.sum(axis=1)
    error = predicted - truth
    absolute, squared = weights @ np.abs(error) / total, weights @ np.square(error) / total
    # About the mean of all, so that no digits are lost where the mean is large.
    centred = truth - truth.mean()
    variance = weights @ np.square(centred) / total - np.square(weights @ centred / total)
    has_spread = variance > 1e-12 * max(1.0, float(np.square(centred).max()))
    explained = np.full(len(weights), np.nan)
    explained[has_spread] = 1 - squared[has_spread] / variance[has_spread]
    return np.stack([absolute, np.sqrt(squared), explained], axis=1)


def bootstrap_numbers(truth: FloatArray, predicted: FloatArray, resamples: Resamples) -> NumberBootstrap:
    """Figures of a predictor on the test set and on resamples of its patients.

    Args:
        truth: ``(n,)``.
        predicted: ``(n,)``.
        resamples: of the patients of the ``n`` records.

    Raises:
        DataError: if all records have one number.
    """
    point = number_figures(truth, predicted, np.ones((1, len(truth))))[0]
    if np.isnan(point).any():
        raise DataError("all test records have the same number, so nothing can be said of a predictor")
    samples = resamples.figures(lambda weights: number_figures(truth, predicted, weights))
    return NumberBootstrap(point, samples, resamples.identity)


def number_summary(result: NumberBootstrap) -> NumberFigures:
    """The figures of one predictor with their intervals."""
    return _figures(result.point, result.samples)


def number_difference(ours: NumberBootstrap, other: NumberBootstrap) -> tuple[NumberFigures, float]:
    """`ours` minus `other` on the same resamples, and its p-value by mean absolute error."""
    assert ours.draw == other.draw, "the two predictors were not resampled alike"
    samples = ours.samples - other.samples
    return _figures(ours.point - other.point, samples), p_value(samples[:, 0])


def _figures(values: FloatArray, samples: FloatArray) -> NumberFigures:
    return NumberFigures(**{name: figure(values[m], samples[:, m]) for m, name in enumerate(NUMBER_METRICS)})
