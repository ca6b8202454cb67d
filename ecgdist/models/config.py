"""Encoder sizes and the configuration that chooses an encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field, field_validator, model_validator

from ecgdist.config import Config, refuse_foreign_settings
from ecgdist.models.layout import Layout, Tokens


@dataclass(frozen=True, kw_only=True)
class Size:
    """What follows from the name of a size, whatever the kind of encoder.

    Attributes:
        width: of a token and of an embedding.
        projector_width, projector_out: hidden and output width of the contrastive projector and predictor.
        peak_learning_rate: at a global batch of 256 records; scale it with batch / 256 (Goyal et al. 2017,
            section 2.1).
        weight_decay: of AdamW.
        warmup_share: share of all steps over which the learning rate rises to its peak.
    """

    width: int
    projector_width: int
    projector_out: int
    peak_learning_rate: float
    weight_decay: float
    warmup_share: float


@dataclass(frozen=True, kw_only=True)
class VitSize(Size):
    """The size of a vision transformer and of the decoder that goes with it.

    Attributes:
        depth, heads: of the encoder's transformer.
        stem_channels: channels of the convolutional stem's first layer.
        decoder_width, decoder_depth, decoder_heads: of the decoder that reconstructs patches.
    """

    depth: int
    heads: int
    stem_channels: int
    decoder_width: int
    decoder_depth: int
    decoder_heads: int


# Encoder shapes from small on are those of ViT-S, ViT-B and ViT-L (Dosovitskiy et al. 2021, table 1; Touvron
# et al. 2021, table 1), the base decoder and learning rate are those ST-MEM gives (Na et al. 2024); every
# other value is ours.
SIZES: dict[str, VitSize] = {
    "tiny": VitSize(
        width=128, depth=4, heads=4, stem_channels=16,
        decoder_width=64, decoder_depth=1, decoder_heads=4,
        projector_width=256, projector_out=64,
        peak_learning_rate=1e-3, weight_decay=0.05, warmup_share=0.1,
    ),
    "small": VitSize(
        width=384, depth=12, heads=6, stem_channels=32,
        decoder_width=256, decoder_depth=2, decoder_heads=4,
        projector_width=1024, projector_out=128,
        peak_learning_rate=3e-4, weight_decay=0.05, warmup_share=0.1,
    ),
    "base": VitSize(
        width=768, depth=12, heads=12, stem_channels=64,
        decoder_width=256, decoder_depth=4, decoder_heads=4,
        projector_width=2048, projector_out=256,
        peak_learning_rate=1.5e-4, weight_decay=0.05, warmup_share=0.1,
    ),
    "large": VitSize(
        width=1024, depth=24, heads=16, stem_channels=64,
        decoder_width=512, decoder_depth=4, decoder_heads=8,
        projector_width=4096, projector_out=256,
        peak_learning_rate=1e-4, weight_decay=0.05, warmup_share=0.1,
    ),
}  # fmt: skip


class EncoderConfig(Config):
    """Which encoder to build."""

    kind: str = "vit"
    """Name of a row of `encoders.ENCODERS`: vit (transformer over patches), xresnet (convolutions) or s4d
    (state space). The last two encode whole windows and serve contrastive objectives with the full view."""

    size: Literal["tiny", "small", "base", "large"] = "small"
    """Name of a row of the kind's table of sizes; it sets width, depth and training values."""

    tokens: Tokens = "time"
    """What a token of a vit is, and with it how it reconstructs: time is a patch of all leads (MTAE), lead a
    whole lead (MLAE), lead_time a patch of one lead (ST-MEM)."""

    patch_samples: int = Field(default=75, ge=4)
    """Of a vit: samples in one patch; 75 at 250 Hz is 0.3 s (ST-MEM). A window must be a whole number of
    patches; with tokens = lead, one patch."""

    stem: Literal["conv", "linear"] = "conv"
    """Of a vit: how a patch becomes a token: convolutions inside the patch, or one linear map (which MTAE, MLAE
    and ST-MEM have; for a whole lead it is by far the smaller one)."""

    activation_checkpointing: bool = False
    """Recompute blocks in the backward pass: less memory, about a third more compute."""

    @property
    def shape(self) -> Size:
        """The size that this configuration names."""
        # Imported here and below, because encoders import their configuration.
        from ecgdist.models.encoders import ENCODERS

        return ENCODERS[self.kind].sizes[self.size]

    @property
    def layout(self) -> Layout:
        """How a vit cuts windows into tokens."""
        return Layout(self.tokens, self.patch_samples)

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        from ecgdist.models.encoders import ENCODERS

        if kind not in ENCODERS:
            raise ValueError(f"there is no such encoder; choose one of {', '.join(ENCODERS)}")
        return kind

    @model_validator(mode="after")
    def _only_settings_of_its_kind(self) -> EncoderConfig:
        from ecgdist.models.encoders import ENCODERS

        settings = {kind: encoder.settings for kind, encoder in ENCODERS.items()}
        refuse_foreign_settings(self, "kind", {"size", "activation_checkpointing"}, settings)
        return self
