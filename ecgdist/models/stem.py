"""Stems: one patch in, one token out. A stem never looks beyond its patch, so a hidden patch cannot leak."""

from __future__ import annotations

from abc import ABC, abstractmethod

from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from ecgdist.models.config import SIZES, EncoderConfig
from ecgdist.models.patches import dtype_of


class Stem(nn.Module, ABC):
    """A stem in two steps, of which the second begins with a norm."""

    @abstractmethod
    def features(self, patches: Tensor) -> Tensor:
        """What is found in each patch: ``(batch, tokens, rows, patch)`` -> ``(batch, tokens, features)``."""

    @abstractmethod
    def tokens(self, features: Tensor) -> Tensor:
        """``(batch, tokens, features)``, whose size does not matter, -> ``(batch, tokens, dim)``."""

    def forward(self, patches: Tensor) -> Tensor:
        """``(batch, tokens, rows, patch)`` -> ``(batch, tokens, dim)``."""
        return self.tokens(self.features(patches))


class ConvStem(Stem):
    """Three convolutions over the time of one patch, then a linear map of all that they found.

    The first layer mixes a token's leads at full rate, the next two halve the rate each. Zeros stand beyond the
    patch's own borders.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        channels = SIZES[config.size].stem_channels
        self.mix = nn.Conv1d(config.layout.rows, channels, kernel_size=7, padding=3)
        self.halve = nn.Conv1d(channels, 2 * channels, kernel_size=5, stride=2, padding=2)
        self.quarter = nn.Conv1d(2 * channels, 2 * channels, kernel_size=5, stride=2, padding=2)
        features = 2 * channels * _halved(_halved(config.patch_samples))
        self.norm = nn.LayerNorm(features)
        self.project = nn.Linear(features, config.shape.width)

    def features(self, patches: Tensor) -> Tensor:
        """What the convolutions find; see `Stem.features`."""
        x = rearrange(patches, "b n l p -> (b n) l p").to(dtype_of(self))
        x = F.gelu(self.mix(x))
        x = F.gelu(self.halve(x))
        x = F.gelu(self.quarter(x))
        # Not by einops, which takes the batch for a constant when torch.export traces it.
        return x.flatten(1).reshape(*patches.shape[:2], -1)

    def tokens(self, features: Tensor) -> Tensor:
        """See `Stem.tokens`."""
        tokens: Tensor = self.project(self.norm(features))
        return tokens


class LinearStem(Stem):
    """LayerNorm, linear map, LayerNorm of the values of a patch, as in ST-MEM (Na et al. 2024)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        values = config.layout.rows * config.patch_samples
        self.norm_in = nn.LayerNorm(values)
        self.project = nn.Linear(values, config.shape.width)
        self.norm_out = nn.LayerNorm(config.shape.width)

    def features(self, patches: Tensor) -> Tensor:
        """The mapped values; see `Stem.features`."""
        x = rearrange(patches, "b n l p -> b n (l p)").to(dtype_of(self))
        features: Tensor = self.project(self.norm_in(x))
        return features

    def tokens(self, features: Tensor) -> Tensor:
        """See `Stem.tokens`."""
        tokens: Tensor = self.norm_out(features)
        return tokens


STEMS: dict[str, type[ConvStem | LinearStem]] = {"conv": ConvStem, "linear": LinearStem}


def _halved(samples: int) -> int:
    """Length after a convolution of stride 2 that pads by half its kernel."""
    return (samples + 1) // 2
