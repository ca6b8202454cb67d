"""SimCLR: tell two views of a record from the views of all others (Chen et al. 2020)."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ecgdist.models.patches import at_least_float32
from ecgdist.objectives.method import PairContrast, has_signal, others_of_patient


class SimClr(PairContrast):
    """NT-Xent (Chen et al. 2020, eq. 1). 0.5 as Mehari & Strodthoff 2022 found for ECGs.

    With cosine similarities s and temperature T, a view i of a record whose other view is j gives

        -log( exp(s_ij / T) / sum_{k != i} exp(s_ik / T) )

    over both views k of all records. Where we differ: another record of the same patient is no negative.
    """

    default_temperature: ClassVar[float | None] = 0.5

    def __init__(self, temperature: float) -> None:
        self._temperature = temperature

    def losses(self, own: Tensor, other: Tensor, patient: Tensor) -> Tensor:
        """See `PairContrast.losses`."""
        own, other = (at_least_float32(view) for view in (own, other))
        here, there = has_signal(own), has_signal(other)
        own, other = F.normalize(own, dim=1), F.normalize(other, dim=1)
        scores = own @ torch.cat([own, other]).T / self._temperature
        itself = torch.eye(len(own), dtype=torch.bool, device=own.device)
        apart = others_of_patient(patient)
        barred = torch.cat([apart | itself | ~here, apart | ~there], dim=1)
        paired = here & there
        # A row with nothing left would give NaN gradients; it is not counted.
        barred = barred & paired[:, None]
        partner = scores[:, len(own) :].diagonal()
        losses = scores.masked_fill(barred, -math.inf).logsumexp(dim=1) - partner
        return torch.where(paired, losses, 0.0)
