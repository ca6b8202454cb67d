"""Heads of the contrastive part, shaped as in MoCo v3 (Chen, Xie & He 2021), without batch norm.

Batch statistics would tie a record's loss to the records that share its micro-batch; layer norm does not.
"""

from __future__ import annotations

from torch import Tensor, nn

from ecgdist.models.config import EncoderConfig
from ecgdist.models.transformer import initialise


class Projector(nn.Module):
    """Three-layer MLP from an embedding to the space that the contrast is taken in."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        shape = config.shape
        self.layers = nn.Sequential(
            *_hidden(shape.width, shape.projector_width),
            *_hidden(shape.projector_width, shape.projector_width),
            nn.Linear(shape.projector_width, shape.projector_out, bias=False),
            nn.LayerNorm(shape.projector_out, elementwise_affine=False),
        )
        self.apply(initialise)

    def forward(self, embedding: Tensor) -> Tensor:
        """``(batch, dim)`` -> ``(batch, projected)``."""
        projected: Tensor = self.layers(embedding)
        return projected


class Predictor(nn.Module):
    """Two-layer MLP that only the student has."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        shape = config.shape
        self.layers = nn.Sequential(
            *_hidden(shape.projector_out, shape.projector_width),
            nn.Linear(shape.projector_width, shape.projector_out),
        )
        self.apply(initialise)

    def forward(self, projected: Tensor) -> Tensor:
        """``(batch, projected)`` -> ``(batch, projected)``."""
        predicted: Tensor = self.layers(projected)
        return predicted


def _hidden(width_in: int, width_out: int) -> tuple[nn.Module, ...]:
    # The norm has a bias of its own.
    return nn.Linear(width_in, width_out, bias=False), nn.LayerNorm(width_out), nn.GELU()
