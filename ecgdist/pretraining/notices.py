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
from types import FrameType, TracebackType
from typing import NamedTuple

from ray.train.v2._internal.execution.callback import WorkerCallback

from ecgdist.errors import StorageError
from ecgdist.pretraining.group import Group
from ecgdist.pretraining.stopping import Cause, asked_to_stop
from ecgdist.pretraining.votes import Votes
from ecgdist.storage import Location

_LOOK_S = 1.0


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


class Notice(NamedTuple):
    """Why a rank wants to leave."""

    cause: Cause
    reason: str
    """For people."""


class Notices:
    """The notices of one rank, as a context manager around the training."""

    def __init__(self, run: Location, group: Group) -> None:
        self._run, self._group = run, group
        self._asked: str | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._look, name="stop flag", daemon=True)

    @property
    def notice(self) -> Notice | None:
        """Why this rank wants to leave, if it does. That a person asked counts most, since it ends the run."""
        if self._asked is not None:
            return Notice(Cause.ASKED, self._asked)
        return None if _here.cause is None else Notice(_here.cause, _here.cause)

    def votes(self, save: bool) -> Votes:
        """This rank's wishes for the step that follows."""
        return Votes(save=save, stop=self.notice is not None)

    def of_all(self) -> Notice:
        """What made the ranks agree to leave. All ranks call this together, after they have agreed."""
        given: list[Notice | None] = self._group.gather_objects(self.notice)
        return min(
            (notice for notice in given if notice is not None), key=lambda n: n.cause is not Cause.ASKED
        )

    def __enter__(self) -> Notices:
        if self._group.rank == 0:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()
        _here.has_left = True

    def _look(self) -> None:
        while self._asked is None:
            with suppress(StorageError):  # the next look may find it; training does not depend on it
                self._asked = asked_to_stop(self._run)
            if self._ending.wait(_LOOK_S):
                return
