"""Random numbers that depend on (seed, step, position in the global batch) alone, not on a rank or a history.

Resuming needs no generator state, and any number of workers draws the same numbers for the same record.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import ndtri
from torch import Tensor

# Names of the independent streams; a new use takes a new number and leaves the others as they are.
MASK, CROP_STUDENT, CROP_TEACHER, AUGMENT_STUDENT, AUGMENT_TEACHER = 100, 101, 102, 103, 104
MASK_SECOND, GENERATE, GENERATE_SECOND, DROPOUT = 105, 106, 107, 108

Stream = int | tuple[int, ...]
"""A use of random numbers; the parts of a tuple are a use and what tells its streams apart."""

# SplitMix64 (Steele, Lea & Flood 2014): the n-th number of a sequence is a mix of its seed and n times _STEP, so each
# can be had without those before it.
_STEP = 0x9E3779B97F4A7C15
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1))


@dataclass(frozen=True)
class Draws:
    """Draws for every position of every global batch of a run.

    Attributes:
        seed: of the run.
        global_batch: rows of a step.
    """

    seed: int
    global_batch: int

    def uniform(
        self, stream: Stream, step: int, positions: npt.NDArray[np.int64], width: int
    ) -> npt.NDArray[np.float32]:
        """``(len(positions), width)`` numbers in [0, 1)."""
        return self._generator(stream, step).random((self.global_batch, width), dtype=np.float32)[positions]

    def integers(
        self, stream: Stream, step: int, positions: npt.NDArray[np.int64], below: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """``(len(positions),)`` integers, the i-th in ``[0, below[i])``."""
        share = self._generator(stream, step).random(self.global_batch)[positions]
        return np.minimum((share * below).astype(np.int64), below - 1)

    def normal(
        self,
        stream: Stream,
        step: int,
        positions: npt.NDArray[np.int64],
        width: int,
        device: torch.device,
    ) -> Tensor:
        """``(len(positions), width)`` standard normal numbers in float32, the same bits on every device.

        Made for whole waveforms: the numbers are made where they are used, and only for these positions. Each is one
        of 65,536 quantiles of the normal distribution, so none is beyond 4.3, and a computer's logarithm is not
        in it.
        """
        seeds = torch.from_numpy(self.seeds(stream, step, positions)).to(device)
        return quantiles("normal", hashed(seeds, width))

    def seeds(self, stream: Stream, step: int, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """``(len(positions),)`` numbers that `hashed` makes any number of others of, where and when they are used."""
        (key,) = self._entropy(stream, step).generate_state(1, np.uint64)
        with np.errstate(over="ignore"):
            return _mixed(key + positions.astype(np.uint64) * np.uint64(_STEP)).view(np.int64)

    def _generator(self, stream: Stream, step: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(self._entropy(stream, step)))

    def _entropy(self, stream: Stream, step: int) -> np.random.SeedSequence:
        parts = stream if isinstance(stream, tuple) else (stream,)
        return np.random.SeedSequence(self.seed, spawn_key=(*parts, step))


def hashed(seeds: Tensor, width: int) -> Tensor:
    """Random integers from 0 to 65,535, the same bits on every device: ``(rows,)`` int64 -> ``(rows, width)`` int32.

    Args:
        seeds: of `Draws.seeds`; the numbers of a row depend on its seed alone.
        width: numbers of a row.
    """
    # Four numbers of 16 bits come out of one of 64.
    words = torch.arange(-(-width // 4), device=seeds.device) * _signed(_STEP)
    return _mix_in_place(words + seeds[:, None]).view(torch.int16)[:, :width].int().add_(2**15)


def quantiles(distribution: str, integers: Tensor) -> Tensor:
    """Numbers of a distribution in float32: for every integer of `hashed`, the quantile that it stands for.

    Args:
        distribution: ``uniform`` (between 0 and 1), ``normal`` or ``gumbel``.
        integers: of any shape.
    """
    table = _quantiles(distribution, str(integers.device))
    return table.index_select(0, integers.flatten()).view(integers.shape)


def _mixed(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The mixing function of SplitMix64."""
    for shift, factor in _MIX:
        numbers = (numbers ^ (numbers >> np.uint64(shift))) * np.uint64(factor)
    return numbers


def _mix_in_place(numbers: Tensor) -> Tensor:
    """`_mixed` of int64, which torch multiplies modulo 2**64 as if unsigned, but shifts with their sign."""
    for shift, factor in _MIX:
        shifted = numbers >> shift
        numbers.bitwise_xor_(shifted.bitwise_and_(2 ** (64 - shift) - 1))
        if factor != 1:
            numbers.mul_(_signed(factor))
    return numbers


def _signed(number: int) -> int:
    """The int64 with the bits of a uint64."""
    return number - 2**64 if number >= 2**63 else number


@lru_cache(maxsize=8)
def _quantiles(distribution: str, device: str) -> Tensor:
    """``(65536,)`` float32: the middle of each of as many equally likely parts of a distribution."""
    middles = (np.arange(2**16) + 0.5) / 2**16
    if distribution == "normal":
        middles = ndtri(middles)
        middles /= middles.std()
    elif distribution == "gumbel":
        middles = -np.log(-np.log(middles))
    return torch.from_numpy(middles.astype(np.float32)).to(device)
