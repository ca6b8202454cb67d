"""The encoder: patches of an ECG window to tokens, encoding only the patches that are kept."""

from __future__ import annotations

from torch import Tensor, nn

from ecgdist.models.config import EncoderConfig
from ecgdist.models.patches import gather_tokens, patchify, pool, sincos_positions, token_valid
from ecgdist.models.stem import STEMS
from ecgdist.models.transformer import Transformer, initialise


class VitEncoder(nn.Module):
    """Vision transformer (Dosovitskiy et al. 2021) over the time of an ECG: a token is a patch of all leads.

    Kept patches are picked before anything is computed, so hidden samples touch no token. Padded patches (see
    `token_valid`) and missing leads are set to zero on the way in, whatever they hold. The window may be any
    whole number of patches.

    Attributes:
        dim: width of a token and of an embedding.
        patch_samples: samples in one patch.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        shape = config.shape
        self.dim = shape.width
        self.patch_samples = config.patch_samples
        self.stem = STEMS[config.stem](config)
        self.transformer = Transformer(shape.width, shape.depth, shape.heads, config.activation_checkpointing)
        self.apply(initialise)

    def forward(
        self,
        signal: Tensor,
        valid_samples: Tensor,
        lead_mask: Tensor,
        kept: Tensor | None = None,
        kept_valid: Tensor | None = None,
    ) -> Tensor:
        """Encode all patches, or the kept ones.

        Args:
            signal: ``(batch, 12, samples)``, filtered and scaled.
            valid_samples: ``(batch,)`` int64; samples from here on are padding.
            lead_mask: ``(batch, 12)`` bool, True = present.
            kept: ``(batch, kept)`` int64 numbers of the patches to encode.
            kept_valid: ``(batch, kept)`` bool, False for a slot of `kept` that is not used.

        Returns:
            ``(batch, tokens or kept, dim)`` after the last norm; zeros for padded tokens and unused slots.

        Raises:
            ConfigError: if the window is not a whole number of patches.
            DataError: if the signal does not have 12 leads.
        """
        patches = patchify(signal, self.patch_samples)
        positions = sincos_positions(patches.shape[1], self.dim, signal.device)
        valid = self.token_valid(valid_samples, patches.shape[1])
        if kept is not None:
            patches, valid = gather_tokens(patches, kept), gather_tokens(valid, kept)
            positions = positions[kept]
        if kept_valid is not None:
            valid = valid & kept_valid
        real = valid[:, :, None, None] & lead_mask[:, None, :, None]
        tokens = self.stem(patches.masked_fill(~real, 0))
        encoded: Tensor = self.transformer(tokens + positions.to(tokens.dtype), valid)
        return encoded

    def token_valid(self, valid_samples: Tensor, tokens: int) -> Tensor:
        """Which of `tokens` patches hold signal only: ``(batch,)`` -> ``(batch, tokens)`` bool."""
        return token_valid(valid_samples, tokens, self.patch_samples)

    def embed(self, signal: Tensor, valid_samples: Tensor, lead_mask: Tensor) -> Tensor:
        """One vector per record, the mean of its valid tokens: ``(batch, 12, samples)`` -> ``(batch, dim)``.

        Arguments and errors as in `forward`. A record shorter than one patch gives zeros.
        """
        tokens: Tensor = self(signal, valid_samples, lead_mask)
        return pool(tokens, self.token_valid(valid_samples, tokens.shape[1]))
