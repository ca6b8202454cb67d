"""A one-dimensional xResNet: the convolutional baseline of the ECG literature, without batch statistics."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from ecgdist.models import recompute
from ecgdist.models.config import EncoderConfig, Size
from ecgdist.models.interface import WholeWindowEncoder
from ecgdist.models.patches import at_least_float32
from ecgdist.record import NUM_LEADS

_KERNEL = 5
"""Samples under a kernel (Strodthoff et al. 2021 have 5 where images have 3)."""

_CHANNELS_PER_GROUP = 16
"""Of a group norm; the best fixed number of Wu & He 2018 (table 3)."""


@dataclass(frozen=True, kw_only=True)
class XresnetSize(Size):
    """The size of an xResNet.

    Attributes:
        stem: channels of the three convolutions of the stem.
        channels, blocks: inner channels and number of blocks of each stage; every stage after the first halves
            the rate.
        expansion: a block gives so many times its inner channels; 1 is a basic block, 4 a bottleneck.
    """

    stem: tuple[int, int, int]
    channels: tuple[int, ...]
    blocks: tuple[int, ...]
    expansion: int


# small and base are xresnet1d50 and xresnet1d101 as Strodthoff et al. 2021 have them for PTB-XL (64 channels in
# every stage); large has the widths of ResNet-101 (He et al. 2016, table 1); tiny and all training values are ours.
XRESNET_SIZES: dict[str, XresnetSize] = {
    "tiny": XresnetSize(
        stem=(16, 16, 32), channels=(32, 64, 96, 128), blocks=(1, 1, 1, 1), expansion=1, width=128,
        projector_width=256, projector_out=64,
        peak_learning_rate=1e-3, weight_decay=0.05, warmup_share=0.1,
    ),
    "small": XresnetSize(
        stem=(32, 32, 64), channels=(64, 64, 64, 64), blocks=(3, 4, 6, 3), expansion=4, width=256,
        projector_width=1024, projector_out=128,
        peak_learning_rate=1e-3, weight_decay=0.05, warmup_share=0.1,
    ),
    "base": XresnetSize(
        stem=(32, 32, 64), channels=(64, 64, 64, 64), blocks=(3, 4, 23, 3), expansion=4, width=256,
        projector_width=2048, projector_out=256,
        peak_learning_rate=1e-3, weight_decay=0.05, warmup_share=0.1,
    ),
    "large": XresnetSize(
        stem=(32, 32, 64), channels=(64, 128, 256, 512), blocks=(3, 4, 23, 3), expansion=4, width=2048,
        projector_width=4096, projector_out=256,
        peak_learning_rate=5e-4, weight_decay=0.05, warmup_share=0.1,
    ),
}  # fmt: skip


class MaskedGroupNorm(nn.Module):
    """Group norm (Wu & He 2018, eq. 1-6) whose mean and variance are over valid places only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.groups = max(1, channels // _CHANNELS_PER_GROUP)
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """``(batch, channels, time)`` -> the same, zero in padding; `valid` ``(batch, time)`` bool."""
        counted = valid[:, None, None, :]
        grouped = rearrange(at_least_float32(x), "b (g c) t -> b g c t", g=self.groups)
        num_values = (valid.sum(dim=1) * grouped.shape[2]).clamp(min=1)[:, None, None, None]
        mean = (grouped * counted).sum(dim=(2, 3), keepdim=True) / num_values
        centred = (grouped - mean) * counted
        variance = centred.square().sum(dim=(2, 3), keepdim=True) / num_values
        normal = rearrange(centred * (variance + 1e-5).rsqrt(), "b g c t -> b (g c) t").to(x.dtype)
        scaled = normal * self.weight[:, None] + self.bias[:, None]
        return scaled.masked_fill(~valid[:, None, :], 0)


class ConvNorm(nn.Module):
    """Convolution without bias and norm; padding is zero before and after it."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv1d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False)
        self.norm = MaskedGroupNorm(channels_out)

    def forward(self, x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """``(batch, channels, time)`` and ``(batch, time)`` -> both of the new time."""
        valid = valid[:, :: self.stride]
        return self.norm(self.conv(x), valid), valid


class Block(nn.Module):
    """Residual block: basic (He et al. 2016, figure 5 left) or bottleneck, the stride in the wide kernel.

    The shortcut of a block that halves the rate is an average over pairs of places and, where the channels
    change, a convolution of one sample (ResNet-D, He et al. 2019, figure 2c). The last norm of a block starts
    at one, not at zero as in xResNet: with zero, the weights before it would have no gradient at first.
    """

    def __init__(self, channels_in: int, channels: int, expansion: int, stride: int) -> None:
        super().__init__()
        channels_out = channels * expansion
        self.stride = stride
        if expansion == 1:
            convs = [ConvNorm(channels_in, channels, _KERNEL, stride), ConvNorm(channels, channels, _KERNEL)]
        else:
            convs = [
                ConvNorm(channels_in, channels, 1),
                ConvNorm(channels, channels, _KERNEL, stride),
                ConvNorm(channels, channels_out, 1),
            ]
        self.convs = nn.ModuleList(convs)
        self.shortcut = ConvNorm(channels_in, channels_out, 1) if channels_in != channels_out else None

    def forward(self, x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """``(batch, channels, time)`` and ``(batch, time)`` -> both of the new time."""
        skipped = x if self.stride == 1 else _mean_of_pairs(x, valid)
        for number, conv in enumerate(self.convs):
            x, valid = conv(F.relu(x) if number else x, valid)
        if self.shortcut is not None:
            skipped, _ = self.shortcut(skipped, valid)
        return F.relu(x + skipped), valid


class XresnetEncoder(WholeWindowEncoder):
    """xResNet (He et al. 2019, "Bag of tricks") in one dimension, after Strodthoff et al. 2021; `Encoder`.

    A stem of three convolutions and a maximum take a quarter of the rate, stages after the first half of it each:
    a token every 32 samples. Where we differ: group norm over the valid places of one record instead of batch
    norm, which would tie a record's tokens to its batch and to padding.
    """

    sizes = XRESNET_SIZES
    stack = "blocks"
    patch_samples = 32

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        shape = XRESNET_SIZES[config.size]
        self.activation_checkpointing = config.activation_checkpointing
        widths = (NUM_LEADS, *shape.stem)
        self.stem = nn.ModuleList(
            ConvNorm(widths[n], widths[n + 1], _KERNEL, stride=2 if n == 0 else 1) for n in range(3)
        )
        self.blocks = nn.ModuleList()
        channels_in = shape.stem[-1]
        for stage, (channels, count) in enumerate(zip(shape.channels, shape.blocks, strict=True)):
            for number in range(count):
                stride = 2 if stage > 0 and number == 0 else 1
                self.blocks.append(Block(channels_in, channels, shape.expansion, stride))
                channels_in = channels * shape.expansion
        self.apply(_initialise)

    def encode(self, signal: Tensor, valid: Tensor) -> Tensor:
        """See `WholeWindowEncoder.encode`."""
        x = signal
        for conv in self.stem:
            x, valid = conv(x, valid)
            x = F.relu(x)
        # Nothing is below zero here, so that zeros in padding are never the maximum's choice.
        valid = valid[:, ::2]
        x = F.max_pool1d(x, kernel_size=3, stride=2, padding=1).masked_fill(~valid[:, None, :], 0)
        for block in self.blocks:
            x, valid = recompute.call(block, x, valid, recompute=self.activation_checkpointing)
        return x.transpose(1, 2)


def _mean_of_pairs(x: Tensor, valid: Tensor) -> Tensor:
    """Mean over each pair of neighbours, of its valid members: ``(batch, channels, time)`` -> half the time."""
    share = F.avg_pool1d(valid[:, None, :].to(x.dtype), kernel_size=2, ceil_mode=True)
    return F.avg_pool1d(x, kernel_size=2, ceil_mode=True) / share.clamp(min=0.5)


def _initialise(module: nn.Module) -> None:
    """Normal weights of variance 2 / fan-in (He et al. 2015, eq. 10) for a convolution."""
    if isinstance(module, nn.Conv1d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
