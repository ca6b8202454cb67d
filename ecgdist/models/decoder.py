"""The light decoders that predict hidden patches from encoded visible ones."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from ecgdist.models.config import SIZES, EncoderConfig
from ecgdist.models.transformer import Transformer, initialise
from ecgdist.record import NUM_LEADS


class Decoder(nn.Module):
    """Decoder (He et al. 2022, section 3): a learned token stands for a patch not encoded.

    All tokens of a record see each other, as in MTAE and MLAE.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        shape = SIZES[config.size]
        self.layout, self.width = config.layout, shape.decoder_width
        self.narrow = nn.Linear(shape.width, self.width)
        self.mask_token = nn.Parameter(torch.randn(self.width) * 0.02)
        self.transformer = Transformer(
            self.width, shape.decoder_depth, shape.decoder_heads, config.activation_checkpointing
        )
        self.predict = nn.Linear(self.width, self.layout.rows * config.patch_samples)
        self.apply(initialise)

    def forward(self, tokens: Tensor, kept: Tensor, kept_valid: Tensor, valid: Tensor) -> Tensor:
        """Predict every patch of the window.

        Args:
            tokens: ``(batch, kept, dim)`` from the encoder.
            kept: ``(batch, kept)`` int64 numbers of their patches, each at most once in a row.
            kept_valid: ``(batch, kept)`` bool, False for an unused slot.
            valid: ``(batch, tokens)`` bool, False for a token without signal.

        Returns:
            ``(batch, tokens, rows * patch)``.
        """
        encoded = torch.where(kept_valid[:, :, None], self.narrow(tokens), self.mask_token)
        places = kept[:, :, None].expand(-1, -1, self.width)
        full = self.mask_token.expand(*valid.shape, -1).scatter(1, places, encoded)
        positions = self.layout.positions(valid.shape[1], self.width, tokens.device).to(full.dtype)
        predicted: Tensor = self.predict(self.mix(full + positions, valid))
        return predicted

    def mix(self, full: Tensor, valid: Tensor) -> Tensor:
        """Let tokens see each other: ``(batch, tokens, width)`` -> the same."""
        mixed: Tensor = self.transformer(full, valid)
        return mixed


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


def build_decoder(config: EncoderConfig) -> Decoder:
    """The decoder of a layout, with fresh weights."""
    return LeadwiseDecoder(config) if config.tokens == "lead_time" else Decoder(config)
