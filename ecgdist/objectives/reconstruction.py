"""Masked reconstruction: predict the normalised waveform of hidden tokens.

What a token is decides which method it is (`EncoderConfig.tokens`, `Layout`): a patch of all leads (MTAE), a whole
lead (MLAE) or a patch of one lead (ST-MEM), all after Na et al. 2024 (ST-MEM) and He et al. 2022. The layout is a
setting of the encoder and of nothing else, so that no configuration can ask for one method with the tokens of
another. Where we differ: missing leads, padded and flat patches leave the loss, and sums are returned, because the
mean is taken over a batch that many processes share.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import Field, model_validator
from torch import Tensor

from ecgdist.config import Config
from ecgdist.errors import ConfigError
from ecgdist.models.config import EncoderConfig
from ecgdist.models.layout import Layout
from ecgdist.models.patches import at_least_float32
from ecgdist.objectives.masking import limb_group_mask, per_lead_mask, random_mask

VARIANCE_FLOOR = 1e-6
"""Added to a patch's variance before the root (He et al. 2022)."""

FLAT_VARIANCE = 1e-4
"""Below this variance a patch is flat and leaves the loss: in a record scaled to unit variance, a standard
deviation under one percent of the record's. Its normalised target would be quantisation noise."""


class GenerativeConfig(Config):
    """The generative part: masked reconstruction. Which one follows from ``encoder.tokens``."""

    weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Factor of the reconstruction loss; 0 leaves the decoder out."""

    ramp_share: float = Field(default=0.0, ge=0, le=1)
    """Share of all steps over which the weight rises linearly from zero; 0 begins with the whole weight."""

    mask_ratio: float = Field(default=0.75, gt=0, lt=1)
    """Share of patches hidden from a masked student (ST-MEM: 0.75), also if it only contrasts."""

    mask: Literal["auto", "random", "per_lead"] = "auto"
    """How hidden tokens are drawn: random among all, or per_lead, the same share of every lead. auto is per_lead
    for encoder.tokens = lead_time (ST-MEM), else random (MTAE, MLAE)."""

    group_limb_leads: bool = False
    """For encoder.tokens = lead: hide I, II, III, aVR, aVL and aVF all or none, as one lead in the ratio. Any two
    of them give the others by addition, which teaches nothing."""

    @model_validator(mode="after")
    def _one_mask(self) -> GenerativeConfig:
        if self.group_limb_leads and self.mask == "per_lead":
            raise ValueError(
                "group_limb_leads hides whole leads and mask = per_lead patches of every lead; choose one of them"
            )
        return self


class Masking:
    """The mask that an encoder's tokens and a generative part ask for.

    Attributes:
        ratio: share of valid tokens that is hidden; 0 hides nothing.
    """

    def __init__(self, encoder: EncoderConfig, config: GenerativeConfig, ratio: float) -> None:
        """Choose the mask.

        Raises:
            ConfigError: if the encoder's tokens cannot be masked so.
        """
        if config.mask == "per_lead" and encoder.tokens != "lead_time":
            raise ConfigError(
                f"generative.mask = per_lead needs encoder.tokens = lead_time, not {encoder.tokens}: "
                "only there does a lead have tokens of its own; use auto"
            )
        if config.group_limb_leads and encoder.tokens != "lead":
            raise ConfigError(
                f"generative.group_limb_leads needs encoder.tokens = lead, not {encoder.tokens}: "
                "only there are whole leads hidden; leave it out"
            )
        per_lead = encoder.tokens == "lead_time" and config.mask != "random"
        self._draw = (
            per_lead_mask if per_lead else limb_group_mask if config.group_limb_leads else random_mask
        )
        self.ratio = ratio

    def __call__(self, noise: Tensor, token_valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """kept, kept_valid and hidden, as `random_mask` returns them."""
        draw = self._draw if self.ratio > 0 else random_mask
        return draw(noise, token_valid, self.ratio)


class PatchTargets(NamedTuple):
    """What a decoder should predict.

    Attributes:
        values: ``(batch, tokens, rows, patch)`` normalised samples; 0 where `present` is False.
        mean: ``(batch, tokens)`` mean over the present values.
        variance: ``(batch, tokens)`` unbiased variance of the same values; 0 if there is none.
        present: which values were recorded, as bool that broadcasts to those of `values`.
        num_values: ``(batch, tokens or 1)`` how many values of a token are present.
    """

    values: Tensor
    mean: Tensor
    variance: Tensor
    present: Tensor
    num_values: Tensor


def patch_targets(signal: Tensor, valid_samples: Tensor, lead_mask: Tensor, layout: Layout) -> PatchTargets:
    """Normalise every patch by itself: (x - mean) / sqrt(variance + 1e-6), over its present values together.

    He et al. 2022, section 3 (reconstruction target); ST-MEM uses the unbiased variance.

    Args:
        signal: ``(batch, 12, samples)``.
        valid_samples: ``(batch,)`` int64; samples from here on are padding.
        lead_mask: ``(batch, 12)`` bool, True = present.
        layout: how the window is cut.

    Raises:
        ConfigError: if the layout does not fit the window.
    """
    patches = layout.patchify(at_least_float32(signal))
    present = layout.present(valid_samples, lead_mask, patches.shape[1])
    # A mask that broadcasts counts every value as often as it is repeated.
    repeats = patches[0, 0].numel() // present[0, 0].numel()
    num_values = present.sum(dim=(2, 3)) * repeats
    mean = patches.masked_fill(~present, 0).sum(dim=(2, 3)) / num_values.clamp(min=1)
    centred = (patches - mean[:, :, None, None]).masked_fill(~present, 0)
    variance = centred.square().sum(dim=(2, 3)) / (num_values - 1).clamp(min=1)
    values = centred / spread(variance)[:, :, None, None]
    return PatchTargets(values, mean, variance, present, num_values)


def spread(variance: Tensor) -> Tensor:
    """The standard deviation that targets are divided by, with its floor."""
    return (variance + VARIANCE_FLOOR).sqrt()


def reconstruction_sums(
    prediction: Tensor, targets: PatchTargets, hidden: Tensor, row_weight: Tensor
) -> tuple[Tensor, Tensor]:
    """Squared error of the hidden patches, summed, and their number; the loss is one divided by the other.

    A patch's error is the mean of (prediction - target)^2 over its present values.

    Args:
        prediction: ``(batch, tokens, rows * patch)``.
        targets: of the same window.
        hidden: ``(batch, tokens)`` bool, True = hidden and valid.
        row_weight: ``(batch,)`` 1, or 0 for a row that only fills the batch.

    Returns:
        the weighted sum of errors and the weighted number of patches, both 0-d.
    """
    error = at_least_float32(prediction).reshape(targets.values.shape) - targets.values
    squared = error.square().masked_fill(~targets.present, 0)
    per_token = squared.sum(dim=(2, 3)) / targets.num_values.clamp(min=1)
    weight = token_weight(targets, hidden, row_weight)
    return (per_token * weight).sum(), weight.sum()


def token_weight(targets: PatchTargets, hidden: Tensor, row_weight: Tensor) -> Tensor:
    """How much each patch counts, ``(batch, tokens)``: hidden ones that are not flat, by the weight of their row."""
    return (hidden & (targets.variance >= FLAT_VARIANCE)) * at_least_float32(row_weight)[:, None]
