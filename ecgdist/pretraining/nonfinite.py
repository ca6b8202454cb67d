"""Losses and gradients that are not finite: found on the rank where they arise, before ranks add theirs up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import Tensor

from ecgdist.errors import StorageError, TrainingError
from ecgdist.patience import patiently
from ecgdist.storage import Location

FOLDER = "nonfinite"
_SHOWN = 8


class GradientWatch:
    """Looks at every gradient of a module where autograd makes it, before ZeRO reduces or clips it."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._sums: list[Tensor] = []
        for weight in module.parameters():
            if weight.requires_grad:
                weight.register_hook(self._look)  # type: ignore[no-untyped-call]

    def _look(self, gradient: Tensor) -> None:
        # A sum that is not finite has a part that is not, or parts so large that the gradient's norm is infinite.
        self._sums.append(gradient.sum(dtype=torch.float32))

    def take(self) -> Tensor:
        """Whether any gradient since the last call was not finite: 0-d bool on its device, which is not waited for."""
        sums, self._sums = self._sums, []
        return torch.stack(sums).isfinite().logical_not().any() if sums else torch.zeros((), dtype=torch.bool)


@dataclass(frozen=True)
class Suspects:
    """What was not finite on one rank.

    Attributes:
        what: ``loss`` or ``gradient``.
        suspects: row ids of the micro-batches in which it was found.
        batch: row ids of all of the rank's rows of this step.
    """

    step: int
    rank: int
    what: str
    suspects: Sequence[str]
    batch: Sequence[str]

    @property
    def file(self) -> str:
        """Where `write` puts this, in the run's folder."""
        return f"{FOLDER}/step-{self.step:08d}-rank-{self.rank}.json"

    def __str__(self) -> str:
        shown = ", ".join(self.suspects[:_SHOWN])
        return f"rank {self.rank}: {shown}{' ...' if len(self.suspects) > _SHOWN else ''}"


class NotFiniteError(TrainingError):
    """All ranks stopped together, before the weights changed.

    Attributes:
        found: of all ranks on which something was not finite; equal on all ranks.
    """

    found: Sequence[Suspects] = ()

    @classmethod
    def of(cls, found: Sequence[Suspects]) -> NotFiniteError:
        """The error that says so."""
        what = "loss" if any(item.what == "loss" for item in found) else "gradient"
        error = cls(
            f"step {found[0].step}: the {what} is not finite in a micro-batch with these records "
            f"({'; '.join(map(str, found))}). The weights were not changed. The run's folder lists all of them in "
            f"{', '.join(item.file for item in found)}. Look at these records in their source; run again to go on from "
            "the last checkpoint, or begin anew in another --out with a lower optimizer.learning_rate"
        )
        error.found = found
        return error


def write_suspects(run: Location, error: NotFiniteError) -> TrainingError:
    """Write down the records of every rank that found something; waits while storage is away.

    Returns:
        What is to be told.
    """
    try:
        for item in error.found:
            content = json.dumps(asdict(item), indent=1).encode() + b"\n"
            patiently(partial((run / item.file).write_bytes, content))
    except StorageError as failure:
        return TrainingError(f"{error}. (The lists could not be written: {failure})")
    return error
