"""The columns of a corpus: an allow-list, so that nothing else of a patient can enter it."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ecgdist.record import NUM_LEADS
from ecgdist.signals.fingerprint import FINGERPRINT_BYTES

FORMAT_VERSION = 3
ROWS_PER_GROUP = 128
"""Rows of one Parquet row group: the unit of reading and of the epoch's permutation.

Measured at 250 Hz (``tests/benchmarks/codec.py``): of 64 rows, S3 gives 15 % fewer ECG/s; of 256, 10 % more, for twice
the memory of a pool and a coarser permutation. The bytes are the same.
"""

_PLAIN_BYTES = 2**25
_LARGEST_RATIO = 64
"""A table of ours unpacks to four times its file, a very small or uniform one to little."""
FACTS_BYTES = 2**14
"""Most bytes of all of a row but its signal, on average over a shard."""

FACTS = pa.schema(
    [
        ("record_id", pa.string()),
        ("source", pa.string()),
        ("patient_key", pa.string()),
        ("segment", pa.int32()),
        ("lead_mask", pa.int16()),
        ("valid_samples", pa.int32()),
        ("age", pa.float32()),
        ("sex", pa.string()),
        ("day", pa.int32()),
        ("labels", pa.list_(pa.string())),
        ("split", pa.string()),
        ("quality", pa.list_(pa.string())),
        ("source_rate_hz", pa.float32()),
        ("source_samples", pa.int32()),
        ("nan_share", pa.float32()),
        ("flat_leads", pa.int16()),
        ("clipped_leads", pa.int16()),
        ("peak_uv", pa.float32()),
        ("limb_residual_uv", pa.float32()),
        ("fingerprint", pa.binary(FINGERPRINT_BYTES)),
    ]
)
"""What is known of a row beside its signal; these columns are in the shards and in the index."""

PLACE = pa.schema([("shard", pa.int32()), ("row_group", pa.int32()), ("row", pa.int32())])
"""Where a row lies: shard number, row group in the shard, row in the group."""

INDEX = pa.schema([*PLACE, *FACTS])

REFUSED = pa.schema([("source", pa.string()), ("record_id", pa.string()), ("reason", pa.string())])
"""A refusal's detail is left out on purpose: it may quote the file, and free text never enters a corpus."""


def shard_schema(num_samples: int) -> pa.Schema:
    """Columns of a shard: the signal in the stored form of `codec`, and `FACTS`."""
    return pa.schema([("signal", pa.binary(signal_bytes(num_samples))), *FACTS])


def signal_bytes(num_samples: int) -> int:
    """Bytes of a signal, as int16 and in the stored form alike."""
    return NUM_LEADS * num_samples * 2


def table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as an Arrow table with exactly the columns of `schema`."""
    return pa.table({f.name: pa.array([row[f.name] for row in rows], f.type) for f in schema}, schema=schema)


def shard_writer(path: str | os.PathLike[str], num_samples: int) -> pq.ParquetWriter:
    """Writes a shard's Parquet file, one table per row group. The same tables give the same bytes."""
    return pq.ParquetWriter(
        path,
        shard_schema(num_samples),
        compression="zstd",
        compression_level=1,
        use_dictionary=[],
        write_statistics=False,
        store_schema=False,
        # Without it a flipped bit goes unnoticed: neither zstd's frames nor Parquet's pages carry a checksum.
        write_page_checksum=True,
    )


def plain_writer(path: str | os.PathLike[str], schema: pa.Schema) -> pq.ParquetWriter:
    """Writes what `plain_bytes` gives, in row groups: an index may be larger than memory."""
    return pq.ParquetWriter(path, schema, compression="zstd", store_schema=False)


def plain_bytes(content: pa.Table) -> bytes:
    """A small table's Parquet file (index, refusals). The same table gives the same bytes."""
    buffer = io.BytesIO()
    pq.write_table(content, buffer, compression="zstd", store_schema=False)
    return buffer.getvalue()


def read_plain(content: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """The table in a small Parquet file, or chosen columns of it.

    It is read from an Arrow buffer, not a Python file: Arrow's threads may drop the file when the interpreter is
    already gone, and the process then ends with an abort (seen with pyarrow 26 and Python 3.11).

    Raises:
        ValueError: if it says that it is far larger unpacked than any table of ours.
    """
    chosen = None if columns is None else list(columns)
    file = pq.ParquetFile(pa.BufferReader(content))
    refuse_bomb(file.metadata, _PLAIN_BYTES + _LARGEST_RATIO * len(content))
    return file.read(columns=chosen, use_threads=False)


def refuse_bomb(metadata: pq.FileMetaData, most_bytes: int) -> None:
    """Refuse a Parquet file whose columns say that they are larger than `most_bytes` unpacked.

    Raises:
        ValueError: with both numbers.
    """
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    unpacked = sum(
        max(
            group.total_byte_size,
            sum(group.column(i).total_uncompressed_size for i in range(group.num_columns)),
        )
        for group in groups
    )
    if unpacked > most_bytes:
        raise ValueError(f"it would unpack to {unpacked:,} bytes, more than the {most_bytes:,} of a real one")


def signal_array(column: pa.ChunkedArray | pa.Array, num_samples: int) -> npt.NDArray[np.int16]:
    """A column of signals as ``(rows, 12, num_samples)`` int16 microvolt, without a copy if it is one chunk."""
    return stored_array(column, num_samples).view("<i2").reshape(-1, NUM_LEADS, num_samples)


def signal_column(signal_uv: npt.NDArray[np.int16]) -> pa.Array:
    """The inverse of `signal_array`: ``(rows, 12, samples)`` little-endian int16 as a column, without a copy."""
    column = pa.binary(signal_bytes(signal_uv.shape[2]))
    return pa.FixedSizeBinaryArray.from_buffers(column, len(signal_uv), [None, pa.py_buffer(signal_uv)])


def stored_array(column: pa.ChunkedArray | pa.Array, num_samples: int) -> npt.NDArray[np.uint8]:
    """A signal column's bytes as ``(rows, 24 * num_samples)``, without a copy if it is one chunk.

    Raises:
        ValueError: if a row has none, which no corpus does.
    """
    if column.null_count:
        raise ValueError(f"{column.null_count} rows have no signal")
    width = signal_bytes(num_samples)
    parts = []
    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        # A sliced Arrow array shares its parent's buffer: its own rows start at `offset`.
        flat = np.frombuffer(chunk.buffers()[1], dtype=np.uint8, count=(chunk.offset + len(chunk)) * width)
        parts.append(flat.reshape(-1, width)[chunk.offset :])
    return parts[0] if len(parts) == 1 else np.concatenate(parts or [np.zeros((0, width), np.uint8)])


def fingerprint_array(column: pa.ChunkedArray) -> npt.NDArray[np.uint8]:
    """A fingerprint column as ``(rows, FINGERPRINT_BYTES)``."""
    parts = []
    for chunk in column.chunks:
        flat = np.frombuffer(chunk.buffers()[1], dtype=np.uint8)
        rows = flat[: (chunk.offset + len(chunk)) * FINGERPRINT_BYTES].reshape(-1, FINGERPRINT_BYTES)
        parts.append(rows[chunk.offset :])
    return np.concatenate([np.zeros((0, FINGERPRINT_BYTES), np.uint8), *parts])
