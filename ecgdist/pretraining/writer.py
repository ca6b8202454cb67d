"""Writes checkpoints while training goes on.

All ranks together copy the training state to local disk and memory, which is all that training waits for. Then a thread
of each rank hashes and uploads its files and writes a note of them; rank 0's thread waits for all notes, and commits.
No thread takes part in collective operations, which are the training's.
"""

from __future__ import annotations

import hashlib
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from ecgdist.errors import DataError, MissingFileError, StorageError, TrainingError
from ecgdist.lease import LEASE, lost, still_holds
from ecgdist.objectives.teacher import MomentumTeacher
from ecgdist.patience import patiently
from ecgdist.pretraining.checkpoint import CheckpointStore, Score, TrainState
from ecgdist.pretraining.config import CheckpointConfig
from ecgdist.pretraining.documents import Facts, document, parse
from ecgdist.pretraining.engine import ZeroEngine
from ecgdist.pretraining.group import Group
from ecgdist.pretraining.snapshot import Snapshot
from ecgdist.scratch import remove_leftovers
from ecgdist.storage import Location
from ecgdist.timelimits import NOTES_S, PATIENCE_S

_UPLOADS = 4
_LOOK_S = 0.2

Result = TypeVar("Result")


@dataclass(frozen=True)
class _Work:
    """A checkpoint on its way to storage."""

    name: str
    state: TrainState
    score: Score | None
    snapshot: Snapshot
    before_commit: Callable[[], None] | None


