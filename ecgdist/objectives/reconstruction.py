"""Masked reconstruction over time (MTAE): predict the normalised waveform of hidden patches in all leads.

After Na et al. 2024 (ST-MEM, whose MTAE variant this is) and He et al. 2022. Where we differ: missing leads,
padded patches and flat patches leave the loss, and sums are returned, because the mean is taken over a batch
that many processes share.
"""

from __future__ import annotations

from typing import NamedTuple

from pydantic import Field
from torch import Tensor

from ecgdist.config import Config
from ecgdist.models.patches import at_least_float32, patchify, token_valid
from ecgdist.objectives.masking import random_mask

VARIANCE_FLOOR = 1e-6
"""Added to a patch's variance before the root (He et al. 2022)."""

FLAT_VARIANCE = 1e-4
"""Below this variance a patch is flat and leaves the loss: in a record scaled to unit variance, a standard
deviation under one percent of the record's. Its normalised target would be quantisation noise."""


class GenerativeConfig(Config):
    """The generative part: masked reconstruction."""

    weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Factor of the reconstruction loss; 0 leaves the decoder out."""

    mask_ratio: float = Field(default=0.75, gt=0, lt=1)
    """Share of patches hidden from a masked student (ST-MEM: 0.75), also if it only contrasts."""


class PatchTargets(NamedTuple):
    """What a decoder should predict.

    Attributes:
        values: ``(batch, tokens, 12, patch)`` normalised samples; 0 in missing leads.
        mean: ``(batch, tokens)`` mean over the values of present leads.
        variance: ``(batch, tokens)`` unbiased variance of the same values; 0 if no lead is present.
    """

    values: Tensor
    mean: Tensor
    variance: Tensor


def patch_targets(signal: Tensor, lead_mask: Tensor, patch_samples: int) -> PatchTargets:
    """Normalise every patch by itself: (x - mean) / sqrt(variance + 1e-6), over its present leads together.

    He et al. 2022, section 3 (reconstruction target); ST-MEM uses the unbiased variance.

    Args:
        signal: ``(batch, 12, samples)``.
        lead_mask: ``(batch, 12)`` bool, True = present.
        patch_samples: samples in one patch.

    Raises:
        ConfigError: if the window is not a whole number of patches.
    """
    patches = patchify(at_least_float32(signal), patch_samples)
    present = lead_mask[:, None, :, None]
    num_values = lead_mask.sum(dim=1, keepdim=True) * patch_samples
    mean = patches.masked_fill(~present, 0).sum(dim=(2, 3)) / num_values.clamp(min=1)
    centred = (patches - mean[:, :, None, None]).masked_fill(~present, 0)
    variance = centred.square().sum(dim=(2, 3)) / (num_values - 1).clamp(min=1)
    return PatchTargets(centred / spread(variance)[:, :, None, None], mean, variance)


def spread(variance: Tensor) -> Tensor:
    """The standard deviation that targets are divided by, with its floor."""
    return (variance + VARIANCE_FLOOR).sqrt()


def reconstruction_sums(
    prediction: Tensor, targets: PatchTargets, lead_mask: Tensor, hidden: Tensor, row_weight: Tensor
) -> tuple[Tensor, Tensor]:
    """Squared error of the hidden patches, summed, and their number; the loss is one divided by the other.

    A patch's error is the mean of (prediction - target)^2 over the values of present leads.

    Args:
        prediction: ``(batch, tokens, 12 * patch)``.
        targets: of the same window.
        lead_mask: ``(batch, 12)`` bool, True = present.
        hidden: ``(batch, tokens)`` bool, True = hidden and not padded.
        row_weight: ``(batch,)`` 1, or 0 for a row that only fills the batch.

    Returns:
        the weighted sum of errors and the weighted number of patches, both 0-d.
    """
    error = at_least_float32(prediction).reshape(targets.values.shape) - targets.values
    squared = error.square().masked_fill(~lead_mask[:, None, :, None], 0)
    num_values = lead_mask.sum(dim=1, keepdim=True) * targets.values.shape[3]
    per_token = squared.sum(dim=(2, 3)) / num_values.clamp(min=1)
    weight = _token_weight(targets, hidden, row_weight)
    return (per_token * weight).sum(), weight.sum()


def count_tokens(
    signal: Tensor,
    valid_samples: Tensor,
    lead_mask: Tensor,
    noise: Tensor,
    row_weight: Tensor,
    patch_samples: int,
    mask_ratio: float,
) -> Tensor:
    """How many patches `reconstruction_sums` will count for these records, without the model, 0-d.

    The sum over all processes and micro-batches is what the reconstruction loss is divided by.

    Args:
        signal: ``(batch, 12, samples)``.
        valid_samples: ``(batch,)`` int64; samples from here on are padding.
        lead_mask: ``(batch, 12)`` bool, True = present.
        noise: ``(batch, tokens)``, the same that the model will be given.
        row_weight: ``(batch,)`` 1, or 0 for a row that only fills the batch.
        patch_samples: samples in one patch.
        mask_ratio: share of patches hidden.
    """
    targets = patch_targets(signal, lead_mask, patch_samples)
    valid = token_valid(valid_samples, targets.mean.shape[1], patch_samples)
    _, _, hidden = random_mask(noise, valid, mask_ratio)
    return _token_weight(targets, hidden, row_weight).sum()


def _token_weight(targets: PatchTargets, hidden: Tensor, row_weight: Tensor) -> Tensor:
    return (hidden & (targets.variance >= FLAT_VARIANCE)) * at_least_float32(row_weight)[:, None]
