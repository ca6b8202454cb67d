"""Product quantisation by Gumbel softmax: a latent becomes one entry of each of several codebooks.

Jang et al. 2017 (Gumbel softmax); Baevski et al. 2020 (wav2vec 2.0), sections 2 and 3.2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ecgdist.models.patches import at_least_float32

LOG_FLOOR = 1e-7
"""Added to a share before its logarithm, as in the published code."""


class Quantiser(nn.Module):
    """Scores of codes, of which the best one, after noise, is looked up in each codebook."""

    def __init__(self, width: int, codebooks: int, codes: int, dim: int) -> None:
        """Build it.

        Args:
            width: of a latent.
            codebooks, codes: how many, and of how many entries each.
            dim: width of a quantised latent, a multiple of `codebooks`.
        """
        super().__init__()
        self.codebooks, self.codes = codebooks, codes
        self.norm = nn.LayerNorm(width)
        self.score = nn.Linear(width, codebooks * codes)
        # As in the published code.
        nn.init.normal_(self.score.weight)
        nn.init.zeros_(self.score.bias)
        self.codebook = nn.Parameter(torch.rand(codebooks, codes, dim // codebooks))

    def scores(self, latents: Tensor) -> Tensor:
        """``(batch, tokens, width)`` -> ``(batch, tokens, codebooks, codes)`` in float32."""
        scores = at_least_float32(self.score(self.norm(latents)))
        return scores.view(*scores.shape[:2], self.codebooks, self.codes)

    def forward(self, latents: Tensor, gumbel: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
        """Quantise latents.

        Args:
            latents: ``(batch, tokens, width)``.
            gumbel: ``(batch, tokens, codebooks, codes)`` noise; zeros take the code with the highest score.
            temperature: of the softmax whose gradient the choice of a code is given.

        Returns:
            the quantised latents ``(batch, tokens, dim)``, the numbers of their codes ``(batch, tokens, codebooks)``,
            and the scores.
        """
        scores = self.scores(latents)
        choice, codes = straight_through(scores + gumbel, temperature)
        entries = torch.einsum("btgv,gvd->btgd", choice, at_least_float32(self.codebook))
        return entries.flatten(2), codes, scores


def straight_through(scores: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The highest score as one of n, with the gradient of a softmax: ``(..., n)`` -> the same, and ``(...)`` int64."""
    soft = (scores / temperature).softmax(dim=-1)
    best = soft.argmax(dim=-1)
    hard = F.one_hot(best, scores.shape[-1]).to(soft.dtype)
    return hard + (soft - soft.detach()), best


def perplexity(usage: Tensor) -> Tensor:
    """How many codes of each codebook are in use: ``(codebooks, codes)`` shares -> ``(codebooks,)``.

    The exponential of the entropy: 1 if one code has all, the number of codes if all have the same.
    """
    return (-(usage * (usage + LOG_FLOOR).log()).sum(dim=-1)).exp()


def diversity_loss(usage: Tensor) -> Tensor:
    """The share of codes that is not in use, 0-d: (G V - sum of perplexities) / (G V) of G codebooks of V codes.

    The form of the published code; the paper's equation 4 has the entropies themselves.

    Args:
        usage: ``(codebooks, codes)``, the mean over tokens of the softmax of their scores, without noise and
            temperature.
    """
    return 1 - perplexity(usage).sum() / usage.numel()


def diversity_slope(usage: Tensor) -> Tensor:
    """The derivative of `diversity_loss` with respect to `usage`: ``(codebooks, codes)`` -> the same."""
    logarithm = (usage + LOG_FLOOR).log() + usage / (usage + LOG_FLOOR)
    return perplexity(usage)[:, None] * logarithm / usage.numel()
