"""One part of a folder of embeddings: the rows of one shard, and the note that says what it is."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from ecgdist.config import Config
from ecgdist.corpus import Corpus
from ecgdist.downstream.overrows import batches_of
from ecgdist.errors import DataError
from ecgdist.modelfolder import Model, sha256_of
from ecgdist.storage import Location

FACTS = ("record_id", "segment", "source", "patient_key", "split")
"""What a part says of a row beside its embedding."""


class PartNote(Config):
    """What a part is; written after it."""

    shard: int
    rows: int
    sha256: str
    model_hash: str
    corpus_id: str

    def fits(self, shard: int, model: Model, corpus: Corpus) -> bool:
        """Whether it is of this shard of this corpus, by this model."""
        ours = (shard, corpus.manifest.shards[shard].rows, model.model_hash, corpus.corpus_id)
        return (self.shard, self.rows, self.model_hash, self.corpus_id) == ours

    @classmethod
    def read(cls, path: Location) -> PartNote | None:
        """The note in a file; None if it is none."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError:
            return None


def part_name(shard: int) -> str:
    """Name of the part that holds the rows of a shard."""
    return f"parts/part-{shard:05d}.parquet"


def note_name(shard: int) -> str:
    """Name of its note."""
    return f"notes/part-{shard:05d}.json"


def embed_shard(model: Model, corpus: Corpus, shard: int, batch_rows: int, out: Location) -> PartNote:
    """Write the part of a shard, then its note.

    Raises:
        DataError: if the index has another number of rows of it than the manifest, or an embedding is not finite.
        StorageError: if something cannot be read or written.
    """
    table = embedded(model, corpus, shard, batch_rows)
    buffer = io.BytesIO()
    # Embeddings do not repeat, so a dictionary would only cost time.
    pq.write_table(table, buffer, compression="zstd", use_dictionary=list(FACTS), write_page_checksum=True)
    content = buffer.getvalue()
    note = PartNote(
        shard=shard,
        rows=table.num_rows,
        sha256=sha256_of(content),
        model_hash=model.model_hash,
        corpus_id=corpus.corpus_id,
    )
    (out / part_name(shard)).write_bytes(content)
    (out / note_name(shard)).write_bytes(note.model_dump_json(indent=1).encode() + b"\n")
    return note


def embedded(model: Model, corpus: Corpus, shard: int, batch_rows: int) -> pa.Table:
    """The facts and the embedding of every row of a shard, in the order of the corpus.

    Raises:
        DataError: as `embed_shard`.
    """
    rows = np.flatnonzero(corpus.columns("shard")["shard"].to_numpy() == shard)
    expected = corpus.manifest.shards[shard].rows
    if len(rows) != expected:
        raise DataError(
            f"the index of {corpus.location} has {len(rows)} rows of shard {shard}, its manifest {expected}; pack the "
            "corpus again"
        )
    values = _embeddings(model, corpus, rows, batch_rows)
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        record = corpus.columns("record_id")["record_id"][int(rows[bad[0]])].as_py()
        raise DataError(
            f"the embedding of record {record} (shard {shard}) is not finite; check the model's weights"
        )
    facts = corpus.columns(*FACTS).take(pa.array(rows)).combine_chunks()
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), model.dim)
    return facts.append_column("embedding", column)


def _embeddings(
    model: Model, corpus: Corpus, rows: npt.NDArray[np.int64], batch_rows: int
) -> npt.NDArray[np.float32]:
    """``(rows, dim)``; as `features`, which would take memory for the whole corpus."""
    parts = [
        model.embed_packed(signal_uv, valid, lead_mask)
        for _, signal_uv, valid, lead_mask in batches_of(corpus, rows, batch_rows)
    ]
    return np.concatenate([np.zeros((0, model.dim), np.float32), *parts])
