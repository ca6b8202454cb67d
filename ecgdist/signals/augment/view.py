"""What an augmentation takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from ecgdist.config import Config

if TYPE_CHECKING:
    from ecgdist.signals.augment.effect import Effect


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


@dataclass(frozen=True, eq=False)
class Rows:
    """Some ECGs of a view, to read. Their signal is selected when it is asked for, which few augmentations do.

    What the properties give may be the view's own (where all rows are meant) or a copy, so it is not written into.

    Attributes:
        view: the whole.
        index: ``(rows,)`` int64, which rows these are; None for all.
    """

    view: View
    index: Tensor | None = None

    @property
    def signal_uv(self) -> Tensor:
        """``(rows, 12, samples)``; see `View`."""
        return self._of(self.view.signal_uv)

    @property
    def valid_samples(self) -> Tensor:
        """``(rows,)``; see `View`."""
        return self._of(self.view.valid_samples)

    @property
    def lead_mask(self) -> Tensor:
        """``(rows, 12)``; see `View`."""
        return self._of(self.view.lead_mask)

    @property
    def time(self) -> Tensor:
        """``(samples,)`` int64 from 0 on."""
        return torch.arange(self.view.signal_uv.shape[-1], device=self.view.signal_uv.device)

    @property
    def in_time(self) -> Tensor:
        """``(rows, samples)`` bool, False in padding."""
        return self.time < self.valid_samples[:, None]

    def _of(self, values: Tensor) -> Tensor:
        return values if self.index is None else values.index_select(0, self.index)


class Randoms(NamedTuple):
    """Random numbers for one augmentation of some rows, drawn beforehand.

    Attributes:
        uniform: ``(rows, num_uniform)`` in [0, 1).
        normal: ``(rows, num_normal, samples)`` standard normal, or None where `num_normal` is 0.
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
    def effect(self, rows: Rows, rate_hz: float, randoms: Randoms) -> Effect:
        """What is to be done to `rows`, which stay as they are.

        Zeros in missing leads and padding stay, too; and what is done to a row depends on this row alone.
        """

    def check(self, rate_hz: float) -> None:
        """Refuse a sampling rate that the settings do not fit.

        Raises:
            ConfigError: saying what fits.
        """
