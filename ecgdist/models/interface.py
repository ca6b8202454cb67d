"""What every encoder offers, so that objectives, evaluation and model folders need not know its kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ecgdist.errors import ConfigError
from ecgdist.models.config import EncoderConfig, Size
from ecgdist.models.patches import check_leads, dtype_of, pool


class Latents(NamedTuple):
    """Tokens as a stem makes them.

    Attributes:
        tokens: ``(batch, tokens, dim)``.
        features: ``(batch, tokens, features)``, what they were made of, before it was normalised.
    """

    tokens: Tensor
    features: Tensor


class Encoder(nn.Module, ABC):
    """ECG windows to tokens. Leads may be missing, records may be padded; neither touches a valid token.

    The first layers, which see samples, are the submodule ``stem``.

    Attributes:
        drops_tokens: whether it can encode kept tokens alone; masked reconstruction needs that.
        replaces_tokens: whether it has `latents`, of which some may be replaced before it goes on to `contextualise`
            them; masked prediction (wav2vec) needs that.
        settings: the fields of `EncoderConfig` that it reads, beside kind, size and activation checkpointing.
        sizes: what each name of a size stands for.
        stack: name of the list of its layers, in the order in which they are run.
        dim: width of a token and of an embedding.
        patch_samples: samples from one token to the next.
    """

    drops_tokens: ClassVar[bool]
    replaces_tokens: ClassVar[bool] = False
    settings: ClassVar[frozenset[str]]
    sizes: ClassVar[Mapping[str, Size]]
    stack: ClassVar[str]
    dim: int
    patch_samples: int

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dim = config.shape.width

    @abstractmethod
    def num_tokens(self, window_samples: int) -> int:
        """How many tokens a window gives.

        Raises:
            ConfigError: if the encoder cannot take such a window.
        """

    @abstractmethod
    def token_valid(self, valid_samples: Tensor, lead_mask: Tensor, tokens: int) -> Tensor:
        """Which tokens stand for signal: ``(batch,)`` and ``(batch, 12)`` -> ``(batch, tokens)`` bool.

        Args:
            valid_samples: samples from here on are padding.
            lead_mask: True = present.
            tokens: `num_tokens` of the window.
        """

    @abstractmethod
    def forward(
        self,
        signal: Tensor,
        valid_samples: Tensor,
        lead_mask: Tensor,
        kept: Tensor | None = None,
        kept_valid: Tensor | None = None,
    ) -> Tensor:
        """Encode all tokens, or the kept ones.

        Args:
            signal: ``(batch, 12, samples)``, filtered and scaled.
            valid_samples: ``(batch,)`` int64; samples from here on are padding.
            lead_mask: ``(batch, 12)`` bool, True = present.
            kept: ``(batch, kept)`` int64 numbers of the tokens to encode.
            kept_valid: ``(batch, kept)`` bool, False for a slot of `kept` that is not used.

        Returns:
            ``(batch, tokens or kept, dim)``; zeros for tokens that are not valid and for unused slots.

        Raises:
            ConfigError: if the window does not fit, or if tokens are to be dropped and `drops_tokens` is False.
            DataError: if the signal does not have 12 leads.
        """

    @property
    def num_layers(self) -> int:
        """How many layers stand on the stem."""
        return len(list(self.get_submodule(self.stack).children()))

    def layer_of(self, weight: str) -> int:
        """The layer that a weight belongs to: 0 for what comes before the first, then 1 to `num_layers`.

        What comes after the last one, such as its norm, counts with it.

        Args:
            weight: its name.
        """
        if weight.startswith(f"{self.stack}."):
            return 1 + int(weight.removeprefix(f"{self.stack}.").partition(".")[0])
        return 0 if weight.startswith(("stem.", "lead_embedding.")) else self.num_layers

    def latents(self, signal: Tensor, valid_samples: Tensor, lead_mask: Tensor) -> Latents:
        """What each token is before it has seen any other.

        Arguments as in `forward`. Nothing in a token's latent comes from samples of another token.

        Raises:
            ConfigError: if `replaces_tokens` is False, or the window does not fit.
            DataError: if the signal does not have 12 leads.
        """
        raise self._no_latents()

    def contextualise(self, latents: Tensor, valid: Tensor) -> Tensor:
        """The tokens that latents become once they have seen each other, so that `forward` is both in a row.

        Args:
            latents: ``(batch, tokens, dim)``, tokens of `latents`, some of them perhaps replaced.
            valid: ``(batch, tokens)`` bool, see `token_valid`.

        Returns:
            ``(batch, tokens, dim)``; zeros for tokens that are not valid.

        Raises:
            ConfigError: if `replaces_tokens` is False.
        """
        raise self._no_latents()

    def _no_latents(self) -> ConfigError:
        return ConfigError(
            f"{type(self).__name__} has no latents that could be replaced; use encoder.kind = vit"
        )

    def embed(self, signal: Tensor, valid_samples: Tensor, lead_mask: Tensor) -> Tensor:
        """One vector per record, the mean of its valid tokens: ``(batch, 12, samples)`` -> ``(batch, dim)``.

        Arguments and errors as in `forward`. A record without a valid token gives zeros.
        """
        tokens: Tensor = self(signal, valid_samples, lead_mask)
        return pool(tokens, self.token_valid(valid_samples, lead_mask, tokens.shape[1]))


class WholeWindowEncoder(Encoder):
    """An encoder whose layers look across time, so that it cannot leave hidden tokens out.

    Token n stands at sample n * patch_samples, and is valid if that sample is. Padding and missing leads are set to
    zero on the way in. Subclasses set padded places to zero again before every layer that looks across time, and
    count them in no mean: a padded record has the tokens that it has alone.
    """

    drops_tokens = False
    settings = frozenset()

    def num_tokens(self, window_samples: int) -> int:
        """How many tokens a window of any length gives."""
        return -(-window_samples // self.patch_samples)

    def token_valid(self, valid_samples: Tensor, lead_mask: Tensor, tokens: int) -> Tensor:
        """Which tokens stand at a sample of the signal, as in `Encoder`; leads do not matter."""
        return starts_before(valid_samples, tokens, self.patch_samples)

    def forward(
        self,
        signal: Tensor,
        valid_samples: Tensor,
        lead_mask: Tensor,
        kept: Tensor | None = None,
        kept_valid: Tensor | None = None,
    ) -> Tensor:
        """Encode all tokens; see `Encoder.forward`."""
        if kept is not None or kept_valid is not None:
            raise ConfigError(
                f"{type(self).__name__} encodes whole windows and cannot leave tokens out; "
                "give it the full view, or use encoder.kind = vit"
            )
        check_leads(signal)
        valid = starts_before(valid_samples, signal.shape[2], 1)
        real = valid[:, None, :] & lead_mask[:, :, None]
        return self.encode(signal.masked_fill(~real, 0).to(dtype_of(self)), valid)

    @abstractmethod
    def encode(self, signal: Tensor, valid: Tensor) -> Tensor:
        """Tokens of windows without anything in padding and missing leads.

        Args:
            signal: ``(batch, 12, samples)`` in the type of the weights.
            valid: ``(batch, samples)`` bool, False for padding. ``valid[:, ::s]`` is the same after a layer of
                stride s that pads by half its kernel.

        Returns:
            ``(batch, tokens, dim)``, zeros for padded tokens.
        """


def starts_before(valid_samples: Tensor, count: int, stride: int) -> Tensor:
    """Which of `count` places, `stride` samples apart, are signal: ``(batch,)`` -> ``(batch, count)`` bool."""
    places = torch.arange(count, device=valid_samples.device) * stride
    return places < valid_samples[:, None]
