"""Watch whether embeddings still tell records apart; contrastive training may end with the same one for all."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

ROWS = 256
"""Most records that are looked at; more would cost time and show no more."""
_LEAST_STD, _LEAST_RANK = 0.01, 1.5


class Spread(NamedTuple):
    """How much the embeddings of a batch differ.

    Attributes:
        embedding_std: standard deviation over records of normalised embeddings, times the root of their width: 1 for
            directions drawn at random, 0 if all are the same. 0.1 means a cosine of 0.99 between two records.
        effective_rank: how many directions they differ in: the exponential of the entropy of the singular values, as
            shares of their sum (Roy & Vetterli 2007, definition 1), of centred normalised embeddings.
    """

    embedding_std: float
    effective_rank: float

    @property
    def is_collapsed(self) -> bool:
        """Whether nothing can be learned from such embeddings any more."""
        return self.embedding_std < _LEAST_STD or self.effective_rank < _LEAST_RANK

    def __str__(self) -> str:
        return f"embedding_std {self.embedding_std:.4f}, effective_rank {self.effective_rank:.2f}"


@torch.no_grad()
def measure(embeddings: Tensor) -> Spread | None:
    """The spread of embeddings, ``(records, dim)``, or None of fewer than two; those without signal, all zeros, do not
    count."""
    seen = embeddings[(embeddings != 0).any(dim=1)][:ROWS].double()
    if len(seen) < 2:
        return None
    normalised = F.normalize(seen, dim=1)
    centred = normalised - normalised.mean(dim=0)
    std = centred.square().sum(dim=1).mean().sqrt()
    values = torch.linalg.svdvals(centred)
    shares = values / values.sum().clamp(min=torch.finfo(values.dtype).tiny)
    entropy = -torch.special.xlogy(shares, shares).sum()
    return Spread(float(std), float(entropy.exp()))
