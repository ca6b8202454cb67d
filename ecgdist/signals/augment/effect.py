"""What an augmentation does.

An augmentation says what is to be done to some rows of a batch, as a pure function of them and of random numbers; then
it is done to the whole batch where it lies. Most change a signal by a factor or a wave, which is a pass over the batch
that leaves the other rows as they are. To copy the rows, change the copies and put them back took three times as long.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from ecgdist.signals.augment.view import Rows, View


class Effect(ABC):
    """What is to be done to some ECGs."""

    @abstractmethod
    def write(self, rows: Rows) -> View:
        """Do it to rows of a view, whose signal is overwritten; its other parts are not.

        Returns:
            The changed view.
        """

    def of(self, view: View) -> View:
        """What becomes of a view, of all whose rows this is the effect; it stays as it is."""
        return self.write(Rows(view._replace(signal_uv=view.signal_uv.clone())))


@dataclass(frozen=True, eq=False)
class Scaled(Effect):
    """Multiplied.

    Attributes:
        factor: ``(rows, 12, 1)``, ``(rows, 1, samples)`` or ``(rows, 12, samples)``, float32.
    """

    factor: Tensor

    def write(self, rows: Rows) -> View:
        rows.view.signal_uv.mul_(_spread(self.factor, rows, 1.0))
        return rows.view


@dataclass(frozen=True, eq=False)
class Kept(Effect):
    """Without some leads, which are zero and count as missing.

    Attributes:
        leads: ``(rows, 12)`` bool, True where a lead stays.
    """

    leads: Tensor

    def write(self, rows: Rows) -> View:
        leads = _spread(self.leads, rows, True)
        rows.view.signal_uv.mul_(leads[:, :, None].float())
        return rows.view._replace(lead_mask=rows.view.lead_mask & leads)


@dataclass(frozen=True, eq=False)
class Waved(Effect):
    """With a wave added, of another size and sign in each lead.

    Attributes:
        gain_uv: ``(rows, 12)`` float32, zero in missing leads.
        wave: ``(rows, samples)`` float32, zero in padding.
    """

    gain_uv: Tensor
    wave: Tensor

    def write(self, rows: Rows) -> View:
        gain_uv, wave = _spread(self.gain_uv, rows, 0.0), _spread(self.wave, rows, 0.0)
        rows.view.signal_uv.addcmul_(gain_uv[:, :, None], wave[:, None])
        return rows.view


@dataclass(frozen=True, eq=False)
class Added(Effect):
    """With something else added in each lead.

    Attributes:
        added_uv: ``(rows, 12, samples)`` float32, zero in missing leads and padding.
    """

    added_uv: Tensor

    def write(self, rows: Rows) -> View:
        if rows.index is None:
            rows.view.signal_uv.add_(self.added_uv)
        else:
            rows.view.signal_uv.index_add_(0, rows.index, self.added_uv)
        return rows.view


@dataclass(frozen=True, eq=False)
class Replaced(Effect):
    """Another signal.

    Attributes:
        signal_uv: ``(rows, 12, samples)`` float32, zero in missing leads and padding.
    """

    signal_uv: Tensor

    def write(self, rows: Rows) -> View:
        if rows.index is None:
            rows.view.signal_uv.copy_(self.signal_uv)
        else:
            rows.view.signal_uv.index_copy_(0, rows.index, self.signal_uv)
        return rows.view


def _spread(values: Tensor, rows: Rows, elsewhere: float) -> Tensor:
    """``(rows, ...)`` -> ``(batch, ...)``, with `elsewhere` in the other rows."""
    if rows.index is None:
        return values
    whole = values.new_full((len(rows.view.signal_uv), *values.shape[1:]), elsewhere)
    return whole.index_copy_(0, rows.index, values)
