"""What an augmentation takes and gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from ecgdist.config import Config


class View(NamedTuple):
    """Windows of a batch of ECGs, after the band-pass and before scaling, on whatever device they are.

    Attributes:
        signal_uv: ``(batch, 12, samples)`` float32 microvolt, finite; zero in missing leads and padding.
        valid_samples: ``(batch,)`` int64; samples from here on are padding.
        lead_mask: ``(batch, 12)`` bool, True where a lead is present.
    """

    signal_uv: Tensor
    valid_samples: Tensor
    lead_mask: Tensor

    @property
    def in_time(self) -> Tensor:
        """``(batch, 1, samples)`` bool, False in padding."""
        time = torch.arange(self.signal_uv.shape[-1], device=self.signal_uv.device)
        return time < self.valid_samples[:, None, None]


class Randoms(NamedTuple):
    """Random numbers for one augmentation of a batch, drawn beforehand.

    Attributes:
        uniform: ``(batch, num_uniform)`` in [0, 1).
        normal: ``(batch, num_normal, samples)`` standard normal, or None where `num_normal` is 0.
    """

    uniform: Tensor
    normal: Tensor | None = None


class Augmentation(Config, ABC):
    """One change that is made to some of the ECGs of every batch.

    A subclass names itself by a field ``name`` with one value, has its strength as further fields, and says how many
    random numbers it takes per record. A strength is the largest; a record's own is drawn evenly from 0 to it.
    At strength 0 nothing changes, not by a bit.
    """

    num_uniform: ClassVar[int]
    num_normal: ClassVar[int] = 0

    p: float = Field(default=0.5, ge=0, le=1)
    """Probability that a record is changed at all."""

    @abstractmethod
    def apply(self, view: View, rate_hz: float, randoms: Randoms) -> View:
        """The changed view; `valid_samples` stays, and so do zeros in missing leads and padding.

        A row's result depends on this row alone.
        """

    def check(self, rate_hz: float) -> None:
        """Refuse a sampling rate that the settings do not fit.

        Raises:
            ConfigError: saying what fits.
        """
