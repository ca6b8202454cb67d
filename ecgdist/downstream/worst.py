"""The test records that a predictor is most wrong about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ecgdist.downstream.predictions import Predictions


@dataclass(frozen=True)
class Error:
    """One record that a predictor is wrong about.

    Attributes:
        column: number of the label, or of the number that is predicted.
        kind: ``false positive``, ``false negative``, ``overestimated`` or ``underestimated``.
        record: its number in the predictions.
    """

    column: int
    kind: str
    record: int


def worst_errors(predictions: Predictions, most_labels: int = 3) -> list[Error]:
    """The worst errors of the first arm.

    Of labels: for those with the most test positives, the highest probability of a false positive and the lowest of a
    false negative, where there is one. Of a number: the largest error to each side. Of equals, the first record.
    """
    return list(
        _of_labels(predictions, most_labels)
        if predictions.thresholds is not None
        else _of_number(predictions)
    )


def most_positives(predictions: Predictions, most: int) -> list[int]:
    """The labels with the most positives among those that have negatives, too; of equals, the first."""
    counts = predictions.positive.sum(axis=0)
    judged = np.flatnonzero((counts > 0) & (counts < len(predictions.truth)))
    ordered: list[int] = judged[np.argsort(-counts[judged], kind="stable")].tolist()
    return ordered[:most]


def _of_labels(predictions: Predictions, most_labels: int) -> Iterator[Error]:
    for label in most_positives(predictions, most_labels):
        true, said = predictions.positive[:, label], predictions.predicted[:, label]
        probability = predictions.judged[:, label]
        for kind, wrong, certainty in (
            ("false positive", ~true & said, probability),
            ("false negative", true & ~said, -probability),
        ):
            if wrong.any():
                yield Error(label, kind, int(np.where(wrong, certainty, -np.inf).argmax()))


def _of_number(predictions: Predictions) -> Iterator[Error]:
    difference = (predictions.judged - predictions.truth)[:, 0]
    for kind, size in (("overestimated", difference), ("underestimated", -difference)):
        if size.max() > 0:
            yield Error(0, kind, int(size.argmax()))
