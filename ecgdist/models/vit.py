"""The vision transformer: patches of an ECG window to tokens, encoding only the patches that are kept."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ecgdist.models.config import SIZES, EncoderConfig
from ecgdist.models.interface import Encoder, Latents
from ecgdist.models.patches import gather_tokens
from ecgdist.models.stem import STEMS
from ecgdist.models.transformer import Transformer, initialise


class VitEncoder(Encoder):
    """Vision transformer (Dosovitskiy et al. 2021) over the tokens of a `Layout`.

    Kept patches are picked before anything is computed, so hidden samples touch no token. Tokens that are not
    valid and values that were not recorded (see `Layout`) are set to zero on the way in, whatever they hold.
    The window may be any whole number of patches.

    Tokens of ``time`` and ``lead`` have fixed positions, of their time or of their lead. Those of ``lead_time``
    have the fixed position of their time and a learned embedding of their lead, as in ST-MEM (Na et al. 2024),
    whose SEP tokens around each lead we leave out: the lead embedding says already which lead a token is of, and
    so every token is a patch.

    Attributes:
        layout: what a token is.
    """

    drops_tokens = True
    replaces_tokens = True
    settings = frozenset({"tokens", "patch_samples", "stem"})
    sizes = SIZES
    stack = "transformer.blocks"

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        shape = SIZES[config.size]
        self.layout, self.patch_samples = config.layout, config.patch_samples
        self.stem = STEMS[config.stem](config)
        self.transformer = Transformer(shape.width, shape.depth, shape.heads, config.activation_checkpointing)
        self.lead_embedding: nn.Embedding | None = None
        if config.tokens == "lead_time":
            self.lead_embedding = nn.Embedding(self.layout.sequences, shape.width)
            nn.init.normal_(self.lead_embedding.weight, std=0.02)
        self.apply(initialise)

    def num_tokens(self, window_samples: int) -> int:
        """How many tokens a window gives; see `Layout.num_tokens`."""
        return self.layout.num_tokens(window_samples)

    def token_valid(self, valid_samples: Tensor, lead_mask: Tensor, tokens: int) -> Tensor:
        """Which tokens stand for signal; see `Layout.token_valid`."""
        return self.layout.token_valid(valid_samples, lead_mask, tokens)

    def forward(
        self,
        signal: Tensor,
        valid_samples: Tensor,
        lead_mask: Tensor,
        kept: Tensor | None = None,
        kept_valid: Tensor | None = None,
    ) -> Tensor:
        """Encode all tokens, or the kept ones; see `Encoder.forward`."""
        patches, valid, present = self._patches(signal, valid_samples, lead_mask)
        places = self._places(patches.shape[1], signal.device)
        if kept is not None:
            patches, valid = gather_tokens(patches, kept), gather_tokens(valid, kept)
            present = gather_tokens(present, kept) if present.shape[1] > 1 else present
            places = places[kept]
        if kept_valid is not None:
            valid = valid & kept_valid
        return self._mixed(self.stem(_recorded(patches, valid, present)), places, valid)

    def latents(self, signal: Tensor, valid_samples: Tensor, lead_mask: Tensor) -> Latents:
        """The stem's tokens, without positions; see `Encoder.latents`."""
        features = self.stem.features(_recorded(*self._patches(signal, valid_samples, lead_mask)))
        return Latents(self.stem.tokens(features), features)

    def contextualise(self, latents: Tensor, valid: Tensor) -> Tensor:
        """Add positions and let tokens see each other; see `Encoder.contextualise`."""
        return self._mixed(latents, self._places(latents.shape[1], latents.device), valid)

    def _patches(
        self, signal: Tensor, valid_samples: Tensor, lead_mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """All patches of a window, which of them are valid, and which of their values were recorded."""
        patches = self.layout.patchify(signal)
        count = patches.shape[1]
        valid = self.token_valid(valid_samples, lead_mask, count)
        return patches, valid, self.layout.present(valid_samples, lead_mask, count)

    def _mixed(self, tokens: Tensor, places: Tensor, valid: Tensor) -> Tensor:
        encoded: Tensor = self.transformer(tokens + places.to(tokens.dtype), valid)
        return encoded

    def _places(self, tokens: int, device: torch.device) -> Tensor:
        """What tells tokens apart that hold the same values: ``(tokens, dim)``."""
        positions = self.layout.positions(tokens, self.dim, device)
        if self.lead_embedding is None:
            return positions
        embedded: Tensor = self.lead_embedding(self.layout.leads(tokens, device))
        return positions + embedded


def _recorded(patches: Tensor, valid: Tensor, present: Tensor) -> Tensor:
    """Patches with zeros for all that was not recorded."""
    return patches.masked_fill(~(valid[:, :, None, None] & present), 0)
