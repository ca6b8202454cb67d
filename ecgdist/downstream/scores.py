"""Figures per label, on many weightings of the same records at once.

A bootstrap resample is a weighting: a record drawn twice has weight 2, one not drawn weight 0. So the records of
a label are sorted once, and the figures of all resamples follow from cumulative sums.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ecgdist.downstream.calibration import brier, expected_calibration_error

METRICS = ("auroc", "auprc", "f1", "sensitivity", "specificity", "ece", "brier")
"""F1 is at one threshold, sensitivity and specificity are at another; both are chosen on validation."""

SPECIFICITY = 0.9
"""The specificity on validation at which sensitivity is reported, unless another one is asked for."""

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Thresholds:
    """Where a label is predicted: where its score is at least the threshold. Chosen on validation.

    Attributes:
        f1: ``(labels,)``, for F1.
        specificity: ``(labels,)``, for sensitivity and specificity.
    """

    f1: FloatArray
    specificity: FloatArray

    @classmethod
    def chosen(cls, truth: BoolArray, score: FloatArray, specificity: float = SPECIFICITY) -> Thresholds:
        """The thresholds by ``(n, labels)`` truth and scores of the validation split."""
        return cls(best_f1_thresholds(truth, score), specificity_thresholds(truth, score, specificity))


def label_figures(
    truth: BoolArray, score: FloatArray, thresholds: Thresholds, weights: FloatArray
) -> FloatArray:
    """The metrics of every label under every weighting of the records.

    Args:
        truth: ``(n, labels)``.
        score: ``(n, labels)`` probabilities.
        thresholds: of ``labels``.
        weights: ``(resamples, n)``.

    Returns:
        ``(resamples, labels, 7)`` in the order of `METRICS`; NaN where a label has one class only.
    """
    result = np.full((len(weights), truth.shape[1], len(METRICS)), np.nan)
    for label in range(truth.shape[1]):
        true, scored = truth[:, label], score[:, label]
        curve = _Curve.of(true, scored, weights)
        cut = float(thresholds.specificity[label])
        figures = (
            curve.auroc(),
            curve.auprc(),
            curve.f1_at(float(thresholds.f1[label])),
            curve.sensitivity_at(cut),
            curve.specificity_at(cut),
            expected_calibration_error(true, scored, weights),
            brier(true, scored, weights),
        )
        both = curve.has_both_classes()
        result[both, label] = np.stack(figures, axis=1)[both]
    return result


def auroc_figures(truth: BoolArray, score: FloatArray, weights: FloatArray) -> FloatArray:
    """``(resamples, labels)`` areas under the ROC curves; NaN where a label has one class only.

    Args:
        truth: ``(n, labels)``.
        score: ``(n, labels)``, higher is more likely.
        weights: ``(resamples, n)``.
    """
    result = np.full((len(weights), truth.shape[1]), np.nan)
    for label in range(truth.shape[1]):
        curve = _Curve.of(truth[:, label], score[:, label], weights)
        both = curve.has_both_classes()
        result[both, label] = curve.auroc()[both]
    return result


def auroc(truth: BoolArray, score: FloatArray) -> FloatArray:
    """``(labels,)`` areas under the ROC curves of ``(n, labels)`` scores; NaN where a label has one class."""
    areas: FloatArray = auroc_figures(truth, score, np.ones((1, len(truth))))[0]
    return areas


def best_f1_thresholds(truth: BoolArray, score: FloatArray) -> FloatArray:
    """Per label, the score whose use as a threshold has the highest F1; of equals, the highest score.

    Args:
        truth: ``(n, labels)`` of the validation split.
        score: ``(n, labels)``.

    Returns:
        ``(labels,)``; 0.5 for a label without positives, for which every threshold has the same F1.
    """
    chosen = np.full(truth.shape[1], 0.5)
    for label in np.flatnonzero(truth.any(axis=0)):
        curve = _Curve.of(truth[:, label], score[:, label], np.ones((1, len(truth))))
        chosen[label] = curve.scores[np.argmax(curve.f1()[0])]
    return chosen


def specificity_thresholds(
    truth: BoolArray, score: FloatArray, specificity: float = SPECIFICITY
) -> FloatArray:
    """Per label, the lowest score whose use as a threshold has at least a specificity: it finds most positives.

    Args:
        truth: ``(n, labels)`` of the validation split.
        score: ``(n, labels)``.
        specificity: share of the negatives that must be below the threshold.

    Returns:
        ``(labels,)``; just above the highest score where no score will do, and 0.5 for a label without negatives.
    """
    chosen = np.full(truth.shape[1], 0.5)
    for label in np.flatnonzero(~truth.all(axis=0)):
        curve = _Curve.of(truth[:, label], score[:, label], np.ones((1, len(truth))))
        # By counts: 1 - specificity is rarely exact.
        right = curve.alarms[0, -1] - curve.alarms[0]
        fits = np.flatnonzero(right >= specificity * curve.alarms[0, -1] - 1e-9)
        chosen[label] = curve.scores[fits[-1]] if len(fits) else np.nextafter(curve.scores[0], np.inf)
    return chosen


@dataclass(frozen=True)
class _Curve:
    """Weighted counts of positives and negatives with a score of at least each distinct score.

    Attributes:
        scores: ``(g,)`` distinct scores, falling.
        hits: ``(resamples, g)`` weight of positives at or above the score.
        alarms: ``(resamples, g)`` weight of negatives at or above the score.
    """

    scores: FloatArray
    hits: FloatArray
    alarms: FloatArray

    @classmethod
    def of(cls, truth: BoolArray, score: FloatArray, weights: FloatArray) -> _Curve:
        order = np.argsort(-score, kind="stable")
        falling = score[order]
        last_of_ties = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))
        ordered = weights[:, order]
        hits = np.cumsum(ordered * truth[order], axis=1)[:, last_of_ties]
        alarms = np.cumsum(ordered * ~truth[order], axis=1)[:, last_of_ties]
        return cls(falling[last_of_ties], hits, alarms)

    def auroc(self) -> FloatArray:
        """``(resamples,)``: the share of (positive, negative) pairs in the right order, ties counting half.

        This is the Mann-Whitney statistic (Hanley and McNeil, Radiology 143, 1982).
        """
        tied_hits = np.diff(self.hits, prepend=0.0)
        tied_alarms = np.diff(self.alarms, prepend=0.0)
        right = (tied_alarms * (self.hits - tied_hits / 2)).sum(axis=1)
        return ratio(right, self.hits[:, -1] * self.alarms[:, -1])

    def auprc(self) -> FloatArray:
        """``(resamples,)``: average precision, sum over thresholds of precision times the recall it adds."""
        precision = ratio(self.hits, self.hits + self.alarms, where_empty=0.0)
        added = np.diff(self.hits, prepend=0.0)
        return ratio((added * precision).sum(axis=1), self.hits[:, -1])

    def f1(self) -> FloatArray:
        """``(resamples, g)``: F1 = 2 TP / (2 TP + FP + FN) with each distinct score as the threshold."""
        return ratio(2 * self.hits, self.hits + self.alarms + self.hits[:, -1:])

    def f1_at(self, threshold: float) -> FloatArray:
        """``(resamples,)``: F1 where a score of at least `threshold` is a prediction."""
        hits, alarms = self._at(threshold)
        return ratio(2 * hits, hits + alarms + self.hits[:, -1], where_empty=0.0)

    def sensitivity_at(self, threshold: float) -> FloatArray:
        """``(resamples,)``: share of the positives with a score of at least `threshold`."""
        return ratio(self._at(threshold)[0], self.hits[:, -1])

    def specificity_at(self, threshold: float) -> FloatArray:
        """``(resamples,)``: share of the negatives with a score below `threshold`."""
        return ratio(self.alarms[:, -1] - self._at(threshold)[1], self.alarms[:, -1])

    def has_both_classes(self) -> BoolArray:
        """``(resamples,)``, True where there are positives and negatives."""
        both: BoolArray = (self.hits[:, -1] > 0) & (self.alarms[:, -1] > 0)
        return both

    def _at(self, threshold: float) -> tuple[FloatArray, FloatArray]:
        """``(resamples,)`` weights of positives and of negatives with a score of at least `threshold`."""
        reached = int((self.scores >= threshold).sum())
        if reached == 0:
            return np.zeros(len(self.hits)), np.zeros(len(self.hits))
        return self.hits[:, reached - 1], self.alarms[:, reached - 1]


def ratio(above: FloatArray, below: npt.ArrayLike, where_empty: float = np.nan) -> FloatArray:
    """`above` / `below`, and `where_empty` where `below` is 0."""
    divisor = np.asarray(below, dtype=np.float64)
    quotient = np.full(np.shape(above), where_empty)
    np.divide(above, divisor, out=quotient, where=divisor != 0)
    return quotient
