"""Notices that a worker must soon be gone, gathered in its process from wherever they come.

* SIGTERM to the process itself. Python runs signal handlers in the main thread, and Ray Train trains in another one, so
  `HeedSigterm` sets the handler when Ray Train sets up the process.
* `give_notice`, which Ray Train's controller calls in this process (see `ecgdist.pretraining.controller`): a node is
  being drained, or the group is about to be resized.
* The run's stop flag (see `ecgdist.pretraining.stopping`), for which rank 0 looks every few seconds.

A notice is one rank's; `TrainingStep` makes it everybody's.
"""

from __future__ import annotations

import signal
import threading
from contextlib import suppress
from enum import StrEnum
from types import FrameType, TracebackType

from ray.train.v2._internal.execution.callback import WorkerCallback

from ecgdist.errors import StorageError
from ecgdist.pretraining.stopping import asked_to_stop
from ecgdist.pretraining.votes import Votes
from ecgdist.storage import Location

_LOOK_S = 1.0


class Cause(StrEnum):
    """Why workers leave before the end of a run."""

    ASKED = "asked to stop"
    SIGNAL = "a worker got SIGTERM"
    DRAIN = "a node is being drained"
    RESIZE = "the number of workers changes"


class _ProcessNotice:
    """The notice that this process was given, and whether its training has ended."""

    def __init__(self) -> None:
        self.cause: Cause | None = None
        self.has_left = False


_here = _ProcessNotice()


def give_notice(cause: Cause) -> None:
    """Have this process ask all ranks to save and leave. The first cause counts."""
    _here.cause = _here.cause or cause


def has_left() -> bool:
    """Whether the training of this process has saved and ended."""
    return _here.has_left


class HeedSigterm(WorkerCallback):  # type: ignore[misc]  # Ray's classes are untyped here
    """Makes SIGTERM a notice in every worker; Ray would end the process, and its last steps would be lost."""

    def after_init_train_context(self) -> None:
        """Ray Train calls this in the main thread of a worker's process, before training starts."""

        def heed(number: int, frame: FrameType | None) -> None:
            give_notice(Cause.SIGNAL)

        signal.signal(signal.SIGTERM, heed)


class Notices:
    """The notices of one rank, as a context manager around the training.

    Attributes:
        reason: for people; set with `cause`.
    """

    def __init__(self, run: Location, rank: int) -> None:
        self._run, self._looks_for_flag = run, rank == 0
        self._flag: str | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._look, name="stop flag", daemon=True)

    @property
    def cause(self) -> Cause | None:
        """Why this rank wants to leave, if it does. That a person asked counts most: it ends the run."""
        return _here.cause if self._flag is None else Cause.ASKED

    @property
    def reason(self) -> str | None:
        """`cause` for people."""
        return self._flag or _here.cause

    def votes(self, save: bool) -> Votes:
        """This rank's wishes for the step that follows."""
        return Votes(save=save, stop=self.cause is not None)

    def __enter__(self) -> Notices:
        if self._looks_for_flag:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        if self._looks_for_flag:
            self._thread.join()
        _here.has_left = True

    def _look(self) -> None:
        while self._flag is None:
            with suppress(StorageError):  # the next look may find it; training does not depend on it
                self._flag = asked_to_stop(self._run)
            if self._ending.wait(_LOOK_S):
                return
