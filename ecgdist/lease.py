"""The lease of a run's folder: one process writes there at a time, and a dead one does not keep others out.

``lease.json`` in the folder names its holder and counts its heartbeats. Only conditional writes change it
(`Location.exchange`), so of two processes that want it one gets it. Clocks are never compared: whoever finds the lease
of another process watches it. It is refused as soon as the heartbeat moves, and takes over when the heartbeat has
stood still for `EXPIRES_S` by its own monotonic clock (less where storage is slow, see `expires_in_s`), or at once when
the holder is gone from this very machine or has given the lease back. A holder that was only paused finds out when it
beats or commits next: see `still_holds`.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from statistics import fmean
from types import TracebackType
from typing import Any

from pydantic import ValidationError

from ecgdist.config import Config
from ecgdist.errors import ConfigError, MissingFileError, StorageError, TrainingError
from ecgdist.identity import ProcessIdentity
from ecgdist.storage import Location
from ecgdist.timelimits import BEAT_S, EXPIRES_S

LEASE = "lease.json"

_PROMISE = 1.16
"""In units of `EXPIRES_S`: how long after a death whoever began to ask just then has the lease; 2 s less than a minute.
"""
_LOOK_S = 1.0


def expires_in_s(request_s: float, expires_s: float = EXPIRES_S) -> float:
    """How long a heartbeat must stand still where a request takes `request_s` in the mean.

    Whoever takes over has asked once before it watches, and asks and writes afterwards: up to 10 s a request, all that
    is done in the promised time. A living holder asks and writes for each heartbeat, and is left half of a request more
    than that, however slow they are.
    """
    return min(expires_s, max(_PROMISE * expires_s - 3 * request_s, 2.5 * request_s))


class _Note(Config):
    """Content of ``lease.json``."""

    token: str
    """Drawn by the holder."""
    beat: int
    """Heartbeats since it took the lease."""
    released: bool
    machine: str
    pid: int
    started: int
    """These three as in `ProcessIdentity`."""
    began: str
    """When the lease was taken, by the holder's clock; for people, not compared with anything."""

    def encoded(self) -> bytes:
        return self.model_dump_json().encode()

    @property
    def holder(self) -> ProcessIdentity:
        return ProcessIdentity(self.machine, self.pid, self.started)

    def __str__(self) -> str:
        return f"process {self.pid} (attempt {self.token[:8]}, since {self.began})"


class Lease:
    """A lease that this process holds, as a context manager; a thread beats for it until the block ends.

    Attributes:
        token: what tells this holder from every other; workers commit only while it is the one in the folder.
    """

    def __init__(self, where: Location, note: _Note, beat_s: float) -> None:
        """Use `Lease.take`."""
        self._where, self._note, self._beat_s = where, note, beat_s
        self.token = note.token
        self._ending = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, name="lease", daemon=True)
        self._thread.start()

    @classmethod
    def take(
        cls,
        run: Location,
        say: Callable[[str], Any] = print,
        beat_s: float = BEAT_S,
        expires_s: float = EXPIRES_S,
    ) -> Lease:
        """Take the lease of a run's folder, if need be after waiting for one that may be a dead process's.

        Args:
            say: told why there is a wait.
            beat_s, expires_s: other values than the usual ones are for tests.

        Raises:
            ConfigError: if another process holds it and lives.
            StorageError: if storage fails, or does not know conditional writes.
        """
        where = run / LEASE
        me = ProcessIdentity.mine()
        began = datetime.now(UTC).isoformat(timespec="seconds")
        mine = _Note(token=uuid.uuid4().hex, beat=0, released=False, **vars(me), began=began)
        before = None
        while True:
            asked_s = time.monotonic()
            found = _read(where)
            note = _parsed(found)
            if note is not None and _has_beaten(before, note):
                raise _lives(where, note)
            ended = _wait_for_its_end(where, found, say, expires_s, time.monotonic() - asked_s)
            if where.exchange(found, mine.encoded()):
                if ended is not None:
                    say(ended)
                return cls(where, mine, beat_s)
            before = note

    @property
    def attempt(self) -> str:
        """Eight letters that name this holding of the lease."""
        return self.token[:8]

    def check(self) -> None:
        """Refuse to go on if the lease was lost.

        Raises:
            TrainingError: if another process has taken it.
        """
        if self._lost.is_set():
            raise TrainingError(lost(self._where))

    def release(self) -> None:
        """Give the lease back, so that the next start need not wait."""
        self._ending.set()
        self._thread.join()
        if not self._lost.is_set():
            self._change(released=True)

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.release()
        except StorageError:
            if error is None:
                raise

    def _keep_beating(self) -> None:
        wait_s = self._beat_s
        while not self._ending.wait(wait_s):
            began = time.monotonic()
            # It may answer at the next beat; if another took the lease meanwhile, that is seen then.
            with suppress(StorageError):
                self._change(beat=self._note.beat + 1)
            if self._lost.is_set():
                return
            # Slow requests do not make the heartbeat slower than they must.
            wait_s = max(0.0, self._beat_s - (time.monotonic() - began))

    def _change(self, **values: Any) -> None:
        for _ in range(2):
            after = self._note.model_copy(update=values)
            if self._where.exchange(self._note.encoded(), after.encoded()):
                self._note = after
                return
            # A beat may have got there, and every answer that said so been lost.
            found = _parsed(_read(self._where))
            if found is None or found.token != self.token:
                break
            self._note = found
        self._lost.set()


