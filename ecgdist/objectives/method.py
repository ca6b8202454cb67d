"""What every contrastive method offers, so that module and step need not know which one it is.

A new method is a file with a class, a line in `contrast.METHODS` and a test against a loop.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor


class Contrast(ABC):
    """A contrastive method.

    Attributes:
        has_teacher: whether the other view goes through a momentum teacher; else it goes through the student, too.
        has_predictor: whether the student has one.
        adjacent: whether the second view is the window that follows the first, instead of any other.
        default_temperature: what similarities are divided by where nothing else is asked for; None: by nothing.
    """

    has_teacher: ClassVar[bool]
    has_predictor: ClassVar[bool]
    adjacent: ClassVar[bool] = False
    default_temperature: ClassVar[float | None]


class TeacherContrast(Contrast):
    """A method whose keys come from a momentum teacher, without gradient."""

    has_teacher = True
    has_predictor = True

    @abstractmethod
    def losses(
        self, queries: Tensor, keys: Tensor, positive: Tensor, query_patient: Tensor, key_patient: Tensor
    ) -> Tensor:
        """One loss for each query: ``(rows,)`` in float32 (float64 for float64 queries).

        Args:
            queries: ``(rows, dim)``; normalised here.
            keys: ``(keys, dim)`` of the whole global batch; normalised here.
            positive: ``(rows,)`` int64, the number of each query's own key.
            query_patient: ``(rows,)`` int64; a record without a known patient has a number of its own.
            key_patient: ``(keys,)`` int64.
        """


class PairContrast(Contrast):
    """A method whose both views go through the student, with gradient."""

    has_teacher = False
    has_predictor = False

    @abstractmethod
    def losses(self, own: Tensor, other: Tensor, patient: Tensor) -> Tensor:
        """One loss for each record of the global batch as seen from its view `own`.

        The loss of the batch is the mean over the records and over both directions.

        Args:
            own, other: ``(records, dim)`` two views of the same records; normalised here. A row of zeros is a view
                without signal: it is no anchor and nobody's partner.
            patient: ``(records,)`` int64; a record without a known patient has a number of its own.

        Returns:
            ``(records,)`` in float32 (float64 for float64 views).
        """

    def share(
        self, queries: Tensor, cached: Tensor, positive: Tensor, patient: Tensor, row_weight: Tensor
    ) -> Tensor:
        """The part of the sum of `losses` over both directions that some rows of one view answer for, 0-d.

        Its value is the sum of these rows' losses. Its gradient is that of the whole sum, in which they are partners of
        other rows, too. So the shares of all rows of both views have the value and gradient of the whole, however they
        are spread over processes and micro-batches (after Gao et al. 2021, GradCache).

        Args:
            queries: ``(rows, dim)`` with gradient.
            cached: ``(2 records, dim)`` without: this view of all records, these rows' too, and then the other one.
            positive: ``(rows,)`` int64, the numbers of the rows' records.
            patient: ``(records,)`` int64, of all records.
            row_weight: ``(rows,)`` 1, or 0 for a row that only fills the batch.
        """
        own, other = cached.chunk(2)
        counted = row_weight > 0
        if not counted.any():
            return (queries * 0).sum()
        live = own.index_copy(0, positive[counted], queries[counted].to(own.dtype))
        losses = self.losses(live, other, patient)
        whole = losses.sum() + self.losses(other, live, patient).sum()
        return whole - whole.detach() + losses.detach()[positive[counted]].sum()


def has_signal(view: Tensor) -> Tensor:
    """Which rows of a view are not all zeros: ``(rows, dim)`` -> ``(rows,)`` bool."""
    return (view.detach() != 0).any(dim=1)


def others_of_patient(patient: Tensor) -> Tensor:
    """Which pairs of records are two records of one patient: ``(records,)`` -> ``(records, records)`` bool."""
    same = patient[:, None] == patient[None, :]
    return same & ~torch.eye(len(patient), dtype=torch.bool, device=patient.device)
