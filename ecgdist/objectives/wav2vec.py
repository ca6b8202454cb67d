"""Masked prediction: tell a hidden token's quantised latent from those of others (wav2vec 2.0, Baevski et al. 2020).

With CMSC and random lead masking it is the generative, local part of WCR (Oh et al. 2022). The latents are the tokens
of the encoder's stem; the encoder's transformer sees them with a learned vector in place of hidden ones. Published, the
loss is a sum over M hidden tokens, L = L_w2v + M (0.1 L_diversity + 10 L_penalty + w L_CMSC); ours is that divided by
the M of the global batch, L = mean L_w2v + 0.1 L_diversity + 10 L_penalty + w L_CMSC. Where nothing is hidden there is
neither. The penalty is the mean square of the stem's features before their norm, and the gradient of these is scaled,
which is where both stand in the published network, too. Where we differ: flat patches are predicted by nobody and
nobody's distractors, the mask is that of `span_mask`, what is quantised is the stem's token (after norm and
projection), and nothing is dropped out.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ecgdist.errors import ConfigError, TrainingError
from ecgdist.models.config import EncoderConfig
from ecgdist.models.interface import Encoder
from ecgdist.models.patches import at_least_float32
from ecgdist.models.transformer import initialise
from ecgdist.objectives.generative import GenerativeConfig
from ecgdist.objectives.masking import span_mask
from ecgdist.objectives.part import GenerativePart, Mask, Seen, Window
from ecgdist.objectives.quantiser import Quantiser, diversity_loss, diversity_slope, perplexity
from ecgdist.objectives.reconstruction import FLAT_VARIANCE, patch_targets
from ecgdist.streaming.draws import hashed, quantiles


class MaskEmbedding(nn.Module):
    """A learned vector that stands for hidden tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.rand(width))

    def forward(self, latents: Tensor, hidden: Tensor) -> Tensor:
        """``(batch, tokens, width)`` and ``(batch, tokens)`` bool -> the latents with hidden ones replaced."""
        return torch.where(hidden[:, :, None], self.embedding, latents)


