"""Calibration: whether what is called 30 % probable is true 30 % of the time.

The probabilities of a label fall into bins of equal width. The expected calibration error (ECE; Naeini et al., AAAI
2015, in its form for one label) is the mean distance of a bin's share of positives from its mean probability, weighted
by the records in the bin. The Brier score (Brier, Monthly Weather Review 78, 1950) is the mean squared distance of
probability and truth.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

BINS = 15

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]


class ReliabilityBin(BaseModel):
    """One bin of a reliability diagram that holds at least one record."""

    model_config = ConfigDict(frozen=True)

    records: int
    probability: float
    """Mean of the predicted ones."""
    positives: float
    """Share of the records that are positive."""


class Reliability(BaseModel):
    """The reliability diagram of one label, bins with rising probability."""

    model_config = ConfigDict(frozen=True)

    label: str
    bins: tuple[ReliabilityBin, ...]


def brier(truth: BoolArray, probability: FloatArray, weights: FloatArray) -> FloatArray:
    """``(resamples,)`` Brier scores of ``(n,)`` probabilities under ``(resamples, n)`` weights."""
    score: FloatArray = (weights @ np.square(probability - truth)) / weights.sum(axis=1)
    return score


def expected_calibration_error(truth: BoolArray, probability: FloatArray, weights: FloatArray) -> FloatArray:
    """``(resamples,)`` expected calibration errors of ``(n,)`` probabilities under ``(resamples, n)`` weights.

    It is never negative, so chance raises it: on resamples it is on average larger than on the set itself, and its
    interval leans upward.

    Raises:
        ValueError: if something is no probability.
    """
    in_bin = np.eye(BINS)[_bins_of(probability)]
    # Weight of a bin times (share of positives - mean probability) is the weighted sum of truth - probability.
    gap = np.abs(weights @ (in_bin * (truth - probability)[:, None]))
    error: FloatArray = gap.sum(axis=1) / weights.sum(axis=1)
    return error


def reliability(truth: BoolArray, probability: FloatArray, label: str) -> Reliability:
    """The reliability diagram of ``(n,)`` probabilities."""
    bins = _bins_of(probability)
    return Reliability(
        label=label,
        bins=tuple(
            ReliabilityBin(
                records=int((bins == number).sum()),
                probability=float(probability[bins == number].mean()),
                positives=float(truth[bins == number].mean()),
            )
            for number in np.unique(bins).tolist()
        ),
    )


def _bins_of(probability: FloatArray) -> npt.NDArray[np.int64]:
    """``(n,)`` bin numbers; bin b holds what is at least b / BINS and below (b + 1) / BINS, the last one 1, too."""
    if not ((probability >= 0) & (probability <= 1)).all():
        raise ValueError("calibration is defined for probabilities, from 0 to 1")
    edges = np.linspace(0, 1, BINS + 1)
    return np.minimum(np.searchsorted(edges, probability, side="right") - 1, BINS - 1)
