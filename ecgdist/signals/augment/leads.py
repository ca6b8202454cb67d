"""Augmentations of leads: some are missing, or the chest leads and the limb leads change their proportions."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ecgdist.record import NUM_LEADS
from ecgdist.signals.augment.effect import Kept, Scaled
from ecgdist.signals.augment.view import Augmentation, Randoms, Rows
from ecgdist.signals.limbs import NUM_LIMB_LEADS

_NUM_GAINS = 1 + NUM_LEADS - NUM_LIMB_LEADS


def lead_drop(rows: Rows, lead_p: float, uniform: Tensor) -> Kept:
    """Take leads away, each with `lead_p`: they are zero and count as missing.

    One lead always stays: where all would go, the present one with the largest number.

    Args:
        rows: what to change.
        lead_p: probability for each lead.
        uniform: ``(rows, 12)``; a lead goes if its number is below `lead_p`.
    """
    # A missing lead is never the one that stays.
    lead_mask = rows.lead_mask
    rank = uniform.masked_fill(~lead_mask, -1.0)
    spared = rank == rank.amax(dim=1, keepdim=True)
    return Kept(lead_mask & ((uniform >= lead_p) | spared))


def amplitude_scale(change: float, uniform: Tensor) -> Scaled:
    """Multiply the limb leads with one factor, and each chest lead with one of its own.

    A factor lies between ``1 / (1 + change)`` and ``1 + change``, evenly on a logarithmic scale. One factor for the
    whole record would do nothing: scaling takes it out again. One for each limb lead would break the laws that tie
    the limb leads together, as no electrode does.

    Args:
        change: largest relative change, e.g. 0.25.
        uniform: ``(rows, 7)``, of the limb leads and V1 to V6; 0 is smallest, 1 largest.
    """
    factor = ((2 * uniform.double() - 1) * math.log1p(change)).exp().float()
    limbs = factor[:, :1].expand(-1, NUM_LIMB_LEADS)
    return Scaled(torch.cat([limbs, factor[:, 1:]], dim=1)[:, :, None])


class LeadDrop(Augmentation):
    """Random lead masking (RLM; Oh et al. 2022): each lead is missing with a probability.

    May destroy: findings of one region. An anterior infarct needs V1 to V4, an inferior one II, III and aVF, the axis
    two limb leads, a right bundle branch block V1. A masked student does not have to reconstruct dropped leads.
    """

    num_uniform: ClassVar[int] = NUM_LEADS

    name: Literal["lead_drop"] = "lead_drop"
    p: float = Field(default=1.0, ge=0, le=1)
    """Probability that a record loses leads at all."""
    lead_p: float = Field(default=0.5, ge=0, le=1)
    """Probability that a lead of such a record goes; one always stays."""

    def effect(self, rows: Rows, rate_hz: float, randoms: Randoms) -> Kept:
        return lead_drop(rows, self.lead_p, randoms.uniform)


class AmplitudeScale(Augmentation):
    """Limb leads and each chest lead become larger or smaller, as with electrodes elsewhere or another build.

    May destroy: voltage criteria. Hypertrophy (Sokolow-Lyon: S in V1 + R in V5 or V6 of 3.5 mV or more; Cornell: R in
    aVL + S in V3), low voltage, the R progression from V1 to V6, and how high an ST segment is in millivolt.
    The axis stays: the limb leads change together.
    """

    num_uniform: ClassVar[int] = _NUM_GAINS

    name: Literal["amplitude_scale"] = "amplitude_scale"
    change: float = Field(default=0.2, ge=0, le=4, allow_inf_nan=False)
    """Largest relative change; 0.2 is from 1 / 1.2 to 1.2 times."""

    def effect(self, rows: Rows, rate_hz: float, randoms: Randoms) -> Scaled:
        return amplitude_scale(self.change, randoms.uniform)
