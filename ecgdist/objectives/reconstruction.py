"""Masked reconstruction: predict the normalised waveform of hidden tokens.

What a token is decides which method it is (`EncoderConfig.tokens`, `Layout`): a patch of all leads (MTAE), a whole
lead (MLAE) or a patch of one lead (ST-MEM), all after Na et al. 2024 (ST-MEM) and He et al. 2022. The layout is a
setting of the encoder and of nothing else, so that no configuration can ask for one method with the tokens of
another. Where we differ: missing leads, padded and flat patches leave the loss, and sums are returned, because the
mean is taken over a batch that many processes share.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ecgdist.errors import ConfigError
from ecgdist.models.config import EncoderConfig
from ecgdist.models.decoder import build_decoder
from ecgdist.models.interface import Encoder
from ecgdist.models.layout import Layout
from ecgdist.models.patches import at_least_float32
from ecgdist.objectives.generative import GenerativeConfig
from ecgdist.objectives.masking import limb_group_mask, per_lead_mask, random_mask
from ecgdist.objectives.part import GenerativePart, Mask, Seen, Window, encode_kept

VARIANCE_FLOOR = 1e-6
"""Added to a patch's variance before the root (He et al. 2022)."""

FLAT_VARIANCE = 1e-4
"""Below this variance a patch is flat and leaves the loss: in a record scaled to unit variance, a standard
deviation under one percent of the record's. Its normalised target would be quantisation noise."""


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


class Reconstruction(GenerativePart):
    """Masked reconstruction: a decoder predicts the normalised waveform of patches that the encoder was not given."""

    settings: ClassVar[frozenset[str]] = frozenset({"mask_ratio", "mask", "group_limb_leads"})

    def __init__(self, encoder: EncoderConfig, config: GenerativeConfig, num_tokens: int) -> None:
        super().__init__(encoder, config, num_tokens)
        self._layout = encoder.layout
        self.decoder = build_decoder(encoder)

    @classmethod
    def masking(cls, encoder: EncoderConfig, config: GenerativeConfig) -> Mask:
        """See `Masking`."""
        return Masking(encoder, config, config.mask_ratio)

    @classmethod
    def factors(cls, config: GenerativeConfig) -> dict[str, float]:
        """See `GenerativePart.factors`."""
        return {"reconstruction": 1.0}

    def see(self, encoder: Encoder, window: Window, mask: Mask, noise: Tensor) -> Seen:
        """Encode the visible tokens alone."""
        return encode_kept(encoder, window, mask, noise)

    def counts(self, window: Window, hidden: Tensor, valid: Tensor, row_weight: Tensor) -> Tensor:
        """How many patches are reconstructed, ``(1,)``; see `GenerativePart.counts`."""
        return token_weight(patch_targets(*window, self._layout), hidden, row_weight).sum()[None]

    def sums(
        self,
        seen: Seen,
        window: Window,
        row_weight: Tensor,
        seeds: Tensor | None,
        census: Tensor | None,
        step: int,
    ) -> Tensor:
        """The error of `reconstruction_sums`, ``(1,)``; it is random in its mask alone."""
        prediction = self.decoder(*seen.encoded)
        error, _ = reconstruction_sums(
            prediction, patch_targets(*window, self._layout), seen.hidden, row_weight
        )
        return error[None]

    def fill(self, seen: Seen, window: Window) -> tuple[Tensor, Tensor]:
        """Hidden patches as the decoder predicts them, given the true mean and spread of each.

        Returns:
            the waveform ``(batch, 12, samples)`` in float32, with zeros in missing leads, and which samples
            belong to hidden patches, bool of the same shape.
        """
        targets = patch_targets(*window, self._layout)
        prediction = self.decoder(*seen.encoded).float().reshape(targets.values.shape)
        filled = prediction * spread(targets.variance)[:, :, None, None] + targets.mean[:, :, None, None]
        unseen = seen.hidden[:, :, None, None] & targets.present.expand_as(filled)
        waveform = torch.where(unseen, filled, self._layout.patchify(window.signal.float()))
        missing = ~window.lead_mask[:, :, None]
        return self._layout.unpatchify(waveform).masked_fill(missing, 0), self._layout.samples(seen.hidden)
