"""Macro and per-label figures of a multilabel predictor, with bootstrap intervals.

The resampled unit is the patient, not the row: rows of one patient resemble each other, and resampling rows
as if they did not gives intervals that are too narrow (cluster bootstrap; Davison and Hinkley, Bootstrap
Methods and their Application, 1997, chapter 3). One resample draws as many patients as the test set has, with
replacement, and weighs every row by how often its patient was drawn. Two predictors are compared on the same
resamples.

A label without positives or without negatives in a resample has no AUROC there and is left out of that
resample's macro mean. Labels with fewer than `FEW_POSITIVES` test positives count in the macro mean over all
labels; a second macro mean leaves them out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from ecgdist.downstream.scores import METRICS, BoolArray, FloatArray, label_figures, ratio
from ecgdist.errors import DataError

FEW_POSITIVES = 10
BOOTSTRAP_METHOD = (
    "95 % percentile interval of a bootstrap over test patients; a label that lacks positives or negatives "
    "in a resample is left out of that resample's macro mean"
)
_TAIL = 0.025
# Resamples are worked through in blocks of about this many numbers, 32 MB each.
_BLOCK = 4_000_000


class Figure(BaseModel):
    """One number with its 95 % interval."""

    model_config = ConfigDict(frozen=True)

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


class Macro(BaseModel):
    """Unweighted means over labels, or differences of such means."""

    model_config = ConfigDict(frozen=True)

    labels: tuple[str, ...]
    auroc: Figure
    auprc: Figure
    f1: Figure


class LabelFigures(BaseModel):
    """One label of one predictor. F1 is at `threshold`, which was chosen on the validation split."""

    model_config = ConfigDict(frozen=True)

    label: str
    positives: int
    negatives: int
    threshold: float
    auroc: Figure
    auprc: Figure
    f1: Figure


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
        point: ``(labels, 3)`` in the order of `METRICS`.
        samples: ``(resamples, labels, 3)``.
        draw: what the resamples were drawn from; predictors with equal `draw` saw the same resamples.
    """

    point: FloatArray
    samples: FloatArray
    draw: tuple[int, int, int]


def bootstrap(
    truth: BoolArray,
    score: FloatArray,
    thresholds: FloatArray,
    patients: Sequence[str],
    resamples: int = 1000,
    seed: int = 0,
) -> Bootstrap:
    """Figures of a predictor on the test set and on resamples of its patients.

    Args:
        truth: ``(n, labels)``.
        score: ``(n, labels)``, higher is more likely.
        thresholds: ``(labels,)``; a label is predicted where its score is at least its threshold.
        patients: the patient of each row.
        resamples: how many resamples; resample r is a function of (seed, r) and the patients alone.
        seed: seed of the draws.
    """
    draws, row_patient = _draw_patients(patients, resamples, seed)
    block = max(1, _BLOCK // len(truth))
    blocks = [
        label_figures(
            truth, score, thresholds, draws[start : start + block][:, row_patient].astype(np.float64)
        )
        for start in range(0, resamples, block)
    ]
    point = label_figures(truth, score, thresholds, np.ones((1, len(truth))))[0]
    return Bootstrap(point, np.concatenate(blocks), (draws.shape[1], resamples, seed))


def summarise(result: Bootstrap, truth: BoolArray, thresholds: FloatArray, labels: Sequence[str]) -> Metrics:
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
            threshold=float(thresholds[i]),
            **{name: _figure(result.point[i, m], result.samples[:, i, m]) for m, name in enumerate(METRICS)},
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
) -> Macro:
    """`ours` minus `other`, both from `bootstrap` with the same truth, patients and draws.

    Both were weighed by the same resamples, so what makes a resample hard for both cancels in the difference.

    Args:
        ours: figures of one predictor.
        other: figures of the other.
        labels: the name of each label of both.
        among: the labels to take the mean over; each must have figures.
    """
    assert ours.draw == other.draw, "the two predictors were not resampled alike"
    use = np.isin(labels, among)
    return _macro(ours.point - other.point, ours.samples - other.samples, use, labels)


def _draw_patients(
    patients: Sequence[str], resamples: int, seed: int
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.intp]]:
    """``(resamples, patients)`` how often each is drawn, and ``(n,)`` the patient number of each row."""
    names, row_patient = np.unique(np.asarray(patients, dtype=np.str_), return_inverse=True)
    count = len(names)
    draws = np.empty((resamples, count), dtype=np.int16)
    for resample in range(resamples):
        drawn = np.random.default_rng([seed, resample]).integers(count, size=count)
        draws[resample] = np.bincount(drawn, minlength=count)
    return draws, row_patient


def _macro(point: FloatArray, samples: FloatArray, use: BoolArray, labels: Sequence[str]) -> Macro:
    present = ~np.isnan(samples[:, use])
    means = ratio(np.where(present, samples[:, use], 0.0).sum(axis=1), present.sum(axis=1))
    values = point[use].mean(axis=0)
    figures = {name: _figure(values[m], means[:, m]) for m, name in enumerate(METRICS)}
    return Macro(labels=_named(labels, use), **figures)


def _figure(value: float, samples: FloatArray) -> Figure:
    known = samples[~np.isnan(samples)]
    if known.size == 0:
        raise DataError(
            "no bootstrap resample has both positives and negatives; use more resamples or a larger test"
        )
    low, high = np.quantile(known, [_TAIL, 1 - _TAIL])
    return Figure(value=float(value), low=float(low), high=float(high))


def _named(labels: Sequence[str], use: BoolArray) -> tuple[str, ...]:
    return tuple(labels[i] for i in np.flatnonzero(use).tolist())
