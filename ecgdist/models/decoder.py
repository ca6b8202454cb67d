"""The light decoders that predict hidden patches, or what the whole window is like, from encoded visible ones."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from ecgdist.models.config import SIZES, EncoderConfig
from ecgdist.models.patches import pool
from ecgdist.models.transformer import Transformer, initialise
from ecgdist.record import NUM_LEADS


class _Filled(nn.Module):
    """A transformer over all tokens of a window, in which a learned one stands for each that was not encoded."""

    def __init__(self, config: EncoderConfig, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.layout, self.width = config.layout, width
        self.narrow = nn.Linear(config.shape.width, width)
        self.mask_token = nn.Parameter(torch.randn(width) * 0.02)
        self.transformer = Transformer(width, depth, heads, config.activation_checkpointing)

    def features(self, tokens: Tensor, kept: Tensor, kept_valid: Tensor, valid: Tensor) -> Tensor:
        """All tokens of the window, after they have seen each other: ``(batch, tokens, width)``.

        Args:
            tokens: ``(batch, kept, dim)`` from the encoder.
            kept: ``(batch, kept)`` int64 numbers of their patches, each at most once in a row.
            kept_valid: ``(batch, kept)`` bool, False for an unused slot.
            valid: ``(batch, tokens)`` bool, False for a token without signal.
        """
        encoded = torch.where(kept_valid[:, :, None], self.narrow(tokens), self.mask_token)
        places = kept[:, :, None].expand(-1, -1, self.width)
        full = self.mask_token.expand(*valid.shape, -1).scatter(1, places, encoded)
        positions = self.layout.positions(valid.shape[1], self.width, tokens.device).to(full.dtype)
        return self.mix(full + positions, valid)

    def mix(self, full: Tensor, valid: Tensor) -> Tensor:
        """Let tokens see each other: ``(batch, tokens, width)`` -> the same."""
        mixed: Tensor = self.transformer(full, valid)
        return mixed


class Decoder(_Filled):
    """Decoder of patches (He et al. 2022, section 3). All tokens of a record see each other, as in MTAE and MLAE."""

    def __init__(self, config: EncoderConfig) -> None:
        shape = SIZES[config.size]
        super().__init__(config, shape.decoder_width, shape.decoder_depth, shape.decoder_heads)
        self.predict = nn.Linear(self.width, self.layout.rows * config.patch_samples)
        self.apply(initialise)

    def forward(self, tokens: Tensor, kept: Tensor, kept_valid: Tensor, valid: Tensor) -> Tensor:
        """Predict every patch of the window: ``(batch, tokens, rows * patch)``; arguments as in `features`."""
        predicted: Tensor = self.predict(self.features(tokens, kept, kept_valid, valid))
        return predicted


class LeadwiseDecoder(Decoder):
    """ST-MEM's decoder (Na et al. 2024, section 3.3): each lead is decoded alone, by the same weights.

    A token sees tokens of its own lead only, so that a hidden patch cannot be copied from a correlated lead. The
    decoder is not told which lead it has, and a lead without any visible patch has nothing to go by.
    """

    def mix(self, full: Tensor, valid: Tensor) -> Tensor:
        """Let the tokens of a lead see each other: ``(batch, tokens, width)`` -> the same."""
        by_lead = rearrange(full, "b (l n) w -> (b l) n w", l=NUM_LEADS)
        mixed: Tensor = self.transformer(by_lead, rearrange(valid, "b (l n) -> (b l) n", l=NUM_LEADS))
        return rearrange(mixed, "(b l) n w -> b (l n) w", l=NUM_LEADS)


class FeatureDecoder(_Filled):
    """Decoder of features (Huang et al. 2023, CMAE, section 3.2): from a masked view to what the whole one is like.

    What is contrasted is the mean over all tokens, hidden ones too. As wide as the encoder.
    """

    def __init__(self, config: EncoderConfig, depth: int) -> None:
        shape = SIZES[config.size]
        super().__init__(config, shape.width, depth, shape.heads)
        self.apply(initialise)

    def forward(self, tokens: Tensor, kept: Tensor, kept_valid: Tensor, valid: Tensor) -> Tensor:
        """The embedding of the whole window: ``(batch, dim)``; arguments as in `features`."""
        return pool(self.features(tokens, kept, kept_valid, valid), valid)


def build_decoder(config: EncoderConfig) -> Decoder:
    """The decoder of a layout, with fresh weights."""
    return LeadwiseDecoder(config) if config.tokens == "lead_time" else Decoder(config)
