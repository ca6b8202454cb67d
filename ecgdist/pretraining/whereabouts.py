"""Where a rank is in its step, and which ranks the others wait for when a step does not end.

All ranks pass the same places in the same sequence: reading, passes of the model, collective operations. In a step that
does not end, those that are furthest behind, or are not heard of at all, are what the others wait for.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple


class Place(NamedTuple):
    """Where a rank is.

    Attributes:
        step: that it is at.
        number: how many places of the step it has come to.
        name: of the place: a collective operation by torch's name, or what else it does.
        is_patient: whether it waits for storage there, which has a time limit of its own.
        for_s: how long it has been there.
    """

    step: int
    number: int
    name: str
    is_patient: bool
    for_s: float

    @property
    def position(self) -> tuple[int, int]:
        """Grows on the way through a run."""
        return self.step, self.number


class Whereabouts:
    """Where this process is; written by the thread that trains, read by the one that watches."""

    def __init__(self) -> None:
        self._where = (0, 0, "start", False, time.monotonic())

    @property
    def now(self) -> Place:
        """The place, and for how long."""
        step, number, name, is_patient, since = self._where
        return Place(step, number, name, is_patient, time.monotonic() - since)

    def begin(self, step: int) -> None:
        """Begin a step."""
        self._where = (step, 0, "the step", False, time.monotonic())

    @contextmanager
    def at(self, name: str, is_patient: bool = False) -> Iterator[None]:
        """Be at a place while the block runs."""
        step, number, outer, was_patient, _ = self._where
        self._where = (step, number + 1, name, is_patient, time.monotonic())
        try:
            yield
        finally:
            step, number, *_ = self._where
            self._where = (step, number + 1, outer, was_patient, time.monotonic())


class Heard(NamedTuple):
    """What is known of a rank.

    Attributes:
        place: that it named last; None if it never has.
        ago_s: how long ago; since the beginning if never.
        process: its node and process id; empty if it was never heard of.
    """

    place: Place | None
    ago_s: float
    process: str

    @property
    def there_s(self) -> float:
        """How long it has been at its place, if it still is."""
        return self.ago_s + (0.0 if self.place is None else self.place.for_s)

    def __str__(self) -> str:
        if self.place is None:
            return "has not been heard of yet"
        who = f"(step {self.place.step}, {self.process})"
        if self.ago_s > self.place.for_s + 1:
            return f"{who} has not been heard of for {self.ago_s:.0f} s, when it was at {self.place.name}"
        return f"{who} has been at {self.place.name} for {self.there_s:.0f} s"


def find_hung(heard: Mapping[int, Heard], limit_s: float) -> str | None:
    """A sentence about the ranks that keep a step from ending; None while there is nothing to say.

    Args:
        heard: of every rank, by rank.
        limit_s: how long a rank may be at one place.
    """
    missing = _missing(heard, limit_s)
    # Others may wait for longer, for a rank that goes on, if slowly.
    if not missing or any(heard[rank].there_s <= limit_s for rank in missing):
        return None
    places = [heard[rank].place for rank in missing]
    if all(place is not None and place.is_patient for place in places):
        return None
    said = "; ".join(f"rank {rank} {heard[rank]}" for rank in missing)
    others = [rank for rank in heard if rank not in missing]
    if not others:
        return f"no rank has gone on for {limit_s:.0f} s: {said}"
    waiting = {place.name for rank in others if (place := heard[rank].place) is not None}
    return (
        f"{_ranks(others)} in {', '.join(sorted(waiting))} for {_ranks(missing, waits=False)}, for more than "
        f"{limit_s:.0f} s: {said}"
    )


def _missing(heard: Mapping[int, Heard], limit_s: float) -> list[int]:
    """Ranks that are not heard of; else those that are furthest behind, which may be all of them."""
    silent = [rank for rank, one in heard.items() if one.place is None or one.ago_s > limit_s / 2]
    if silent:
        return silent
    positions = {rank: one.place.position for rank, one in heard.items() if one.place is not None}
    return [rank for rank, position in positions.items() if position == min(positions.values(), default=None)]


def _ranks(ranks: list[int], waits: bool = True) -> str:
    verb = (" waits" if len(ranks) == 1 else " wait") if waits else ""
    return ("rank " if len(ranks) == 1 else "ranks ") + ", ".join(map(str, ranks)) + verb