class CheckpointWriter:
    """Writes the checkpoints of a run, one at a time; every rank has one. A context manager."""

    def __init__(
        self, run: Location, group: Group, config: CheckpointConfig, attempt: str, lease_token: str | None
    ) -> None:
        """Clean up after interrupted attempts; all ranks together.

        Args:
            attempt: names this start of the run in the names of its checkpoints.
            lease_token: of the run's lease, without which nothing is committed; None looks for no lease.

        Raises:
            TrainingError: if another process holds the lease.
        """
        self._run, self._group, self._config, self._token = run, group, config, lease_token
        self._store = CheckpointStore(run)
        # Workers that are started anew within an attempt must not meet notes of those before them.
        self._attempt = group.from_first(f"{attempt}-{uuid.uuid4().hex[:6]}")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._uploading: Future[str] | None = None
        self._finished: list[str] = []
        self._warnings: list[str] = []
        self._has_told = False
        self._leaving = threading.Event()
        self._saved_at = time.monotonic()
        self._patiently(self._check_lease)
        remove_leftovers()
        if group.rank == 0:
            self._patiently(self._store.collect_unfinished)

    @property
    def is_busy(self) -> bool:
        """Whether a checkpoint is under way."""
        return self._uploading is not None and not self._uploading.done()

    @property
    def due_by_time(self) -> bool:
        """Whether this rank's clock wants a checkpoint. Clocks differ: ask one rank, and tell the others."""
        minutes = self._config.every_minutes
        return minutes is not None and not self.is_busy and time.monotonic() - self._saved_at >= 60 * minutes

    def save(
        self,
        engine: ZeroEngine[Any],
        teacher: MomentumTeacher | None,
        state: TrainState,
        metric: float | None = None,
        before_commit: Callable[[], None] | None = None,
    ) -> str:
        """Begin a checkpoint; all ranks call this together, and may train on when it returns.

        One that is still under way is waited for: there are never two.

        Args:
            metric: the value of `checkpoint.keep_best.metric`, averaged since the checkpoint before.
            before_commit: done by rank 0 when all files are there; tried again while storage is away. What it writes is
                there whenever the checkpoint is.

        Returns:
            The checkpoint's name; it is whole when `poll` or `wait` say so.

        Raises:
            StorageError: if the one before could not be uploaded, or the local disk fails.
            TrainingError: if the run's lease was lost.
        """
        self.wait()
        name = f"step-{state.step:08d}-{self._attempt}"
        snapshot = Snapshot.take(engine, teacher, self._group)
        best = self._config.keep_best
        score = (
            None
            if best is None or metric is None
            else Score(metric=best.metric, mode=best.mode, value=metric)
        )
        self._has_told = False
        work = _Work(name, state, score, snapshot, before_commit)
        self._uploading = self._thread.submit(self._finish, work)
        self._saved_at = time.monotonic()
        return name

    def poll(self) -> list[str]:
        """Names of the checkpoints that were finished since the last call. Does not wait.

        Raises:
            StorageError, TrainingError: what the last one failed with.
        """
        if self._uploading is not None and self._uploading.done():
            self.wait()
        finished, self._finished = self._finished, []
        return finished

    def wait(self) -> None:
        """Until the checkpoint under way is finished: for rank 0, committed; for others, their part uploaded.

        Raises:
            StorageError, TrainingError: what it failed with.
        """
        uploading, self._uploading = self._uploading, None
        if uploading is not None:
            self._finished.append(uploading.result())

    def warnings(self) -> list[str]:
        """Sentences about storage that failed for a while, since the last call."""
        warnings, self._warnings = self._warnings, []
        return warnings

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the last checkpoint; after an error, only as long as it needs nobody else."""
        if error is not None:
            self._leaving.set()
        self._thread.shutdown(wait=True)
        if error is None:
            self.wait()

    def _finish(self, work: _Work) -> str:
        """Upload a snapshot and, as rank 0, commit the checkpoint; runs in the thread."""
        target, folder = self._store.folder(work.name), work.snapshot.folder
        try:
            # Hashes are taken before the upload, so that they also cover what the network does to a file.
            facts = work.snapshot.finish()
            with ThreadPoolExecutor(_UPLOADS, thread_name_prefix="upload") as pool:
                uploads = [
                    pool.submit(self._patiently, partial((target / path).upload, folder / path))
                    for path in facts
                ]
            for upload in uploads:
                upload.result()
        finally:
            work.snapshot.remove()
        note = document({"rank": self._group.rank, "files": facts})
        self._patiently(partial((target / _note(self._group.rank)).write_bytes, note))
        if self._group.rank == 0:
            self._commit(work)
        return work.name

    def _commit(self, work: _Work) -> None:
        files = self._noted_files(self._store.folder(work.name))
        if work.before_commit is not None:
            self._patiently(work.before_commit)

        def commit() -> None:
            self._check_lease()  # before every try: it may be lost while storage is away
            self._store.commit(work.name, work.state, work.score, files)

        self._patiently(commit)
        try:
            self._store.prune(work.name, self._config.keep_last, self._config.keep_best)
        except StorageError as error:
            self._warnings.append(f"old checkpoints are still there: {error}; the next one removes them")

    def _noted_files(self, target: Location) -> dict[str, Facts]:
        """Files of all ranks, once every rank has noted its own."""
        files: dict[str, Facts] = {}
        deadline = time.monotonic() + NOTES_S
        for rank in range(self._group.world_size):
            where = target / _note(rank)
            while (note := self._patiently(partial(_read_note, where))) is None:
                if self._leaving.is_set():
                    raise TrainingError(f"rank {rank} left before its part of {target.name} was there")
                if time.monotonic() > deadline:
                    raise StorageError(
                        f"{target}: rank {rank} did not upload its part within {NOTES_S / 60:.0f} minutes of rank 0"
                    )
                time.sleep(_LOOK_S)
            files |= note
        return files

    def _check_lease(self) -> None:
        if self._token is not None and not still_holds(self._run, self._token):
            raise TrainingError(lost(self._run / LEASE))

    def _patiently(self, action: Callable[[], Result]) -> Result:
        """What `action` gives, tried again for minutes while storage is away."""
        return patiently(action, PATIENCE_S, self._tell_once, self._leaving)

    def _tell_once(self, error: BaseException | None) -> None:
        """Warn at the first of the failures that a checkpoint meets."""
        if not self._has_told:
            self._has_told = True
            self._warnings.append(f"a checkpoint waits for storage, and training goes on: {error}")


def _note(rank: int) -> str:
    return f"notes/rank-{rank:05d}.json"


def _read_note(where: Location) -> dict[str, Facts] | None:
    """Files that a rank has uploaded, and its note; None if it is not there yet."""
    try:
        content = parse(where)
    except MissingFileError:
        return None
    except DataError as error:
        raise StorageError(f"{where} is damaged ({error})", where.uri) from error
    raw = document(content)
    facts = {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    files: dict[str, Facts] = content["files"]
    return files | {_note(content["rank"]): facts}
