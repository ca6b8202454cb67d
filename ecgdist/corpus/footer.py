"""The footer of a shard: where its columns lie, and the only part of the file that no checksum of Parquet's covers.

A flipped bit of it can make pyarrow 26 end the process (an exception that its C++ code does not catch). So the manifest
has a hash of it, and nothing is parsed before that was compared. With the checksums of pages, which Parquet compares,
all of a shard that is read in training is known to be what was packed; another shard in its place has another footer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ecgdist.corpus.manifest import ShardFacts

_MAGIC = b"PAR1"
_END_BYTES = 8
"""The footer's length in four bytes, and the magic."""


def shard_facts(path: Path, name: str, row_groups: Sequence[int]) -> ShardFacts:
    """What the manifest says of a shard that was just written to `path`."""
    size = path.stat().st_size
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(size - _END_BYTES)
        footer_bytes = int.from_bytes(file.read(4), "little") + _END_BYTES
        file.seek(size - footer_bytes)
        footer_sha256 = hashlib.sha256(file.read()).hexdigest()
    return ShardFacts(
        name=name,
        rows=sum(row_groups),
        row_groups=tuple(row_groups),
        bytes=size,
        sha256=sha256,
        footer_bytes=footer_bytes,
        footer_sha256=footer_sha256,
    )


def read_footer(file: pa.NativeFile, facts: ShardFacts) -> pq.FileMetaData:
    """The footer of an open shard, parsed when it is known to be what was packed.

    Raises:
        ValueError: if it is not.
    """
    size = file.size()
    if size != facts.bytes:
        raise ValueError(f"it has {size:,} bytes, its manifest {facts.bytes:,}")
    content = file.read_at(facts.footer_bytes, size - facts.footer_bytes)
    if hashlib.sha256(content).hexdigest() != facts.footer_sha256:
        raise ValueError("its footer differs from its manifest's sha256")
    return pq.read_metadata(pa.BufferReader(_MAGIC + content))
