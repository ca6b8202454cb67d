"""The linear probe of a number: a ridge regression on frozen features.

As in `probe`, everything is chosen without the test split: scaling on train, the regularisation on validation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import Ridge

from ecgdist.downstream.probe import scaled
from ecgdist.downstream.scores import FloatArray

REGULARISATION = (1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6)
"""The values of scikit-learn's alpha that the probe chooses from; a larger one regularises more."""


@dataclass(frozen=True)
class RidgeResult:
    """A fitted ridge regression, seen through its predictions.

    Attributes:
        regularisation: scikit-learn's alpha, chosen by the validation root mean squared error.
        validation_rmse: that error.
        validation: ``(n,)`` predictions.
        test: ``(n,)`` predictions.
    """

    regularisation: float
    validation_rmse: float
    validation: FloatArray
    test: FloatArray


def ridge_probe(
    features_train: npt.NDArray[np.floating],
    y_train: FloatArray,
    features_validation: npt.NDArray[np.floating],
    y_validation: FloatArray,
    features_test: npt.NDArray[np.floating],
    grid: Sequence[float] = REGULARISATION,
) -> RidgeResult:
    """Fit a ridge regression and predict validation and test. Deterministic.

    Args:
        features_train: ``(n, dim)`` frozen features, as for the other splits.
        y_train: ``(n,)``.
        features_validation: ``(n, dim)``.
        y_validation: ``(n,)``.
        features_test: ``(n, dim)``.
        grid: values of alpha to choose from; of equally good ones, the largest is taken.

    Raises:
        DataError: if a feature is not finite.
    """
    _, train, validation, test = scaled(features_train, features_validation, features_test)
    best: tuple[float, float, Ridge] | None = None
    for strength in sorted(grid, reverse=True):
        model = Ridge(alpha=strength).fit(train, y_train)
        rmse = float(np.sqrt(np.square(model.predict(validation) - y_validation).mean()))
        if best is None or rmse < best[0]:
            best = (rmse, strength, model)
    assert best is not None, "the grid is empty"
    rmse, strength, model = best
    return RidgeResult(strength, rmse, model.predict(validation), model.predict(test))
