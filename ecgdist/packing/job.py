"""Pack: build the shards that are missing on a Ray cluster, then close the corpus."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import ray

from ecgdist.corpus import Corpus
from ecgdist.errors import DataError
from ecgdist.gauges import PackingGauges
from ecgdist.packing.claim import claim_folder
from ecgdist.packing.config import PackConfig
from ecgdist.packing.finish import finish, forget_refused, stop_if_too_many
from ecgdist.packing.listings import Chunk
from ecgdist.packing.notes import ShardNote, finished_note, note_name, shard_path
from ecgdist.packing.plan import Plan
from ecgdist.packing.shards import Work, build_shard
from ecgdist.raytools import ray_session, user_errors

_WORKER_DIED = (
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.NodeDiedError,
)
_TASKS_PER_CPU = 2
"""Tasks handed to the cluster per core: one runs, one waits."""
_END_S = 3.0
"""Most that a packing that stops waits for the shards that are being built; silent storage may take minutes."""


@dataclass(frozen=True)
class PackResult:
    """What packing did."""

    corpus: Corpus
    built: int
    """Shards that were missing when this call began; the others were there already."""

    def __str__(self) -> str:
        manifest = self.corpus.manifest
        return (
            f"corpus {manifest.corpus_id}: {manifest.rows:,} ECGs in {len(manifest.shards)} shards, "
            f"{self.built} built now, {sum(manifest.refused.values()):,} records refused; "
            f"in {self.corpus.location}"
        )


def pack(config: PackConfig) -> PackResult:
    """Pack the sources of `config` into a corpus; run again, it goes on where it stopped.

    Raises:
        ConfigError: for an unknown source kind, or an output folder that holds something else.
        DataError: if a source cannot be listed, or too many records are refused.
        StorageError: if something cannot be read or written.
    """
    plan = Plan.of(config)
    out = plan.work.out
    if claim_folder(plan):
        return PackResult(Corpus(out), built=0)
    forget_refused(plan)
    notes = _finished(plan)
    missing = [number for number in range(len(plan.chunks)) if number not in notes]
    stop_if_too_many(plan, notes)
    # Closed at once if packing stops: an error that somebody holds would keep the local cluster alive.
    progress = _Progress(plan, notes.values())
    with closing(_build_shards(plan, missing)) as built:
        for note in built:
            notes[note.shard] = note
            progress.add(note)
            stop_if_too_many(plan, notes)
    finish(plan, [notes[number] for number in range(len(plan.chunks))])
    return PackResult(Corpus(out), built=len(missing))


class _Progress:
    """Shows on Ray's metrics what became of the records so far."""

    def __init__(self, plan: Plan, finished: Iterable[ShardNote]) -> None:
        self._gauges = PackingGauges(plan.work.out.uri, len(plan.chunks))
        self._packed, self._shards = 0, 0
        self._refused: Counter[str] = Counter()
        for note in finished:
            self._count(note)

    def add(self, note: ShardNote) -> None:
        """A shard is finished."""
        self._count(note)
        self._gauges.report(self._packed, self._refused, self._shards)

    def _count(self, note: ShardNote) -> None:
        self._shards += 1
        self._packed += sum(note.packed.values())
        for by_reason in note.refused.values():
            self._refused.update(by_reason)


def _finished(plan: Plan) -> dict[int, ShardNote]:
    """Notes of the shards that earlier calls finished; of others, the file is cleared away if there is one."""
    out = plan.work.out
    names = set(out.list_files())
    begun = [number for number in range(len(plan.chunks)) if {note_name(number), shard_path(number)} & names]
    with ThreadPoolExecutor(16) as pool:
        notes = list(pool.map(lambda number: finished_note(out, number), begun))
    for number, note in zip(begun, notes, strict=True):
        if note is None and shard_path(number) in names:
            # Its other files are gone. Those of the next build must not be taken for this one's.
            (out / shard_path(number)).delete()
    return {note.shard: note for note in notes if note}


def _build_shards(plan: Plan, missing: Sequence[int]) -> Generator[ShardNote, None, None]:
    """Build shards, one Ray task each, and give their notes as they are finished.

    A shard's listing goes to the cluster when its task does, and no more tasks wait than keep all cores busy:
    memory does not grow with the number of shards, and an autoscaling cluster sees work that waits.
    """
    if not missing:
        return
    with ray_session(num_cpus=max(2, os.cpu_count() or 2)), user_errors():
        work, build = ray.put(plan.work), ray.remote(num_cpus=1)(_build)
        todo = iter(missing)
        running: dict[ray.ObjectRef, int] = {}
        try:
            while True:
                for number in itertools.islice(todo, max(0, _tasks_wanted() - len(running))):
                    running[build.remote(work, number, plan.chunks[number])] = number
                if not running:
                    return
                ((task, *_), _) = ray.wait(list(running))
                yield _note(task, running.pop(task))
        finally:
            _end(list(running))


def _end(running: list[ray.ObjectRef]) -> None:
    """Let tasks end, and make those end that take long.

    Not with `ray.cancel` alone: where a task ends at that very moment, Ray 2.60 ends the process that cancels it,
    without a word of ours (a failed check in its task manager; some 1,000 cancelled tasks of 50 ms met it).
    """
    if running:
        _, late = ray.wait(running, num_returns=len(running), timeout=_END_S)
        for task in late:
            ray.cancel(task, force=True)


def _tasks_wanted() -> int:
    """Tasks that the cluster is given at a time, as large as it is now."""
    return _TASKS_PER_CPU * max(1, int(ray.cluster_resources().get("CPU", 1)))


def _build(work: Work, number: int, chunk: Chunk) -> str:
    """The note of a shard, which is built unless it is finished by now.

    Ray repeats a task whose worker died, if only after its last act, and a worker may outlive the call that it was
    started by.
    """
    note = finished_note(work.out, number) or build_shard(work, number, chunk.listings())
    return note.model_dump_json()


def _note(task: ray.ObjectRef, number: int) -> ShardNote:
    """What a task hands over.

    Raises:
        DataError: if its worker died, as often as Ray tries a task.
    """
    try:
        return ShardNote.model_validate_json(ray.get(task))
    except _WORKER_DIED as error:
        raise DataError(
            f"shard {number} cannot be built: its worker died again and again ({type(error).__name__}). Is memory "
            "short on the nodes, or does a file of its records crash what reads it? The same command goes on here"
        ) from error
