"""Encoder sizes and the configuration that chooses one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from ecgdist.config import Config


@dataclass(frozen=True)
class Size:
    """Everything that follows from the name of a size.

    Attributes:
        width, depth, heads: of the encoder's transformer.
        stem_channels: channels of the convolutional stem's first layer.
        decoder_width, decoder_depth, decoder_heads: of the decoder that reconstructs patches.
        projector_width, projector_out: hidden and output width of the contrastive projector and predictor.
        peak_learning_rate: at a global batch of 256 records; scale it with batch / 256 (Goyal et al. 2017,
            section 2.1).
        weight_decay: of AdamW.
        warmup_share: share of all steps over which the learning rate rises to its peak.
    """

    width: int
    depth: int
    heads: int
    stem_channels: int
    decoder_width: int
    decoder_depth: int
    decoder_heads: int
    projector_width: int
    projector_out: int
    peak_learning_rate: float
    weight_decay: float
    warmup_share: float


# Encoder shapes from small on are those of ViT-S, ViT-B and ViT-L (Dosovitskiy et al. 2021, table 1; Touvron
# et al. 2021, table 1), the base decoder and learning rate are those ST-MEM gives (Na et al. 2024); every
# other value is ours.
SIZES: dict[str, Size] = {
    "tiny": Size(
        width=128, depth=4, heads=4, stem_channels=16,
        decoder_width=64, decoder_depth=1, decoder_heads=4,
        projector_width=256, projector_out=64,
        peak_learning_rate=1e-3, weight_decay=0.05, warmup_share=0.1,
    ),
    "small": Size(
        width=384, depth=12, heads=6, stem_channels=32,
        decoder_width=256, decoder_depth=2, decoder_heads=4,
        projector_width=1024, projector_out=128,
        peak_learning_rate=3e-4, weight_decay=0.05, warmup_share=0.1,
    ),
    "base": Size(
        width=768, depth=12, heads=12, stem_channels=64,
        decoder_width=256, decoder_depth=4, decoder_heads=4,
        projector_width=2048, projector_out=256,
        peak_learning_rate=1.5e-4, weight_decay=0.05, warmup_share=0.1,
    ),
    "large": Size(
        width=1024, depth=24, heads=16, stem_channels=64,
        decoder_width=512, decoder_depth=4, decoder_heads=8,
        projector_width=4096, projector_out=256,
        peak_learning_rate=1e-4, weight_decay=0.05, warmup_share=0.1,
    ),
}  # fmt: skip


class EncoderConfig(Config):
    """Which encoder to build."""

    size: Literal["tiny", "small", "base", "large"] = "small"
    """Name of a row of `SIZES`; it sets width, depth, heads and training values."""

    patch_samples: int = Field(default=75, ge=4)
    """Samples in one patch; 75 at 250 Hz is 0.3 s (ST-MEM). A window must be a whole number of patches."""

    stem: Literal["conv", "linear"] = "conv"
    """How a patch becomes a token: convolutions inside the patch, or one linear map."""

    activation_checkpointing: bool = False
    """Recompute transformer blocks in the backward pass: less memory, about a third more compute."""

    @property
    def shape(self) -> Size:
        """The row of `SIZES` that this configuration names."""
        return SIZES[self.size]
