"""Pack: build the shards that are missing with Ray Data, then close the corpus."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray

from ecgdist.corpus import Corpus
from ecgdist.packing.config import PackConfig
from ecgdist.packing.finish import finish, stop_if_too_many
from ecgdist.packing.plan import Plan, claim_folder
from ecgdist.packing.shards import ShardNote, build_shard, note_name, part_name, shard_name
from ecgdist.raytools import blocks, handing_over_errors, ray_session


@dataclass(frozen=True)
class PackResult:
    """What packing did."""

    corpus: Corpus
    built: int
    """Shards built by this call; the others were there already."""

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
    notes = _finished(plan)
    missing = [number for number in range(len(plan.chunks)) if number not in notes]
    stop_if_too_many(plan, notes)
    # Closed at once if packing stops: an error that somebody holds would keep the local cluster alive.
    with closing(_build_shards(plan, missing)) as built:
        for note in built:
            (out / note_name(note.shard)).write_bytes(note.model_dump_json().encode())
            notes[note.shard] = note
            stop_if_too_many(plan, notes)
    finish(plan, [notes[number] for number in range(len(plan.chunks))])
    return PackResult(Corpus(out), built=len(missing))


def _finished(plan: Plan) -> dict[int, ShardNote]:
    """Notes of the shards that an earlier call built, where their files are still there."""
    out = plan.work.out
    names = set(out.list_files())
    noted = [number for number in range(len(plan.chunks)) if note_name(number) in names]
    with ThreadPoolExecutor(16) as pool:
        contents = pool.map(lambda number: (out / note_name(number)).read_bytes(), noted)
        notes = [ShardNote.model_validate_json(content) for content in contents]
    return {
        note.shard: note
        for note in notes
        if note.facts is None or {f"shards/{shard_name(note.shard)}", part_name(note.shard)} <= names
    }


def _build_shards(plan: Plan, missing: Sequence[int]) -> Generator[ShardNote, None, None]:
    """Build shards with Ray Data, one task each, and give their notes as they are finished."""
    if not missing:
        return
    with ray_session(num_cpus=max(2, os.cpu_count() or 2)):
        work_ref = ray.put(plan.work)
        chunk_refs = {number: ray.put(plan.chunks[number]) for number in missing}

        def build(batch: dict[str, Any]) -> pa.Table:
            number = int(batch["shard"][0])
            note = build_shard(ray.get(work_ref), number, ray.get(chunk_refs[number]))
            return pa.table({"note": [note.model_dump_json()]})

        shards = ray.data.from_items([{"shard": n} for n in missing], override_num_blocks=len(missing))
        built = shards.map_batches(handing_over_errors(build), batch_size=1)
        built.context.enable_progress_bars = False
        for block in blocks(built):
            yield ShardNote.model_validate_json(block["note"][0].as_py())
