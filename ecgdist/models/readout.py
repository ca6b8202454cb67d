"""Readouts: from an encoder's tokens to one number per label."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn
from torch.nn import functional as F

from ecgdist.models.patches import pool
from ecgdist.models.transformer import initialise


class Readout(nn.Module, ABC):
    """Pools tokens to one vector per record, and maps that linearly to the outputs."""

    def __init__(self, dim: int, outputs: int) -> None:
        super().__init__()
        self.dim = dim
        self.linear = nn.Linear(dim, outputs)

    @abstractmethod
    def pooled(self, tokens: Tensor, valid: Tensor) -> Tensor:
        """``(batch, tokens, dim)`` and which of them are valid, ``(batch, tokens)`` -> ``(batch, dim)``."""

    def forward(self, tokens: Tensor, valid: Tensor, kept: Tensor | None = None) -> Tensor:
        """Outputs of each record: ``(batch, outputs)``.

        Args:
            tokens: ``(batch, tokens, dim)``.
            valid: ``(batch, tokens)`` bool.
            kept: ``(batch, dim)``, what the pooled vector is multiplied by (dropout); None leaves it as it is.
        """
        vector = self.pooled(tokens, valid)
        outputs: Tensor = self.linear(vector if kept is None else vector * kept.to(vector.dtype))
        return outputs


class LinearReadout(Readout):
    """A linear map of the mean over valid tokens, which is what an encoder's embedding is."""

    def __init__(self, dim: int, outputs: int) -> None:
        super().__init__(dim, outputs)
        self.apply(initialise)

    def pooled(self, tokens: Tensor, valid: Tensor) -> Tensor:
        """The mean over valid tokens."""
        return pool(tokens, valid)


class AttentionReadout(Readout):
    """Tokens are pooled by attention of one learned query (attentive pooling, as in Lee et al. 2019, section 3.2).

    softmax(q K' / sqrt(d)) V over the valid tokens, in heads of `HEAD_DIM`, with K and V linear in the normalised
    tokens; then a linear map. The query starts at zero, so that pooling starts as the mean.
    """

    HEAD_DIM = 32

    def __init__(self, dim: int, outputs: int) -> None:
        super().__init__(dim, outputs)
        self.heads = max(1, dim // self.HEAD_DIM)
        while dim % self.heads:
            self.heads -= 1
        self.norm = nn.LayerNorm(dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.out_norm = nn.LayerNorm(dim)
        self.apply(initialise)
        self.query = nn.Parameter(self.linear.weight.new_zeros(dim))

    def pooled(self, tokens: Tensor, valid: Tensor) -> Tensor:
        """What the query attends to; of a record without a valid token, something finite that means nothing."""
        batch, count, dim = tokens.shape
        key, value = self.key_value(self.norm(tokens)).view(batch, count, 2, self.heads, -1).unbind(2)
        query = self.query.view(1, self.heads, 1, -1).expand(batch, -1, -1, -1)
        allowed = valid | ~valid.any(dim=1, keepdim=True)
        mixed = F.scaled_dot_product_attention(
            query.to(key.dtype),
            key.transpose(1, 2),
            value.transpose(1, 2),
            attn_mask=allowed[:, None, None, :],
        )
        normal: Tensor = self.out_norm(mixed.reshape(batch, dim))
        return normal


READOUTS: dict[str, type[Readout]] = {"linear": LinearReadout, "attention": AttentionReadout}
"""The readouts there are, by name."""
