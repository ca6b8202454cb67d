"""CMSC: neighbouring segments, and all segments of one patient, belong together (Kiyasseh et al. 2021, CLOCS)."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ecgdist.models.patches import at_least_float32
from ecgdist.objectives.method import PairContrast, has_signal, others_of_patient


class Cmsc(PairContrast):
    """Contrastive multi-segment coding: the views are two windows of a record, one directly after the other.

    With A and B the normalised embeddings of first and second windows, S = A B^T / T and P the pairs (i, j) of one
    patient, the loss is half the mean over P of -log softmax(S, rows)_ij and half that of S^T, as in fairseq-signals.
    Where `same_patient_positive` is False, P is the windows of one record alone, and other records of its patient
    are no negatives either.
    """

    adjacent: ClassVar[bool] = True
    default_temperature: ClassVar[float | None] = 0.1

    def __init__(self, temperature: float, same_patient_positive: bool = True) -> None:
        self._temperature, self._same_patient_positive = temperature, same_patient_positive

    def losses(self, own: Tensor, other: Tensor, patient: Tensor) -> Tensor:
        """See `PairContrast.losses`; scaled so that their mean over the records is a mean over pairs."""
        own, other = (at_least_float32(view) for view in (own, other))
        here, there = has_signal(own), has_signal(other)
        scores = F.normalize(own, dim=1) @ F.normalize(other, dim=1).T / self._temperature
        apart = others_of_patient(patient)
        paired = torch.eye(len(own), dtype=torch.bool, device=own.device)
        barred = ~there[None, :].expand_as(scores)
        if self._same_patient_positive:
            paired = paired | apart
        else:
            barred = barred | apart
        paired = paired & here[:, None] & there[None, :]
        # A row with nothing left would give NaN gradients; it is not counted.
        counted = paired.any(dim=1, keepdim=True)
        log_shares = scores.masked_fill(barred & counted, -math.inf).log_softmax(dim=1)
        losses = -log_shares.masked_fill(~paired, 0).sum(dim=1)
        return losses * (len(own) / paired.sum().clamp(min=1))
