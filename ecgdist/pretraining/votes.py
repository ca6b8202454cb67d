"""What every rank asks of all of them, once a step: decided together, or ranks would wait for each other for ever."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Votes:
    """One rank's wishes, or, after a step, what is agreed: everything that at least one rank wished.

    Attributes:
        save: write a checkpoint after this step.
        stop: write one, wait until it is committed, and leave.
    """

    save: bool = False
    stop: bool = False

    def counts(self) -> Tensor:
        """As numbers, to be summed over ranks: ``(2,)``, float64."""
        return torch.tensor([self.save, self.stop], dtype=torch.float64)

    @classmethod
    def agreed(cls, counts: Tensor) -> Votes:
        """What the summed `counts` of all ranks decide."""
        save, stop = (bool(count) for count in counts)
        return cls(save, stop)