def holder(run: Location) -> str | None:
    """Who holds the lease of a run's folder, or has died elsewhere with it; None if nobody does.

    Raises:
        StorageError: if it cannot be read.
    """
    note = _parsed(_read(run / LEASE))
    return None if note is None or note.released or note.holder.is_dead_here() else str(note)


def is_lease_file(name: str) -> bool:
    """Whether a file in a run's folder is of its lease: a folder that holds nothing else is as good as empty."""
    return name == LEASE or name.startswith(f".{LEASE}.")


def still_holds(run: Location, token: str) -> bool:
    """Whether the lease of a run's folder is that of `token`; what is written without it would be a second run's.

    Raises:
        StorageError: if it cannot be read.
    """
    note = _parsed(_read(run / LEASE))
    return note is not None and note.token == token and not note.released


def lost(where: Location) -> str:
    """The sentence for a run whose folder another process has taken over."""
    note = None
    with suppress(StorageError):  # that it was taken over is known already; by whom, only storage knows
        note = _parsed(_read(where))
    return (
        f"{where.uri.rpartition('/')[0]} was taken over by {note or 'another process'}, since this one did not "
        "show that it lives; nothing is written there any more. Decide which of the two should go on, and end the other"
    )


def _wait_for_its_end(
    where: Location, found: bytes | None, say: Callable[[str], Any], expires_s: float, first_s: float
) -> str | None:
    """Return when whoever wrote `found` no longer holds the lease, as far as can be seen.

    Args:
        first_s: what the request took that read it.

    Returns:
        What is to be said of somebody whose heartbeat stood still; it may have moved at the very last.

    Raises:
        ConfigError: as soon as it shows that it lives.
    """
    note = _parsed(found)
    if found is None or (note is not None and (note.released or note.holder.is_dead_here())):
        return None
    run, who = where.uri.rpartition("/")[0], note or "a process whose note cannot be read"
    say(
        f"{run} is in use by {who}, or was when that ended without a word; "
        f"watching for up to {expires_s:.0f} s whether it lives"
    )
    pause_s = min(_LOOK_S, expires_s / 10)
    took_s = [first_s]
    began = time.monotonic()
    # The last look is that of `exchange`.
    while time.monotonic() - began + pause_s + fmean(took_s) < expires_in_s(fmean(took_s), expires_s):
        time.sleep(pause_s)
        asked_s = time.monotonic()
        now = _read(where)
        took_s.append(time.monotonic() - asked_s)
        if now == found:
            if note is not None and note.holder.is_dead_here():
                return None
            continue
        changed = _parsed(now)
        if changed is None or changed.released:
            return None  # `exchange` will find what is there now
        raise _lives(where, changed)
    time.sleep(max(0.0, began + expires_in_s(fmean(took_s), expires_s) - time.monotonic()))
    return f"{run}: {who} gave no sign of life for {time.monotonic() - began:.0f} s; taking over"


def _has_beaten(before: _Note | None, now: _Note) -> bool:
    """Whether who wrote `before` has shown since then that it lives."""
    same = before is not None and now.token == before.token and now.beat > before.beat
    return same and not now.released and not now.holder.is_dead_here()


def _lives(where: Location, note: _Note) -> ConfigError:
    run = where.uri.rpartition("/")[0]
    return ConfigError(
        f"{run} is in use by {note}, which lives; wait for it, end it, or choose another --out"
    )


def _read(where: Location) -> bytes | None:
    try:
        return where.read_bytes()
    except MissingFileError:
        return None


def _parsed(content: bytes | None) -> _Note | None:
    """The note, or None where there is none that can be read."""
    if content is None:
        return None
    try:
        return _Note.model_validate_json(content)
    except ValidationError:
        return None
