"""Embeddings of a whole corpus as Parquet: a Ray Data job with one part file per shard, which goes on where it stopped.

``embedding.json`` says of what the folder holds embeddings and is written first; ``parts/part-NNNNN.parquet`` are
written whole or not at all; ``notes/part-NNNNN.json`` says what each of them is, with its sha256, once it is there;
``manifest.json`` comes last and takes the place of the notes. A part is kept by its sha256, never by its name.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
import torch
from pydantic import Field

from ecgdist.config import Config, build
from ecgdist.corpus import Corpus
from ecgdist.downstream.embedpart import PartNote, embed_shard, note_name, part_name
from ecgdist.downstream.evaluate import check_signals, on_device
from ecgdist.downstream.evaluation import versions
from ecgdist.errors import ConfigError, DataError, MissingFileError
from ecgdist.modelfolder import Model, load, sha256_of
from ecgdist.raytools import blocks, handing_over_errors, ray_session, user_errors
from ecgdist.storage import Location

CLAIM, MANIFEST, NOTES = "embedding.json", "manifest.json", "notes"
_READERS = 8
"""Parts that are compared with their sha256 at the same time."""


class EmbedConfig(Config):
    """What to embed, with what."""

    model: str
    """Model folder, local or s3://."""
    corpus: str
    """Corpus, local or s3://."""
    out: str
    """Folder of the embeddings, local or s3://; the same again goes on."""
    workers: int | None = Field(default=None, ge=1)
    """Actors; by default one per GPU, or one per core where there is none."""
    batch_rows: int = Field(default=64, ge=1)
    """ECGs encoded at once."""

    def absolute(self) -> EmbedConfig:
        """With addresses that mean the same in every process, whatever folder it works in."""
        places = ("model", "corpus", "out")
        return self.model_copy(update={name: Location.of(getattr(self, name)).uri for name in places})


class EmbeddingManifest(Config):
    """``manifest.json`` of a folder of embeddings."""

    format_version: int = 1
    model_hash: str
    corpus_id: str
    dim: int
    rows: int
    parts: tuple[PartNote, ...]
    versions: dict[str, str]


@dataclass(frozen=True)
class EmbedResult:
    """What embedding did.

    Attributes:
        manifest: of the folder.
        made: parts that this call made.
        damaged: names of parts that were there and were made again, because they were not what they should be.
    """

    manifest: EmbeddingManifest
    made: int
    damaged: tuple[str, ...]


def embed(config: EmbedConfig) -> EmbedResult:
    """Embed every row of a corpus; run again, finished parts are kept.

    Raises:
        ConfigError: for a cluster that does not answer.
        DataError: if model and corpus do not fit, the folder holds other embeddings, or rows are missing.
        StorageError: if something cannot be read or written.
    """
    config = config.absolute()
    model, corpus, out = load(config.model), Corpus(config.corpus), Location.of(config.out)
    check_signals(model, corpus)
    _claim(out, model, corpus)
    files = set(out.list_files())
    found = _whole_parts(out, files, model, corpus)
    missing = [number for number in range(len(corpus.manifest.shards)) if number not in found]
    if not missing and MANIFEST in files:
        return EmbedResult(_read_manifest(out), 0, ())
    found |= _make(config, missing, model, corpus)
    manifest = _finish(out, model, corpus, found)
    damaged = tuple(part_name(number) for number in missing if part_name(number) in files)
    return EmbedResult(manifest, len(missing), damaged)


def _claim(out: Location, model: Model, corpus: Corpus) -> None:
    """Say of what the folder holds embeddings, or refuse one that holds those of something else."""
    ours = {"corpus_id": corpus.corpus_id, "model_hash": model.model_hash}
    content = json.dumps(ours, indent=1).encode() + b"\n"
    if not (out / CLAIM).exists():
        if out.is_file() or set(out.list_files()) - {f".{CLAIM}.lock"}:
            raise DataError(f"{out} exists and holds no embeddings; choose another --out, or remove it first")
        (out / CLAIM).exchange(None, content)
    try:
        theirs = json.loads((out / CLAIM).read_bytes())
        other = {name: theirs[name] for name in ours if theirs[name] != ours[name]}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{out / CLAIM} is damaged ({error}); choose another --out") from error
    if other:
        named = ", ".join(f"{name} {value} instead of {ours[name]}" for name, value in other.items())
        raise DataError(f"{out} holds other embeddings: {named}; choose another --out")


