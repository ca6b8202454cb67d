"""Which labels are predicted where others are true.

Any number of labels may be true of a record, and any number predicted, so there is no matrix of mistaken identities:
each pair of labels is counted by itself, and a record counts in many pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Confusion:
    """Counts of records.

    Attributes:
        labels: in the order of rows and columns.
        positives: ``(labels,)`` of which a label is true.
        together: ``(labels, labels)``: of which the row's label is true and the column's is predicted.
        wrong: ``(labels, labels)``: those of them of which the column's label is not true.
        nothing: ``(labels,)``: of which a label is true, and none is predicted.
        unlabelled: of which no label is true.
        false_alarms: ``(labels,)``: those of them for which a label is predicted.
        silent: those of them for which none is predicted.
    """

    labels: tuple[str, ...]
    positives: Ints
    together: Ints
    wrong: Ints
    nothing: Ints
    unlabelled: int
    false_alarms: Ints
    silent: int


def confusion(labels: tuple[str, ...], truth: BoolArray, predicted: BoolArray) -> Confusion:
    """Counts of ``(n, labels)`` truth and predictions."""
    true, said = truth.astype(np.int64), predicted.astype(np.int64)
    no_label, none_said = ~truth.any(axis=1), ~predicted.any(axis=1)
    return Confusion(
        labels=labels,
        positives=true.sum(axis=0),
        together=true.T @ said,
        wrong=true.T @ (said & ~truth),
        nothing=true[none_said].sum(axis=0),
        unlabelled=int(no_label.sum()),
        false_alarms=said[no_label].sum(axis=0),
        silent=int((no_label & none_said).sum()),
    )
