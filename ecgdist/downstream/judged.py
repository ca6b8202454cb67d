"""The records that predictors are judged on: each once, however many segments it has.

A long recording is several rows of a corpus. Its prediction is the mean over them, so that it counts once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict

from ecgdist.corpus.splits import SPLITS
from ecgdist.downstream.assign import Splits
from ecgdist.downstream.tasks import patients_of

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


class SplitSize(BaseModel):
    """How much data one split holds."""

    model_config = ConfigDict(frozen=True)

    records: int
    patients: int


@dataclass(frozen=True)
class Records:
    """The records of one split.

    Attributes:
        rows: ``(n,)`` rows of the index that are in the split.
        record: ``(n,)`` the record's number of each of them.
        first: ``(records,)`` rows of the index, the first of each record.
    """

    rows: npt.NDArray[np.int64]
    record: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]

    @classmethod
    def of(cls, index: pd.DataFrame, splits: Splits, split: str) -> Records:
        """Those of a split of an index."""
        rows = np.flatnonzero(splits.rows(split))
        names = index["source"].astype(str) + "/" + index["record_id"].astype(str)
        record, distinct = pd.factorize(names.iloc[rows])
        first = np.full(len(distinct), len(index), dtype=np.int64)
        np.minimum.at(first, record, rows)
        return cls(rows, record.astype(np.int64), first)

    def mean(self, values: npt.NDArray[np.floating]) -> FloatArray:
        """``(records, ...)`` means of ``(n, ...)`` values of the rows of the split."""
        total = np.zeros((len(self.first), *values.shape[1:]))
        np.add.at(total, self.record, values)
        count = np.bincount(self.record).reshape(-1, *[1] * (values.ndim - 1))
        return total / count

    def facts(self, index: pd.DataFrame) -> pd.DataFrame:
        """What the index says of each record."""
        return index.iloc[self.first]


def split_sizes(index: pd.DataFrame, splits: Splits) -> dict[str, SplitSize]:
    """How much data each split holds."""
    found = {}
    for split in SPLITS:
        facts = Records.of(index, splits, split).facts(index)
        found[split] = SplitSize(records=len(facts), patients=patients_of(facts).nunique())
    return found
