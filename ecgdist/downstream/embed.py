"""Embeddings of a whole corpus as Parquet: a Ray Data job with one part file per shard, which goes on where it stopped.

``embedding.json`` says of what the folder holds embeddings and is written first; ``parts/part-NNNNN.parquet`` are
written whole or not at all; ``manifest.json`` comes last.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray
import torch
from pydantic import Field

from ecgdist.config import Config
from ecgdist.corpus import Corpus
from ecgdist.corpus.schema import plain_bytes, read_plain
from ecgdist.downstream.evaluate import check_signals, on_device
from ecgdist.errors import DataError, EcgdistError
from ecgdist.modelfolder import Model, load
from ecgdist.raytools import blocks, handing_over_errors, ray_session, user_errors
from ecgdist.record import bits_to_mask
from ecgdist.storage import Location

CLAIM, MANIFEST = "embedding.json", "manifest.json"
_FACTS = ("record_id", "segment", "source", "patient_key", "split")


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


class PartFacts(Config):
    """One Parquet file of embeddings."""

    name: str
    rows: int
    sha256: str


class EmbeddingManifest(Config):
    """``manifest.json`` of a folder of embeddings."""

    format_version: int = 1
    model_hash: str
    corpus_id: str
    dim: int
    rows: int
    parts: tuple[PartFacts, ...]
    versions: dict[str, str]


def part_name(shard: int) -> str:
    """Name of the part that holds the rows of a shard."""
    return f"parts/part-{shard:05d}.parquet"


def embed(config: EmbedConfig) -> tuple[EmbeddingManifest, int]:
    """Embed every row of a corpus; run again, finished parts are kept.

    Returns:
        the manifest, and how many parts were made by this call.

    Raises:
        ConfigError: for a cluster that does not answer.
        DataError: if model and corpus do not fit, the folder holds other embeddings, or rows are missing.
        StorageError: if something cannot be read or written.
    """
    model, corpus, out = load(config.model), Corpus(config.corpus), Location.of(config.out)
    check_signals(model, corpus)
    _claim(out, model, corpus)
    there = set(out.list_files())
    if MANIFEST in there:
        return EmbeddingManifest.model_validate_json((out / MANIFEST).read_bytes()), 0
    missing = [n for n in range(len(corpus.manifest.shards)) if part_name(n) not in there]
    _make(config, missing)
    return _finish(out, model, corpus), len(missing)


def _claim(out: Location, model: Model, corpus: Corpus) -> None:
    """Say of what the folder holds embeddings, or refuse one that holds those of something else."""
    ours = {"corpus_id": corpus.corpus_id, "model_hash": model.model_hash}
    content = json.dumps(ours, indent=1).encode() + b"\n"
    if not (out / CLAIM).exists():
        if set(out.list_files()) - {f".{CLAIM}.lock"}:
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


def _make(config: EmbedConfig, missing: list[int]) -> None:
    """Make the parts of some shards, one Ray Data item each, on actors that hold the model."""
    if not missing:
        return
    with ray_session(num_cpus=max(2, os.cpu_count() or 2)), user_errors():
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        cpus = max(1, int(resources.get("CPU", 1)) - 1)  # one is left for what gives out the items
        actors = min(config.workers or gpus or cpus, len(missing), gpus or cpus)
        made = ray.data.from_items(
            [{"shard": n} for n in missing], override_num_blocks=len(missing)
        ).map_batches(
            _Embedder,
            fn_constructor_args=(config.model_dump(),),
            batch_size=1,
            batch_format="numpy",
            compute=ray.data.ActorPoolStrategy(size=actors),
            num_gpus=1 if gpus else 0,
            num_cpus=0 if gpus else 1,
        )
        for _ in blocks(made):
            pass


class _Embedder:
    """An actor: opens model and corpus once, and writes the part of every shard it is given."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._config = EmbedConfig(**values)
        self._model: Model | None = None
        self._task = handing_over_errors(self._write)

    def __call__(self, batch: dict[str, Any]) -> pa.Table:
        return self._task(batch)

    def _write(self, batch: dict[str, Any]) -> pa.Table:
        if self._model is None:  # not at the start: an error there would be Ray's, and be tried again
            torch.set_num_threads(1)
            self._model, self._corpus = on_device(load(self._config.model)), Corpus(self._config.corpus)
        shards = [int(shard) for shard in batch["shard"]]
        for shard in shards:
            content = part_bytes(self._model, self._corpus, shard, self._config.batch_rows)
            (Location.of(self._config.out) / part_name(shard)).write_bytes(content)
        return pa.table({"shard": pa.array(shards, pa.int64())})