class Wav2Vec(GenerativePart):
    """Masked prediction of quantised latents; see this file's docstring.

    Its census is how many tokens are predicted, twice, how many latents are penalised, and then, over the tokens that
    are predicted, the sums of each code's share by softmax (for the diversity) and of how often it has the highest
    score (for the reading).
    """

    settings: ClassVar[frozenset[str]] = frozenset(
        {
            "mask_share",
            "mask_span",
            "codebooks",
            "codes",
            "distractors",
            "temperature",
            "gumbel_start",
            "gumbel_end",
            "gumbel_decay",
            "final_dim",
            "diversity_weight",
            "penalty_weight",
            "stem_gradient_scale",
        }
    )
    needs: ClassVar[str] = "replaces_tokens"
    looks_ahead: ClassVar[bool] = True

    def __init__(self, encoder: EncoderConfig, config: GenerativeConfig, num_tokens: int) -> None:
        super().__init__(encoder, config, num_tokens)
        if config.mask_span > num_tokens // 2:
            raise ConfigError(
                f"generative.mask_span = {config.mask_span} is more than half of the {num_tokens} tokens of a window; "
                f"use at most {num_tokens // 2}, a smaller encoder.patch_samples or a longer device.window_s"
            )
        width, dim = encoder.shape.width, config.final_dim or encoder.shape.projector_out
        if dim % config.codebooks:
            raise ConfigError(
                f"generative.final_dim = {dim} cannot be divided among generative.codebooks = {config.codebooks}; "
                "choose a multiple"
            )
        self._config, self._layout = config, encoder.layout
        self.mask_embedding = MaskEmbedding(width)
        self.quantiser = Quantiser(width, config.codebooks, config.codes, dim)
        self.project_quantised = nn.Linear(dim, dim)
        self.project_context = nn.Linear(width, dim)
        for projection in (self.project_quantised, self.project_context):
            initialise(projection)

    @classmethod
    def masking(cls, encoder: EncoderConfig, config: GenerativeConfig) -> Mask:
        """Spans of time."""
        if encoder.tokens != "time":
            raise ConfigError(
                f"generative.method = wav2vec hides spans of time and so needs encoder.tokens = time, not "
                f"{encoder.tokens}; use time, or generative.method = reconstruction"
            )
        return partial(span_mask, share=config.mask_share, span=config.mask_span)

    @classmethod
    def factors(cls, config: GenerativeConfig) -> dict[str, float]:
        """See `GenerativePart.factors`."""
        return {
            "prediction": 1.0,
            "diversity": config.diversity_weight,
            "feature_penalty": config.penalty_weight,
        }

    def gumbel_temperature(self, step: int) -> float:
        """Temperature of the choice of codes: it decays from step to step, down to an end."""
        config = self._config
        return max(config.gumbel_start * config.gumbel_decay**step, config.gumbel_end)

    def see(self, encoder: Encoder, window: Window, mask: Mask, noise: Tensor) -> Seen:
        """Encode all tokens, hidden ones replaced by the mask embedding."""
        valid = encoder.token_valid(window.valid_samples, window.lead_mask, noise.shape[1])
        every, _, hidden = mask(noise, valid)
        latents = encoder.latents(*window)
        if latents.features.requires_grad:
            scale = self._config.stem_gradient_scale
            latents.features.register_hook(lambda gradient: gradient * scale)  # type: ignore[no-untyped-call]
        tokens = encoder.contextualise(self.mask_embedding(latents.tokens, hidden), valid)
        return Seen(tokens, every, valid, valid, hidden, latents)

    def counts(self, window: Window, hidden: Tensor, valid: Tensor, row_weight: Tensor) -> Tensor:
        """How many tokens are predicted, twice, and how many latents penalised; see `GenerativePart.counts`."""
        predicted = self._predicted(window, hidden, row_weight).sum()
        return torch.stack([predicted, predicted, (valid * row_weight[:, None]).sum()])

    def look(self, encoder: Encoder, window: Window, hidden: Tensor, row_weight: Tensor) -> Tensor:
        """Sums over predicted tokens of how codes are used; see the class."""
        scores = self.quantiser.scores(encoder.latents(*window).tokens)
        weight = self._predicted(window, hidden, row_weight)[:, :, None, None]
        best = F.one_hot(scores.argmax(dim=-1), scores.shape[-1])
        used = [
            (each * weight).sum(dim=(0, 1), dtype=torch.float64) for each in (scores.softmax(dim=-1), best)
        ]
        return torch.stack(used).flatten()

    def sums(
        self,
        seen: Seen,
        window: Window,
        row_weight: Tensor,
        seeds: Tensor | None,
        census: Tensor | None,
        step: int,
    ) -> Tensor:
        """Prediction, diversity and penalty of some rows, as sums; see `GenerativePart.sums`."""
        if seeds is None or census is None or seen.latents is None:
            raise TrainingError(
                "generative.method = wav2vec needs seeds and the census of the global batch; take the pass with "
                "look_ahead first"
            )
        predicted = self._predicted(window, seen.hidden, row_weight)
        gumbel, shares = self._draws(seeds, predicted.shape[1])
        quantised, codes, scores = self.quantiser(seen.latents.tokens, gumbel, self.gumbel_temperature(step))
        losses = prediction_losses(
            at_least_float32(self.project_context(seen.tokens)),
            at_least_float32(self.project_quantised(quantised.to(seen.tokens.dtype))),
            codes,
            times_drawn(shares, predicted > 0),
            self._config.temperature,
        )
        usage = self._usage(census)[0].to(scores.dtype)
        squares = at_least_float32(seen.latents.features).square().mean(dim=2)
        return torch.stack(
            [
                (losses * predicted).sum(),
                diversity_share(scores, predicted, usage),
                (squares * seen.valid * row_weight[:, None]).sum(),
            ]
        )

    def readings(self, census: Tensor) -> dict[str, float]:
        """``code_perplexity``: how many codes of a codebook are in use, the mean over codebooks."""
        return {"code_perplexity": float(perplexity(self._usage(census)[1]).mean())}

    def _usage(self, census: Tensor) -> Tensor:
        """Means over the predicted tokens of a census: by softmax and by count, ``(2, codebooks, codes)``."""
        used = census[3:].view(2, self.quantiser.codebooks, self.quantiser.codes)
        return used / census[0].clamp(min=1)

    def _predicted(self, window: Window, hidden: Tensor, row_weight: Tensor) -> Tensor:
        """How much each token's prediction counts, ``(batch, tokens)``.

        Hidden ones that are not flat count, of records with two or more: a single one has nothing to be told from.
        """
        predicted = hidden & (patch_targets(*window, self._layout).variance >= FLAT_VARIANCE)
        several = predicted.sum(dim=1, keepdim=True) > 1
        return (predicted & several) * at_least_float32(row_weight)[:, None]

    def _draws(self, seeds: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
        """Gumbel noise ``(batch, tokens, codebooks, codes)``, and ``(batch, tokens, distractors)`` in (0, 1)."""
        codebooks, codes = self.quantiser.codebooks, self.quantiser.codes
        widths = [codebooks * codes, self._config.distractors]
        numbers = hashed(seeds, tokens * sum(widths)).view(-1, tokens, sum(widths))
        noise, shares = torch.split(numbers, widths, dim=2)
        return quantiles("gumbel", noise).view(-1, tokens, codebooks, codes), quantiles("uniform", shares)


def times_drawn(shares: Tensor, predicted: Tensor) -> Tensor:
    """How often token j is a distractor of token i: ``(batch, tokens i, tokens j)``, zeros for an i not predicted.

    Distractors are drawn with replacement, evenly from the record's other predicted tokens.

    Args:
        shares: ``(batch, tokens, distractors)`` uniform numbers in (0, 1).
        predicted: ``(batch, tokens)`` bool.
    """
    number = predicted.sum(dim=1)[:, None, None]
    rank = (predicted.long().cumsum(dim=1) - 1)[:, :, None]
    drawn = (shares * (number - 1)).long()
    drawn = (drawn + (drawn >= rank)).clamp(min=0, max=predicted.shape[1] - 1)
    in_order = (~predicted).long().argsort(dim=1, stable=True)
    token = in_order[:, None, :].expand(-1, predicted.shape[1], -1).gather(2, drawn)
    times = shares.new_zeros(*predicted.shape, predicted.shape[1])
    times.scatter_add_(2, token, torch.ones_like(shares))
    return times * (predicted[:, :, None] & predicted[:, None, :])


def prediction_losses(
    context: Tensor, targets: Tensor, codes: Tensor, times: Tensor, temperature: float
) -> Tensor:
    """InfoNCE of every token: ``(batch, tokens)`` (Baevski et al. 2020, equation 3).

    With cosine similarities s and temperature T, a token's own target q and distractors q_k,

        -log( exp(s(c, q) / T) / (exp(s(c, q) / T) + sum_k exp(s(c, q_k) / T)) ),

    where distractors of the same codes as the own target are left out, as in the published code.

    Args:
        context, targets: ``(batch, tokens, dim)``; normalised here.
        codes: ``(batch, tokens, codebooks)`` int64, of the targets.
        times: ``(batch, tokens, tokens)``, how often each target is a distractor of each token.
        temperature: T.
    """
    scores = F.normalize(context, dim=2) @ F.normalize(targets, dim=2).mT / temperature
    alike = (codes[:, :, None] == codes[:, None, :]).all(dim=3)
    itself = torch.eye(scores.shape[1], dtype=scores.dtype, device=scores.device)
    # A factor of 0 is minus infinity here; the own target keeps every row finite.
    weights = (times * ~alike + itself).log()
    return (scores + weights).logsumexp(dim=2) - scores.diagonal(dim1=1, dim2=2)


def diversity_share(scores: Tensor, predicted: Tensor, usage: Tensor) -> Tensor:
    """The part of M times the diversity loss that some of the M predicted tokens answer for, 0-d.

    Its value is the number of these tokens times the loss of the whole. Its gradient is what the loss's derivative with
    respect to the mean usage makes of these tokens' usage. So the shares of all tokens have the value and gradient of
    the whole, however they are spread over processes and micro-batches.

    Args:
        scores: ``(batch, tokens, codebooks, codes)`` with gradient.
        predicted: ``(batch, tokens)`` how much each token counts.
        usage: ``(codebooks, codes)`` of the whole, without gradient.
    """
    own = (scores.softmax(dim=-1) * predicted[:, :, None, None]).sum(dim=(0, 1))
    linear = (own * diversity_slope(usage)).sum()
    return predicted.sum() * diversity_loss(usage) + (linear - linear.detach())
