"""Notices a step that does not end, names the rank that is waited for, and has Ray Train start all of them again."""

from __future__ import annotations

import logging
import os
import socket
import threading
import uuid
from types import TracebackType

from ecgdist.pretraining.console import Mailbox
from ecgdist.pretraining.group import Group
from ecgdist.pretraining.whereabouts import find_hung

_LOG = logging.getLogger(__name__)
_LONGEST_BEAT_S = 10.0
_BEATS = 5
"""How many times in the time limit a rank says where it is, at least."""
HUNG_EXIT_STATUS = 70
"""Of a worker that ends because a step does not (EX_SOFTWARE)."""


class Watch:
    """While its block runs, a thread tells the other ranks where this one is, and looks where they are.

    A collective operation cannot be called back: a rank that is caught in one ends its process. Ray Train then ends the
    others, and all start again from the newest checkpoint, at most `workers.max_failures` times.
    """

    def __init__(self, mailbox: Mailbox, group: Group, limit_s: float | None) -> None:
        """All ranks together.

        Args:
            mailbox: by which they hear of each other.
            group: all ranks.
            limit_s: longest time at one place; None watches nothing.
        """
        self._mailbox, self._group = mailbox, group
        self._limit_s = limit_s
        self._round = group.from_first(uuid.uuid4().hex)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._process = f"process {os.getpid()} on {socket.gethostname()}"

    def __enter__(self) -> Watch:
        if self._limit_s is not None and self._group.world_size > 1:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()

    def _run(self) -> None:
        assert self._limit_s is not None
        while not self._is_over.wait(min(_LONGEST_BEAT_S, self._limit_s / _BEATS)):
            place = self._group.whereabouts.now
            heard = self._mailbox.hear(
                self._round, self._group.rank, self._group.world_size, place, self._process
            )
            found = find_hung(heard, self._limit_s)
            if found is not None and not self._is_over.is_set():
                self._end(found)

    def _end(self, found: str) -> None:
        text = f"{found}. All workers are ended, and start again from the newest checkpoint"
        _LOG.error(text)
        self._mailbox.say_once(self._round, f"WARNING: {text}")
        os._exit(HUNG_EXIT_STATUS)
