"""Judges predictions of labels on the same records and resamples, whatever made them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from ecgdist.corpus.splits import SPLITS
from ecgdist.downstream.assign import Splits
from ecgdist.downstream.bootstrap import Resamples
from ecgdist.downstream.evaluation import Features
from ecgdist.downstream.judged import Records
from ecgdist.downstream.metrics import FEW_POSITIVES, Bootstrap, Metrics, bootstrap, summarise
from ecgdist.downstream.probe import ProbeResult, linear_probe
from ecgdist.downstream.scores import SPECIFICITY, BoolArray, FloatArray, Thresholds
from ecgdist.downstream.tasks import patients_of


@dataclass(frozen=True)
class LabelJudge:
    """Judges predictions of labels, each record once; the same one for every predictor that is compared.

    Attributes:
        labels: that can be judged, in the order of the predictions' columns.
        validation: records of that split.
        test: records of that split.
        validation_truth: ``(records, labels)``.
        truth: ``(records, labels)`` of the test split.
        resamples: of the test patients.
        specificity: on validation, at which sensitivity is reported.
    """

    labels: tuple[str, ...]
    validation: Records
    test: Records
    validation_truth: BoolArray
    truth: BoolArray
    resamples: Resamples
    specificity: float

    @classmethod
    def of(
        cls,
        index: pd.DataFrame,
        splits: Splits,
        truth: BoolArray,
        labels: Sequence[str],
        resamples: int,
        seed: int,
        specificity: float = SPECIFICITY,
    ) -> LabelJudge:
        """A judge of ``(n, labels)`` truth of every row of an index."""
        validation, test = (Records.of(index, splits, split) for split in ("validation", "test"))
        return cls(
            labels=tuple(labels),
            validation=validation,
            test=test,
            validation_truth=truth[validation.first],
            truth=truth[test.first],
            resamples=Resamples.of(patients_of(test.facts(index)).tolist(), resamples, seed),
            specificity=specificity,
        )

    def bootstrap(self, validation: FloatArray, test: FloatArray) -> tuple[Bootstrap, Thresholds]:
        """The figures of a predictor by its ``(rows, labels)`` probabilities of the rows of both splits."""
        thresholds = Thresholds.chosen(
            self.validation_truth, self.validation.mean(validation), self.specificity
        )
        return bootstrap(self.truth, self.test.mean(test), thresholds, self.resamples), thresholds

    def summarise(self, boot: Bootstrap, thresholds: Thresholds) -> Metrics:
        """Its figures with their intervals."""
        return summarise(boot, self.truth, thresholds, self.labels)


def probe(features: Features, truth: BoolArray, splits: Splits, labels: Sequence[str]) -> ProbeResult:
    """The linear probe on ``(n, dim)`` features and ``(n, labels)`` truth of every row of an index."""
    train, validation, test = map(splits.rows, SPLITS)
    return linear_probe(
        features[train], truth[train], features[validation], truth[validation], features[test], labels
    )


def label_warnings(left_out: dict[str, str], metrics: Metrics) -> list[str]:
    """What must be said of labels."""
    found = [f"label {label} is left out: {reason}" for label, reason in left_out.items()]
    if metrics.one_class:
        found.append(f"no figures for {', '.join(metrics.one_class)}: all test records are alike in them")
    if metrics.few:
        found.append(f"fewer than {FEW_POSITIVES} test positives: {', '.join(metrics.few)}")
    if metrics.incomplete_resamples:
        found.append(
            f"{metrics.incomplete_resamples} of {metrics.resamples} resamples lack positives or negatives of "
            "a label, which is left out of their macro mean"
        )
    return found