def part_bytes(model: Model, corpus: Corpus, shard: int, batch_rows: int) -> bytes:
    """The Parquet file of a shard's embeddings, in the order of its rows.

    Raises:
        DataError: if the index has another number of rows of it than the manifest.
    """
    rows = np.flatnonzero(corpus.columns("shard")["shard"].to_numpy() == shard)
    expected = corpus.manifest.shards[shard].rows
    if len(rows) != expected:
        raise DataError(f"shard {shard} of {corpus.location} has {len(rows)} rows, its manifest {expected}")
    first = int(rows[0]) if len(rows) else 0
    embedded = _rows_embedded(model, corpus, rows, batch_rows)
    bad = np.flatnonzero(~np.isfinite(embedded).all(axis=1))
    if len(bad):
        record = corpus.columns("record_id")["record_id"][first + int(bad[0])].as_py()
        raise DataError(f"the embedding of {record} (shard {shard}) is not finite; check the model's weights")
    facts = corpus.columns(*_FACTS).take(pa.array(rows)).combine_chunks()
    values = pa.FixedSizeListArray.from_arrays(pa.array(embedded.reshape(-1)), model.dim)
    return plain_bytes(facts.append_column("embedding", values))


def _rows_embedded(
    model: Model, corpus: Corpus, rows: npt.NDArray[np.int64], batch_rows: int
) -> npt.NDArray[np.float32]:
    """``(rows, dim)``; as `features`, which would take memory for the whole corpus."""
    facts = corpus.columns("lead_mask", "valid_samples")
    lead_mask, valid = bits_to_mask(facts["lead_mask"].to_numpy()), facts["valid_samples"].to_numpy()
    parts = [
        model.embed_packed(signals, valid[chosen], lead_mask[chosen])
        for chosen, signals in corpus.iter_signals(rows, batch_rows)
    ]
    return np.concatenate([np.zeros((0, model.dim), np.float32), *parts])


def _finish(out: Location, model: Model, corpus: Corpus) -> EmbeddingManifest:
    """Count the rows of every part against the corpus, and write the manifest."""
    parts = []
    for number, shard in enumerate(corpus.manifest.shards):
        path = out / part_name(number)
        content = path.read_bytes()
        rows = read_part(path, content).num_rows
        if rows != shard.rows:
            raise DataError(
                f"{path} has {rows} rows, shard {number} of the corpus {shard.rows}; remove that part"
            )
        parts.append(PartFacts(name=part_name(number), rows=rows, sha256=hashlib.sha256(content).hexdigest()))
    total = sum(part.rows for part in parts)
    if total != corpus.manifest.rows:
        raise DataError(f"{out} has {total} rows, the corpus {corpus.manifest.rows}")
    manifest = EmbeddingManifest(
        model_hash=model.model_hash,
        corpus_id=corpus.corpus_id,
        dim=model.dim,
        rows=total,
        parts=tuple(parts),
        versions={"torch": torch.__version__, "ray": ray.__version__, "pyarrow": pa.__version__},
    )
    (out / MANIFEST).write_bytes(manifest.model_dump_json(indent=1).encode() + b"\n")
    return manifest


def read_part(path: Location, content: bytes) -> pa.Table:
    """The ids of a part, checked to be one.

    Raises:
        DataError: if it is damaged.
    """
    try:
        return read_plain(content, list(_FACTS))
    except (EcgdistError, OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} is damaged ({error}); remove it and run the same command again") from error
