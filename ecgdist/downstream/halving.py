"""Asynchronous successive halving (ASHA, Li et al. 2020) as a pure function of what trials have shown.

Ray Tune's own scheduler decides by what has arrived when a result comes, so that its decisions depend on timing, and
a sweep that goes on after a kill decides anew. Here a trial is compared with those of lower numbers alone, and waits
until they have come as far as it has, or have ended. So decisions depend on results, whatever was killed when.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from pydantic import Field

from ecgdist.config import Config


class HalvingConfig(Config):
    """When trials that are not among the best are ended."""

    grace_samples: int = Field(ge=1)
    """ECGs that every trial trains on before it may be ended; rungs are this times the powers of `factor`."""
    factor: int = Field(default=3, ge=2)
    """Of the trials that reach a rung, one in so many goes on."""


class HalvingPlace(HalvingConfig):
    """A trial's place in a sweep."""

    trials: str
    """Folder with the runs of all trials."""
    number: int = Field(ge=0)
    """Of this one."""


Shown = Sequence[tuple[int, float]]
"""What a trial has shown so far: samples trained on and the figure of the validation split, in order."""


def rungs_between(before: int, after: int, config: HalvingConfig) -> list[int]:
    """The rungs, in samples, above `before` and up to `after`."""
    found, rung = [], config.grace_samples
    while rung <= after:
        if rung > before:
            found.append(rung)
        rung *= config.factor
    return found


def at_rung(shown: Shown, rung: int) -> float | None:
    """What a trial showed when it had come to a rung; None if it has not."""
    return next((value for samples, value in shown if samples >= rung), None)


def survives(own: float, others: Sequence[float], factor: int, mode: str) -> bool:
    """Whether a trial goes on from a rung.

    It does if it is at least as good as the best 1 / factor of the others' are, by linear interpolation between them,
    which is the rule of Ray Tune's ``AsyncHyperBandScheduler``; the first to come goes on.

    Args:
        own: what it showed.
        others: what the trials of lower numbers showed that came as far.
        factor: see `HalvingConfig`.
        mode: ``max`` or ``min``.
    """
    if not others:
        return True
    sign = 1 if mode == "max" else -1
    cutoff = np.percentile([sign * value for value in others], 100 * (1 - 1 / factor))
    return bool(sign * own >= cutoff)


def decision(
    rung: int,
    own: float,
    place: HalvingPlace,
    mode: str,
    look: Callable[[int], tuple[Shown, bool]],
) -> bool | None:
    """Whether a trial goes on from a rung; None while one of a lower number may still come there.

    Args:
        rung: in samples.
        own: what the trial showed there.
        place: of the trial.
        mode: ``max`` or ``min``.
        look: what the trial of a number has shown, and whether it has ended.
    """
    others = []
    for number in range(place.number):
        shown, has_ended = look(number)
        value = at_rung(shown, rung)
        if value is None and not has_ended:
            return None
        if value is not None:
            others.append(value)
    return survives(own, others, place.factor, mode)
