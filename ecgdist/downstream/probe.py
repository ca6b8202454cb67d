"""The linear probe: one logistic regression per label on frozen features.

Everything is chosen without the test split: scaling on train, the regularisation on validation. The test features are
only predicted on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ecgdist.downstream.scores import BoolArray, FloatArray, auroc
from ecgdist.errors import DataError

INVERSE_REGULARISATION = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""The values of scikit-learn's C that the probe chooses from; a smaller one regularises more."""

# L-BFGS stops by itself long before; scikit-learn warns if it ever does not.
_MAX_ITERATIONS = 5000


@dataclass(frozen=True, kw_only=True)
class LabelPredictions:
    """What a predictor of labels says of two splits.

    Attributes:
        labels: in the order of the columns below.
        left_out: labels that it does not predict, with the reason.
        inverse_regularisation: of a probe, scikit-learn's C, chosen by the validation macro AUROC.
        validation_auroc: that macro AUROC.
        validation: ``(n, labels)`` probabilities.
        test: ``(n, labels)`` probabilities.
        scaler: of the features, fitted on train.
        models: the regression of each label, on scaled features.
    """

    labels: tuple[str, ...]
    left_out: dict[str, str]
    inverse_regularisation: float | None = None
    validation_auroc: float
    validation: FloatArray
    test: FloatArray


@dataclass(frozen=True, kw_only=True)
class ProbeResult(LabelPredictions):
    """A fitted probe with its predictions.

    Attributes:
        scaler: of the features, fitted on train.
        models: the regression of each label, on scaled features.
    """

    scaler: StandardScaler
    models: tuple[LogisticRegression, ...]

    def predict(self, features: npt.NDArray[np.floating]) -> FloatArray:
        """``(n, dim)`` features -> ``(n, labels)`` probabilities."""
        return _probabilities(self.models, self.scaler.transform(_checked("given", features)))


def linear_probe(
    features_train: npt.NDArray[np.floating],
    y_train: BoolArray,
    features_validation: npt.NDArray[np.floating],
    y_validation: BoolArray,
    features_test: npt.NDArray[np.floating],
    labels: Sequence[str],
    grid: Sequence[float] = INVERSE_REGULARISATION,
) -> ProbeResult:
    """Fit one logistic regression per label and predict validation and test. Deterministic.

    Args:
        features_train: ``(n, dim)`` frozen features, as for the other splits.
        y_train: ``(n, labels)``.
        features_validation: ``(n, dim)``.
        y_validation: ``(n, labels)``.
        features_test: ``(n, dim)``.
        labels: the name of each column of `y_train`.
        grid: values of C to choose from; of equally good ones, the smallest is taken.

    Raises:
        DataError: if a feature is not finite, no label can be fitted, or none can be judged on validation.
    """
    left_out = _one_class(y_train, labels)
    fitted = [i for i, label in enumerate(labels) if label not in left_out]
    if not fitted:
        raise DataError("no label has both positive and negative training records; train on more records")
    scaler, train, validation, test = scaled(features_train, features_validation, features_test)
    truth = y_validation[:, fitted]

    best: tuple[float, float, list[LogisticRegression]] | None = None
    for strength in sorted(grid):
        models = [_fit(train, y_train[:, i], strength) for i in fitted]
        judged = auroc(truth, _probabilities(models, validation))
        if np.isnan(judged).all():
            raise DataError("no label has both positive and negative validation records; use more of them")
        score = float(np.nanmean(judged))
        if best is None or score > best[0]:
            best = (score, strength, models)
    assert best is not None, "the grid is empty"
    score, strength, models = best
    probabilities = _probabilities(models, validation)
    return ProbeResult(
        labels=tuple(labels[i] for i in fitted),
        left_out=left_out,
        inverse_regularisation=strength,
        validation_auroc=score,
        validation=probabilities,
        test=_probabilities(models, test),
        scaler=scaler,
        models=tuple(models),
    )


def scaled(
    train: npt.NDArray[np.floating], validation: npt.NDArray[np.floating], test: npt.NDArray[np.floating]
) -> tuple[StandardScaler, FloatArray, FloatArray, FloatArray]:
    """What scales features to mean 0 and deviation 1 on train, and the scaled ``(n, dim)`` ones of the three splits.

    Raises:
        DataError: if a feature is not finite.
    """
    scaler = StandardScaler().fit(_checked("train", train))
    return (
        scaler,
        scaler.transform(_checked("train", train)),
        scaler.transform(_checked("validation", validation)),
        scaler.transform(_checked("test", test)),
    )


def _one_class(y_train: BoolArray, labels: Sequence[str]) -> dict[str, str]:
    positives = y_train.sum(axis=0)
    rows = len(y_train)
    return {
        label: f"{'all' if count else 'none'} of the {rows} training records {'have' if count else 'has'} it"
        for label, count in zip(labels, positives, strict=True)
        if count in (0, rows)
    }


def _checked(split: str, features: npt.NDArray[np.floating]) -> FloatArray:
    """The features in double precision, in which the fit converges on every machine alike."""
    bad = int((~np.isfinite(features)).any(axis=1).sum())
    if bad:
        raise DataError(
            f"{bad} of {len(features)} {split} records have features that are not finite; "
            "check the encoder's weights and those records"
        )
    return features.astype(np.float64)


def _fit(features: FloatArray, truth: BoolArray, strength: float) -> LogisticRegression:
    return LogisticRegression(C=strength, max_iter=_MAX_ITERATIONS).fit(features, truth)


def _probabilities(models: Sequence[LogisticRegression], features: FloatArray) -> FloatArray:
    return np.stack([model.predict_proba(features)[:, 1] for model in models], axis=1)
