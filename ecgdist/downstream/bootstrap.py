"""Resamples of test patients, and what follows from them: intervals, p-values, corrections for many comparisons.

The resampled unit is the patient, not the record: records of one patient resemble each other, and resampling records
as if they did not gives intervals that are too narrow (cluster bootstrap; Davison and Hinkley, Bootstrap Methods and
their Application, 1997, chapter 3). One resample draws as many patients as the test set has, with replacement, and
weighs every record by how often its patient was drawn. Two predictors are compared on the same resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from ecgdist.errors import DataError

FloatArray = npt.NDArray[np.float64]

P_METHOD = (
    "two-sided: twice the smaller share of resamples in which the difference is at most, or at least, zero, with one "
    "added to both counts"
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


@dataclass(frozen=True)
class Resamples:
    """Resamples of the patients of some records.

    Attributes:
        draws: ``(resamples, patients)`` how often each patient is drawn.
        patient: ``(n,)`` the patient's number of each record.
        seed: of the draws; resample r is a function of (seed, r) and the patients alone.
    """

    draws: npt.NDArray[np.int16]
    patient: npt.NDArray[np.intp]
    seed: int

    @classmethod
    def of(cls, patients: Sequence[str], resamples: int, seed: int) -> Resamples:
        """Draw.

        Args:
            patients: the patient of each record.
            resamples: how many.
            seed: of the draws.
        """
        names, patient = np.unique(np.asarray(patients, dtype=np.str_), return_inverse=True)
        count = len(names)
        draws = np.empty((resamples, count), dtype=np.int16)
        for resample in range(resamples):
            drawn = np.random.default_rng([seed, resample]).integers(count, size=count)
            draws[resample] = np.bincount(drawn, minlength=count)
        return cls(draws, patient, seed)

    @property
    def identity(self) -> tuple[int, int, int]:
        """Predictors whose resamples of the same patients have equal identities saw the same resamples."""
        return (self.draws.shape[1], len(self.draws), self.seed)

    def among(self, records: npt.NDArray[np.bool_]) -> Resamples:
        """The same resamples, seen by some records only: ``(n,)``, True for those."""
        return Resamples(self.draws, self.patient[records], self.seed)

    def figures(self, of_weights: Callable[[FloatArray], FloatArray]) -> FloatArray:
        """Figures of every resample, by a function from ``(r, n)`` weights to ``(r, ...)`` figures."""
        block = max(1, _BLOCK // max(1, len(self.patient)))
        starts = range(0, len(self.draws), block)
        return np.concatenate(
            [
                of_weights(self.draws[start : start + block][:, self.patient].astype(np.float64))
                for start in starts
            ]
        )


def figure(value: float, samples: FloatArray) -> Figure:
    """A number with the 95 % percentile interval of its ``(resamples,)`` values; NaN where a resample has none.

    Raises:
        DataError: if no resample has one.
    """
    known = samples[~np.isnan(samples)]
    if known.size == 0:
        raise DataError(
            "no bootstrap resample has both positives and negatives; use more resamples or a larger test"
        )
    low, high = np.quantile(known, [_TAIL, 1 - _TAIL])
    return Figure(value=float(value), low=float(low), high=float(high))


def p_value(differences: FloatArray) -> float:
    """Two-sided p-value of "there is no difference", from the ``(resamples,)`` paired differences; NaN is left out.

    It is twice the share of resamples on the wrong side of zero: the percentile interval turned around, which leaves
    out zero where p is below 0.05 (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 15.4). One is
    added to both counts, so that no p-value is zero (Davison and Hinkley 1997, equation 4.11).
    """
    known = differences[~np.isnan(differences)]
    smaller = min(int((known <= 0).sum()), int((known >= 0).sum()))
    return min(1.0, 2 * (1 + smaller) / (1 + len(known)))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number, in the same order (Holm, Scand J Stat 6, 65-70 (1979)).

    The smallest of m is multiplied by m, the next one by m - 1, and so on; none becomes smaller than one before it, or
    larger than 1. Those below 0.05 then hold together: the chance that any of them is wrong is below 5 %.
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for place, number in enumerate(np.argsort(np.asarray(p_values), kind="stable").tolist()):
        largest = max(largest, (len(p_values) - place) * p_values[number])
        corrected[number] = min(1.0, largest)
    return corrected
