"""The light decoder that predicts hidden patches from encoded visible ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ecgdist.models.config import EncoderConfig
from ecgdist.models.patches import sincos_positions
from ecgdist.models.transformer import Transformer, initialise
from ecgdist.record import NUM_LEADS


class Decoder(nn.Module):
    """Decoder (He et al. 2022, section 3): a learned token stands for a patch not encoded."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        shape = config.shape
        self.width = shape.decoder_width
        self.narrow = nn.Linear(shape.width, self.width)
        self.mask_token = nn.Parameter(torch.randn(self.width) * 0.02)
        self.transformer = Transformer(
            self.width, shape.decoder_depth, shape.decoder_heads, config.activation_checkpointing
        )
        self.predict = nn.Linear(self.width, NUM_LEADS * config.patch_samples)
        self.apply(initialise)

    def forward(self, tokens: Tensor, kept: Tensor, kept_valid: Tensor, valid: Tensor) -> Tensor:
        """Predict every patch of the window.

        Args:
            tokens: ``(batch, kept, dim)`` from the encoder.
            kept: ``(batch, kept)`` int64 numbers of their patches, each at most once in a row.
            kept_valid: ``(batch, kept)`` bool, False for an unused slot.
            valid: ``(batch, tokens)`` bool, False for a padded patch.

        Returns:
            ``(batch, tokens, 12 * patch)``.
        """
        encoded = torch.where(kept_valid[:, :, None], self.narrow(tokens), self.mask_token)
        places = kept[:, :, None].expand(-1, -1, self.width)
        full = self.mask_token.expand(*valid.shape, -1).scatter(1, places, encoded)
        positions = sincos_positions(valid.shape[1], self.width, tokens.device).to(full.dtype)
        predicted: Tensor = self.predict(self.transformer(full + positions, valid))
        return predicted
