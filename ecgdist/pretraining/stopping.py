"""How a run is told to stop, and says that it has: two small files in its folder.

Whoever wants a run to save and leave writes ``stop.json``; rank 0 looks for it. Once the checkpoint is committed, the
run writes ``stopped.json``. The next start takes both away.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import ValidationError

from ecgdist.config import Config
from ecgdist.errors import MissingFileError
from ecgdist.storage import Location

STOP = "stop.json"
STOPPED = "stopped.json"


class Cause(StrEnum):
    """Why workers leave before the end of a run."""

    ASKED = "asked to stop"
    SIGNAL = "a worker got SIGTERM"
    DRAIN = "a node is being drained"
    RESIZE = "the number of workers changes"


class StopRequest(Config):
    """Content of ``stop.json``."""

    reason: str
    """For people: who asks, and why."""


class Stopped(Config):
    """What workers that left before the end of a run have to say; content of ``stopped.json``."""

    step: int
    """Steps done, all of them in the checkpoint."""
    total_steps: int
    checkpoint: str
    """Name of the checkpoint, which is committed."""
    cause: Cause
    reason: str
    """The cause, or who asked."""

    def __str__(self) -> str:
        return f"stopped after step {self.step} of {self.total_steps} ({self.reason}), saved as {self.checkpoint}"


def ask_to_stop(run: Location, reason: str) -> None:
    """Ask whoever trains in this folder to save and leave."""
    (run / STOP).write_bytes(StopRequest(reason=reason).model_dump_json().encode())


def asked_to_stop(run: Location) -> str | None:
    """Why the run is asked to stop, or None.

    Raises:
        StorageError: if storage cannot be read.
    """
    content = _read(run / STOP)
    if content is None:
        return None
    try:
        return StopRequest.model_validate_json(content).reason
    except ValidationError:
        return f"{STOP} is in its folder"  # written by hand, and clear enough


def say_stopped(run: Location, stopped: Stopped) -> None:
    """Tell whoever waits for it that the run has saved and is leaving."""
    (run / STOPPED).write_bytes(stopped.model_dump_json(indent=1).encode())


def read_stopped(run: Location) -> Stopped | None:
    """What the run said when it stopped, or None if it has not since its last start."""
    content = _read(run / STOPPED)
    return None if content is None else Stopped.model_validate_json(content)


def forget_stop(run: Location) -> None:
    """Take away what an earlier start was told and said; a run calls this when it starts."""
    for name in (STOP, STOPPED):
        (run / name).delete()


def _read(where: Location) -> bytes | None:
    try:
        return where.read_bytes()
    except MissingFileError:
        return None
