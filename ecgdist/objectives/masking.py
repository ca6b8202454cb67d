"""Random masks over patches, as a pure function of noise that the caller drew."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ecgdist.models.patches import gather_tokens

# Keeps a product such as 20 * (1 - 0.9) = 1.9999999999999996 from being rounded down to one token too few.
_ROUNDING = 1e-6


def random_mask(noise: Tensor, token_valid: Tensor, ratio: float) -> tuple[Tensor, Tensor, Tensor]:
    """Hide a share of every record's patches, uniformly at random (He et al. 2022, section 3).

    Of n valid patches, max(1, floor(n * (1 - ratio))) with the smallest noise are kept. The number of slots
    follows from the longest possible record, so that a batch is one tensor; a padded record fills the rest
    of its slots with padded patches.

    Args:
        noise: ``(batch, tokens)`` uniform numbers.
        token_valid: ``(batch, tokens)`` bool, False for a padded patch.
        ratio: share of the valid patches to hide, in [0, 1).

    Returns:
        kept: ``(batch, kept)`` int64 patch numbers, ascending; never a hidden patch.
        kept_valid: ``(batch, kept)`` bool, False for an unused slot.
        hidden: ``(batch, tokens)`` bool, True = valid and not kept.
    """
    tokens = token_valid.shape[1]
    num_slots = max(1, math.floor(tokens * (1 - ratio) + _ROUNDING))
    num_kept = (token_valid.sum(dim=1).double() * (1 - ratio) + _ROUNDING).floor().clamp(min=1)
    order = noise.masked_fill(~token_valid, math.inf).argsort(dim=1, stable=True)
    rank = order.argsort(dim=1)
    visible = token_valid & (rank < num_kept[:, None])
    hidden = token_valid & ~visible
    # Visible patches first, then padded ones, hidden ones last: there are always enough of the first two to
    # fill the slots.
    preference = torch.where(visible, 0, torch.where(hidden, 2, 1))
    kept = preference.argsort(dim=1, stable=True)[:, :num_slots].sort(dim=1).values
    return kept, gather_tokens(visible, kept), hidden
