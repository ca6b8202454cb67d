"""Where a trial of a sweep stands among the others, by what their runs' folders say."""

from __future__ import annotations

from collections.abc import Sequence

from ecgdist.downstream.halving import HalvingPlace, Shown, at_rung, decision, rungs_between
from ecgdist.pretraining.export import MODEL
from ecgdist.pretraining.metrics import read_metrics
from ecgdist.storage import Location

FAILED = "failed.json"
"""In the folder of a trial that will not go on."""


def name_of(number: int) -> str:
    """Name of a trial's folder."""
    return f"{number:05d}"


def has_ended(run: Location) -> bool:
    """Whether a trial has come to its end, whichever."""
    return (run / MODEL / "config.json").exists() or (run / FAILED).exists()


def shown_by(run: Location, metric: str) -> Shown:
    """What a trial has shown so far."""
    return [(row["samples"], row[metric]) for row in read_metrics(run) if metric in row]


def is_out(place: HalvingPlace, own: Shown, metric: str, mode: str) -> bool | None:
    """Whether a trial must end, by all rungs that it has reached; None while an earlier trial may still come there.

    Args:
        place: of the trial.
        own: what it has shown so far.
        metric: the figure of the validation split.
        mode: ``max`` or ``min``.

    Raises:
        StorageError: if the others' folders cannot be read now.
    """

    def look(number: int) -> tuple[Shown, bool]:
        run = Location.of(place.trials) / name_of(number)
        ended = has_ended(run)  # asked first: what it showed is whole if it had ended before
        return shown_by(run, metric), ended

    decisions = [
        decision(rung, value, place, mode, look)
        for rung in rungs_between(0, own[-1][0] if own else 0, place)
        if (value := at_rung(own, rung)) is not None
    ]
    if False in decisions:
        return True
    return None if None in decisions else False


def samples_of(looks: Sequence[tuple[int, float]], global_batch: int) -> Shown:
    """Looks by samples instead of steps."""
    return [(step * global_batch, value) for step, value in looks]
