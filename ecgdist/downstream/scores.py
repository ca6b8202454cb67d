"""AUROC, AUPRC and F1 per label, on many weightings of the same rows at once.

A bootstrap resample is a weighting: a row drawn twice has weight 2, a row not drawn weight 0. So the rows of
a label are sorted once, and the figures of all resamples follow from cumulative sums.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

METRICS = ("auroc", "auprc", "f1")

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


def label_figures(
    truth: BoolArray, score: FloatArray, thresholds: FloatArray, weights: FloatArray
) -> FloatArray:
    """The metrics of every label under every weighting of the rows.

    Args:
        truth: ``(n, labels)``.
        score: ``(n, labels)``, higher is more likely.
        thresholds: ``(labels,)``; a label is predicted where its score is at least its threshold.
        weights: ``(resamples, n)``.

    Returns:
        ``(resamples, labels, 3)`` in the order of `METRICS`; NaN where a label has one class only.
    """
    result = np.full((len(weights), truth.shape[1], len(METRICS)), np.nan)
    for label in range(truth.shape[1]):
        curve = _Curve.of(truth[:, label], score[:, label], weights)
        both = (curve.hits[:, -1] > 0) & (curve.alarms[:, -1] > 0)
        figures = np.stack([curve.auroc(), curve.auprc(), curve.f1_at(float(thresholds[label]))], axis=1)
        result[both, label] = figures[both]
    return result


def auroc(truth: BoolArray, score: FloatArray) -> FloatArray:
    """``(labels,)`` areas under the ROC curves of ``(n, labels)`` scores; NaN where a label has one class."""
    thresholds = np.zeros(truth.shape[1])
    return label_figures(truth, score, thresholds, np.ones((1, len(truth))))[0, :, 0]


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
        reached = int((self.scores >= threshold).sum())
        if reached == 0:
            return np.zeros(len(self.hits))
        return self.f1()[:, reached - 1]


def ratio(above: FloatArray, below: npt.ArrayLike, where_empty: float = np.nan) -> FloatArray:
    """`above` / `below`, and `where_empty` where `below` is 0."""
    divisor = np.asarray(below, dtype=np.float64)
    quotient = np.full(np.shape(above), where_empty)
    np.divide(above, divisor, out=quotient, where=divisor != 0)
    return quotient
