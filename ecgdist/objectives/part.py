"""What every generative method offers, so that module and step need not know which one it is.

A new method is a file with a class, a line in `generation.METHODS`, its settings in `GenerativeConfig` and a test
against a loop.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ecgdist.models.config import EncoderConfig
from ecgdist.models.interface import Encoder, Latents
from ecgdist.models.patches import pool
from ecgdist.objectives.generative import GenerativeConfig

Mask = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""From noise and valid tokens, both ``(batch, tokens)``, to kept, kept_valid and hidden as `masking.random_mask`."""


class Window(NamedTuple):
    """Windows of a batch.

    Attributes:
        signal: ``(batch, 12, samples)``, filtered and scaled.
        valid_samples: ``(batch,)`` int64; samples from here on are padding.
        lead_mask: ``(batch, 12)`` bool, True = present.
    """

    signal: Tensor
    valid_samples: Tensor
    lead_mask: Tensor


class Seen(NamedTuple):
    """What the student made of a window.

    Attributes:
        tokens: ``(batch, kept, dim)``, encoded.
        kept: ``(batch, kept)`` int64, their numbers.
        kept_valid: ``(batch, kept)`` bool, False for an unused slot.
        valid: ``(batch, tokens)`` bool, False for a token without signal.
        hidden: ``(batch, tokens)`` bool, True = valid, and its samples were not seen by any of `tokens`.
        latents: of all tokens, hidden ones too; None where the method asks for none.
    """

    tokens: Tensor
    kept: Tensor
    kept_valid: Tensor
    valid: Tensor
    hidden: Tensor
    latents: Latents | None = None

    @property
    def encoded(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What a decoder takes."""
        return self[:4]

    @property
    def embedding(self) -> Tensor:
        """The mean of the encoded tokens, ``(batch, dim)``."""
        return pool(self.tokens, self.kept_valid)


class GenerativePart(nn.Module, ABC):
    """A generative method with its weights, which are no part of the published encoder.

    Its losses are means over something that is counted in the whole global batch. What a part has to know of that
    batch before any gradient is its *census*: how much each loss counts and, where `looks_ahead` is True, a summary
    (`look`) that takes a pass without gradient. Both are sums over rows, so ranks and micro-batches add them up.

    Attributes:
        settings: the fields of `GenerativeConfig` that it reads, beside method, weight and ramp_share.
        needs: which attribute of an encoder's class must be True, ``drops_tokens`` or ``replaces_tokens``.
        looks_ahead: whether its census needs the model.
    """

    settings: ClassVar[frozenset[str]]
    needs: ClassVar[str] = "drops_tokens"
    looks_ahead: ClassVar[bool] = False

    @abstractmethod
    def __init__(self, encoder: EncoderConfig, config: GenerativeConfig, num_tokens: int) -> None:
        """Build it for windows of so many tokens.

        Raises:
            ConfigError: if it cannot be had for such an encoder or window.
        """
        super().__init__()

    @classmethod
    @abstractmethod
    def masking(cls, encoder: EncoderConfig, config: GenerativeConfig) -> Mask:
        """What it hides.

        Raises:
            ConfigError: if the encoder cannot be masked so.
        """

    @classmethod
    @abstractmethod
    def factors(cls, config: GenerativeConfig) -> dict[str, float]:
        """See `GenerativeConfig.factors`."""

    @abstractmethod
    def see(self, encoder: Encoder, window: Window, mask: Mask, noise: Tensor) -> Seen:
        """Hide and encode.

        Args:
            encoder: of the student.
            window: what it is shown.
            mask: of `masking`.
            noise: ``(batch, tokens)`` uniform numbers that decide what is hidden.
        """

    @abstractmethod
    def counts(self, window: Window, hidden: Tensor, valid: Tensor, row_weight: Tensor) -> Tensor:
        """What each of its losses counts in some rows, without the model: ``(losses,)``.

        Args:
            window: of these rows.
            hidden, valid: ``(batch, tokens)`` bool, as in `Seen`.
            row_weight: ``(batch,)`` 1, or 0 for a row that only fills the batch.
        """

    def look(self, encoder: Encoder, window: Window, hidden: Tensor, row_weight: Tensor) -> Tensor:
        """What it has to know of some rows before any gradient, as flat numbers in float64 that may be summed.

        Args:
            encoder: of the student.
            window, hidden, row_weight: as in `counts`.
        """
        return row_weight.new_zeros(0, dtype=torch.float64)

    @abstractmethod
    def sums(
        self,
        seen: Seen,
        window: Window,
        row_weight: Tensor,
        seeds: Tensor | None,
        census: Tensor | None,
        step: int,
    ) -> Tensor:
        """Its losses of some rows, as sums: ``(losses,)``; divided by the counts of the census they are the losses.

        The sums of all rows of the global batch have the value and the gradient of the whole, however they are spread
        over processes and micro-batches.

        Args:
            seen, window, row_weight: of these rows.
            seeds: ``(batch,)`` int64, what `draws.hashed` makes their random numbers of.
            census: counts and then `look`, both summed over the global batch.
            step: number of the step, for what changes as training goes on.

        Raises:
            TrainingError: if it needs seeds or census and has none; none is needed unless `looks_ahead`.
        """

    def readings(self, census: Tensor) -> dict[str, float]:
        """What to watch beside the losses, by name."""
        return {}


def encode_kept(encoder: Encoder, window: Window, mask: Mask, noise: Tensor) -> Seen:
    """Leave hidden tokens out, or nothing where an encoder takes whole windows."""
    valid = encoder.token_valid(window.valid_samples, window.lead_mask, noise.shape[1])
    if not encoder.drops_tokens:
        every = torch.arange(valid.shape[1], device=valid.device).expand_as(valid)
        return Seen(encoder(*window), every, valid, valid, torch.zeros_like(valid))
    kept, kept_valid, hidden = mask(noise, valid)
    return Seen(encoder(*window, kept, kept_valid), kept, kept_valid, valid, hidden)
