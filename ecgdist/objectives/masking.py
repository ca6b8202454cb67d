"""Random masks over tokens, as pure functions of noise that the caller drew."""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor

from ecgdist.models.patches import gather_tokens
from ecgdist.record import NUM_LEADS, STANDARD_LEADS

LIMB_LEADS = ("I", "II", "III", "aVR", "aVL", "aVF")
"""Any two of them give the others (Einthoven 1913, Goldberger 1942: III = II - I, aVR = -(I + II) / 2, ...)."""

# Keeps a product such as 20 * (1 - 0.9) = 1.9999999999999996 from being rounded down to one token too few.
_ROUNDING = 1e-6


def random_mask(noise: Tensor, token_valid: Tensor, ratio: float) -> tuple[Tensor, Tensor, Tensor]:
    """Hide a share of every record's patches, uniformly at random (He et al. 2022, section 3).

    Of n valid patches, max(1, floor(n * (1 - ratio))) with the smallest noise are kept. The number of slots
    follows from the longest possible record, so that a batch is one tensor; a padded record fills the rest
    of its slots with padded patches.

    Args:
        noise: ``(batch, tokens)`` uniform numbers.
        token_valid: ``(batch, tokens)`` bool, False for a token without signal.
        ratio: share of the valid patches to hide, in [0, 1).

    Returns:
        kept: ``(batch, kept)`` int64 patch numbers, ascending; never a hidden patch.
        kept_valid: ``(batch, kept)`` bool, False for an unused slot.
        hidden: ``(batch, tokens)`` bool, True = valid and not kept.
    """
    tokens = token_valid.shape[1]
    visible = _smallest(noise, token_valid, ratio)
    kept = _slots(visible, token_valid, _num_kept(tokens, ratio))
    return kept, gather_tokens(visible, kept), token_valid & ~visible


def per_lead_mask(noise: Tensor, token_valid: Tensor, ratio: float) -> tuple[Tensor, Tensor, Tensor]:
    """Hide a share of every lead's patches, each lead by itself (Na et al. 2024, ST-MEM, section 3.2).

    Arguments and results as in `random_mask`, which this is for each lead alone: of 30 patches a lead and a
    ratio of 0.75, every present lead keeps 7. Tokens are numbered lead by lead (`Layout`, ``lead_time``).
    """
    by_lead = "b (l n) -> (b l) n"
    kept, kept_valid, hidden = random_mask(
        rearrange(noise, by_lead, l=NUM_LEADS), rearrange(token_valid, by_lead, l=NUM_LEADS), ratio
    )
    first = torch.arange(NUM_LEADS, device=noise.device) * (token_valid.shape[1] // NUM_LEADS)
    kept = rearrange(kept, "(b l) k -> b l k", l=NUM_LEADS) + first[:, None]
    together = "(b l) n -> b (l n)"
    return (
        kept.flatten(1),
        rearrange(kept_valid, together, l=NUM_LEADS),
        rearrange(hidden, together, l=NUM_LEADS),
    )


def limb_group_mask(noise: Tensor, token_valid: Tensor, ratio: float) -> tuple[Tensor, Tensor, Tensor]:
    """Hide a share of whole leads, the limb leads all or none; any two of them would give away the others.

    Arguments and results as in `random_mask`, over seven units of equal chance: the limb leads, whose noise is that
    of lead I, and each chest lead. A unit counts as one in the ratio, so that a record with visible limb leads
    has more visible tokens than one without; its unused slots may then name hidden tokens.
    """
    chest = [number for number, lead in enumerate(STANDARD_LEADS) if lead not in LIMB_LEADS]
    limbs = [number for number, lead in enumerate(STANDARD_LEADS) if lead in LIMB_LEADS]
    any_limb = token_valid[:, limbs].any(dim=1, keepdim=True)
    unit_valid = torch.cat([any_limb, token_valid[:, chest]], dim=1)
    shown = _smallest(torch.cat([noise[:, limbs[:1]], noise[:, chest]], dim=1), unit_valid, ratio)
    visible = torch.zeros_like(token_valid)
    visible[:, limbs], visible[:, chest] = shown[:, :1], shown[:, 1:]
    visible = visible & token_valid
    # As many slots as there are visible tokens if the limb leads are among the units that are kept.
    kept = _slots(visible, token_valid, len(limbs) + _num_kept(unit_valid.shape[1], ratio) - 1)
    return kept, gather_tokens(visible, kept), token_valid & ~visible


def span_mask(noise: Tensor, token_valid: Tensor, share: float, span: int) -> tuple[Tensor, Tensor, Tensor]:
    """Hide spans of neighbouring tokens, which may overlap, and keep every token's place (Baevski et al. 2020, 3.1).

    Of n valid tokens, the round(share * n / span) with the smallest noise begin a span, of those that leave it room.
    share = 0.65 and span = 10 hide about half of a long record. Where we differ: the number is rounded to the nearest,
    not at random; records of a batch need not hide equally many; and a span is never longer than half of a short
    record, nor are there so many that a record could be hidden whole.

    Args:
        noise: ``(batch, tokens)`` uniform numbers.
        token_valid: ``(batch, tokens)`` bool, False for a token without signal; valid ones come first.
        share: length of all spans before they overlap, as a share of the valid tokens.
        span: tokens of one span.

    Returns:
        kept: ``(batch, tokens)`` int64, the number of every token.
        kept_valid: `token_valid`.
        hidden: ``(batch, tokens)`` bool, True = valid and to be replaced.
    """
    places = torch.arange(token_valid.shape[1], device=noise.device).expand_as(token_valid)
    num_valid = token_valid.sum(dim=1, keepdim=True)
    length = (num_valid // 2).clamp(max=span)
    at_least_one = length.clamp(min=1)
    wanted = (num_valid.double() * share / at_least_one + 0.5 + _ROUNDING).floor()
    number = torch.minimum(wanted, (num_valid - 1) // at_least_one) * (length > 0)
    begins = noise.masked_fill(places > num_valid - at_least_one, math.inf).argsort(dim=1, stable=True)
    begun = (begins.argsort(dim=1) < number).long().cumsum(dim=1)
    before = begun.gather(1, (places - at_least_one).clamp(min=0)) * (places >= at_least_one)
    return places, token_valid, token_valid & (begun > before)


def _num_kept(tokens: int, ratio: float) -> int:
    """How many of so many tokens stay visible."""
    return max(1, math.floor(tokens * (1 - ratio) + _ROUNDING))


def _smallest(noise: Tensor, valid: Tensor, ratio: float) -> Tensor:
    """Which valid places stay visible: those with the smallest noise. ``(batch, places)`` -> the same, bool."""
    num_kept = (valid.sum(dim=1).double() * (1 - ratio) + _ROUNDING).floor().clamp(min=1)
    order = noise.masked_fill(~valid, math.inf).argsort(dim=1, stable=True)
    rank = order.argsort(dim=1)
    return valid & (rank < num_kept[:, None])


def _slots(visible: Tensor, valid: Tensor, num_slots: int) -> Tensor:
    """The tokens in a record's slots, ascending: ``(batch, tokens)`` -> ``(batch, num_slots)``.

    Visible tokens come first, then those without signal, and hidden ones only where the others are not enough.
    """
    preference = torch.where(visible, 0, torch.where(valid, 2, 1))
    return preference.argsort(dim=1, stable=True)[:, :num_slots].sort(dim=1).values