def _whole_parts(out: Location, files: set[str], model: Model, corpus: Corpus) -> dict[int, PartNote]:
    """The parts that are there and are what they should be, by number."""
    notes: dict[int, PartNote] = {}
    if MANIFEST in files:
        notes = {note.shard: note for note in _read_manifest(out).parts}
    for number in range(len(corpus.manifest.shards)):
        if note_name(number) in files and (note := PartNote.read(out / note_name(number))) is not None:
            notes[number] = note
    wanted = {
        number: note
        for number, note in notes.items()
        if note.fits(number, model, corpus) and part_name(number) in files
    }

    def is_whole(note: PartNote) -> bool:
        try:
            return sha256_of((out / part_name(note.shard)).read_bytes()) == note.sha256
        except MissingFileError:  # removed a moment ago
            return False

    with ThreadPoolExecutor(_READERS) as pool:
        whole = list(pool.map(is_whole, wanted.values()))
    return {number: note for (number, note), good in zip(wanted.items(), whole, strict=True) if good}


def _make(config: EmbedConfig, missing: list[int], model: Model, corpus: Corpus) -> dict[int, PartNote]:
    """Make the parts of some shards, one Ray Data item each, on actors that hold the model."""
    made: dict[int, PartNote] = {}
    if not missing:
        return made
    with ray_session(num_cpus=max(2, os.cpu_count() or 2)), user_errors():
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        cpus = max(1, int(resources.get("CPU", 1)) - 1)  # one is left for what gives out the items
        actors = min(config.workers or gpus or cpus, len(missing), gpus or cpus)
        tasks = ray.data.from_items(
            [{"shard": number} for number in missing], override_num_blocks=len(missing)
        )
        parts = tasks.map_batches(
            _Embedder,
            fn_constructor_args=(config.model_dump(), model.model_hash, corpus.corpus_id),
            batch_size=1,
            batch_format="numpy",
            compute=ray.data.ActorPoolStrategy(size=actors),
            num_gpus=1 if gpus else 0,
            num_cpus=0 if gpus else 1,
        )
        for block in blocks(parts):
            for text in block["note"].to_pylist():
                note = PartNote.model_validate_json(text)
                made[note.shard] = note
    return made


class _Embedder:
    """An actor: opens model and corpus once, and writes the part of every shard that it is given."""

    def __init__(self, values: dict[str, Any], model_hash: str, corpus_id: str) -> None:
        self._config, self._hashes = EmbedConfig(**values), (model_hash, corpus_id)
        self._opened: tuple[Model, Corpus] | None = None
        self._task = handing_over_errors(self._write)

    def __call__(self, batch: dict[str, Any]) -> pa.Table:
        return self._task(batch)

    def _write(self, batch: dict[str, Any]) -> pa.Table:
        if self._opened is None:  # not at the start: an error there would be Ray's, and be tried again
            self._opened = self._open()
        notes = []
        for shard in map(int, batch["shard"]):
            out = Location.of(self._config.out)
            notes.append(embed_shard(*self._opened, shard, self._config.batch_rows, out).model_dump_json())
        return pa.table({"note": pa.array(notes, pa.string())})

    def _open(self) -> tuple[Model, Corpus]:
        torch.set_num_threads(1)
        model, corpus = on_device(load(self._config.model)), Corpus(self._config.corpus)
        if (model.model_hash, corpus.corpus_id) != self._hashes:
            raise DataError(
                f"{self._config.model} or {self._config.corpus} is not the same on all nodes, or was replaced just "
                "now; put both where every node finds the same, and run the same command again"
            )
        return model, corpus


def _finish(out: Location, model: Model, corpus: Corpus, found: dict[int, PartNote]) -> EmbeddingManifest:
    """Count the rows of all parts against the corpus, write the manifest, and take the notes away."""
    parts = [found[number] for number in sorted(found)]
    total = sum(part.rows for part in parts)
    if len(parts) != len(corpus.manifest.shards) or total != corpus.manifest.rows:
        raise DataError(
            f"{out} has {total:,} rows in {len(parts)} parts, the corpus {corpus.manifest.rows:,} in "
            f"{len(corpus.manifest.shards)} shards; run the same command again"
        )
    manifest = EmbeddingManifest(
        model_hash=model.model_hash,
        corpus_id=corpus.corpus_id,
        dim=model.dim,
        rows=total,
        parts=tuple(parts),
        versions=versions() | {"ray": ray.__version__, "pyarrow": pa.__version__},
    )
    (out / MANIFEST).write_bytes(manifest.model_dump_json(indent=1).encode() + b"\n")
    (out / NOTES).delete()
    return manifest


def _read_manifest(out: Location) -> EmbeddingManifest:
    path = out / MANIFEST
    try:
        return build(EmbeddingManifest, json.loads(path.read_bytes()), str(path))
    except (ValueError, TypeError, ConfigError) as error:
        raise DataError(f"{path} is damaged ({error}); remove it and run the same command again") from error
