"""Macro and per-label figures of a multilabel predictor, with bootstrap intervals, from plain arrays.

A label without positives or without negatives in a resample has no figures there and is left out of that
resample's macro mean. Labels with fewer than `FEW_POSITIVES` test positives count in the macro mean over all
labels; a second macro mean leaves them out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

from ecgdist.downstream.bootstrap import Figure, Resamples, figure, p_value
from ecgdist.downstream.scores import METRICS, BoolArray, FloatArray, Thresholds, label_figures, ratio
from ecgdist.errors import DataError

FEW_POSITIVES = 10
BOOTSTRAP_METHOD = (
    "95 % percentile interval of a bootstrap over test patients; a label that lacks positives or negatives "
    "in a resample is left out of that resample's macro mean"
)


class Figures(BaseModel):
    """The metrics of a label, or of a mean over labels, or differences of such.

    Attributes:
        auroc: area under the ROC curve, ties counting half.
        auprc: average precision.
        f1: at the threshold with the highest F1 on validation.
        sensitivity: at the threshold with the wanted specificity on validation.
        specificity: at that threshold, which on test need not be the wanted one.
        ece: expected calibration error.
        brier: Brier score.
    """

    model_config = ConfigDict(frozen=True)

    auroc: Figure
    auprc: Figure
    f1: Figure
    sensitivity: Figure
    specificity: Figure
    ece: Figure
    brier: Figure


class Macro(Figures):
    """Unweighted means over labels, or differences of such means."""

    labels: tuple[str, ...]


class LabelFigures(Figures):
    """One label of one predictor, and the two thresholds, which were chosen on the validation split."""

    label: str
    positives: int
    negatives: int
    f1_threshold: float
    specificity_threshold: float


class Metrics(BaseModel):
    """All figures of one predictor.

    Attributes:
        macro: means over every label that has positives and negatives in the test split.
        macro_common: the same over labels with at least `FEW_POSITIVES` test positives; None if none has.
        labels: one entry per label in `macro`.
        few: labels in `macro` with fewer than `FEW_POSITIVES` test positives.
        one_class: labels without test positives or without test negatives; they have no figures.
        resamples: number of bootstrap resamples.
        incomplete_resamples: resamples in which at least one label was left out.
    """

    model_config = ConfigDict(frozen=True)

    macro: Macro
    macro_common: Macro | None
    labels: tuple[LabelFigures, ...]
    few: tuple[str, ...]
    one_class: tuple[str, ...]
    resamples: int
    incomplete_resamples: int


@dataclass(frozen=True)
class Bootstrap:
    """A predictor's figures on the test set and on resamples of it; NaN where a label has one class only.

    Attributes:
        point: ``(labels, 7)`` in the order of `METRICS`.
        samples: ``(resamples, labels, 7)``.
        draw: what the resamples were drawn from; predictors with equal `draw` saw the same resamples.
    """

    point: FloatArray
    samples: FloatArray
    draw: tuple[int, int, int]


def bootstrap(truth: BoolArray, score: FloatArray, thresholds: Thresholds, resamples: Resamples) -> Bootstrap:
    """Figures of a predictor on the test set and on resamples of its patients.

    Args:
        truth: ``(n, labels)``.
        score: ``(n, labels)`` probabilities.
        thresholds: of the labels.
        resamples: of the patients of the ``n`` records.
    """
    point = label_figures(truth, score, thresholds, np.ones((1, len(truth))))[0]
    samples = resamples.figures(lambda weights: label_figures(truth, score, thresholds, weights))
    return Bootstrap(point, samples, resamples.identity)


def summarise(result: Bootstrap, truth: BoolArray, thresholds: Thresholds, labels: Sequence[str]) -> Metrics:
    """The figures of one predictor with their intervals.

    Raises:
        DataError: if no label has both positives and negatives in the test set.
    """
    usable = ~np.isnan(result.point[:, 0])
    if not usable.any():
        raise DataError("no label has both positive and negative test records; use a larger test split")
    positives = truth.sum(axis=0)
    common = usable & (positives >= FEW_POSITIVES)
    rows = tuple(
        LabelFigures(
            label=labels[i],
            positives=int(positives[i]),
            negatives=int(len(truth) - positives[i]),
            f1_threshold=float(thresholds.f1[i]),
            specificity_threshold=float(thresholds.specificity[i]),
            **_figures(result.point[i], result.samples[:, i]),
        )
        for i in np.flatnonzero(usable).tolist()
    )
    return Metrics(
        macro=_macro(result.point, result.samples, usable, labels),
        macro_common=_macro(result.point, result.samples, common, labels) if common.any() else None,
        labels=rows,
        few=_named(labels, usable & ~common),
        one_class=_named(labels, ~usable),
        resamples=len(result.samples),
        incomplete_resamples=int(np.isnan(result.samples[:, usable, 0]).any(axis=1).sum()),
    )


def mean_of(results: Sequence[Bootstrap]) -> Bootstrap:
    """The figures of several predictors of the same truth, patients and draws, averaged resample by resample.

    Their interval is that of the mean: of the test patients, not of the choice of predictors.
    """
    first, *others = results
    assert all(other.draw == first.draw for other in others), "the predictors were not resampled alike"
    return Bootstrap(
        np.mean([result.point for result in results], axis=0),
        np.mean([result.samples for result in results], axis=0),
        first.draw,
    )


def macro(result: Bootstrap, labels: Sequence[str], among: Sequence[str]) -> Macro:
    """Means over the labels `among`, which all have figures, of those of a result, `labels`."""
    return _macro(result.point, result.samples, np.isin(labels, among), labels)


def paired_difference(
    ours: Bootstrap, other: Bootstrap, labels: Sequence[str], among: Sequence[str]
) -> tuple[Macro, float]:
    """`ours` minus `other`, both from `bootstrap` with the same truth, patients and draws, and its p-value by AUROC.

    Both were weighed by the same resamples, so what makes a resample hard for both cancels in the difference.

    Args:
        ours: figures of one predictor.
        other: figures of the other.
        labels: the name of each label of both.
        among: the labels to take the mean over; each must have figures.
    """
    assert ours.draw == other.draw, "the two predictors were not resampled alike"
    use = np.isin(labels, among)
    samples = ours.samples - other.samples
    return _macro(ours.point - other.point, samples, use, labels), p_value(macro_means(samples, use)[:, 0])


def macro_means(samples: FloatArray, use: BoolArray) -> FloatArray:
    """``(resamples, ...)`` means over chosen labels of ``(resamples, labels, ...)`` figures; NaN is left out."""
    present = ~np.isnan(samples[:, use])
    return ratio(np.where(present, samples[:, use], 0.0).sum(axis=1), present.sum(axis=1))


def _macro(point: FloatArray, samples: FloatArray, use: BoolArray, labels: Sequence[str]) -> Macro:
    values = point[use].mean(axis=0)
    return Macro(labels=_named(labels, use), **_figures(values, macro_means(samples, use)))


def _figures(values: FloatArray, samples: FloatArray) -> dict[str, Figure]:
    """Of ``(7,)`` values and their ``(resamples, 7)`` resamples."""
    return {name: figure(values[m], samples[:, m]) for m, name in enumerate(METRICS)}


def _named(labels: Sequence[str], use: BoolArray) -> tuple[str, ...]:
    return tuple(labels[i] for i in np.flatnonzero(use).tolist())
