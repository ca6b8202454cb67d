"""Build one shard: read, convert and write its records. The same records give the same bytes."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ecgdist.config import Config
from ecgdist.corpus.manifest import ShardFacts
from ecgdist.corpus.patients import PatientHasher
from ecgdist.corpus.schema import INDEX, ROWS_PER_GROUP, plain_bytes, shard_bytes, shard_schema, table
from ecgdist.errors import RecordRefused
from ecgdist.preprocessing import PackStep
from ecgdist.record import Recording, mask_to_bits
from ecgdist.signals.fingerprint import fingerprints
from ecgdist.sources import Listing, Source
from ecgdist.storage import Location

PARTS = "parts"
"""Folder of what is only needed until the corpus is whole: the index rows and the note of every shard."""


@dataclass(frozen=True)
class Work:
    """Everything that a task needs to build any shard of a corpus.

    Attributes:
        out: folder of the corpus.
        pack: how recordings become segments.
        hasher: of patient ids.
        sources: by the name that the corpus gives them.
    """

    out: Location
    pack: PackStep
    hasher: PatientHasher
    sources: Mapping[str, Source]


class Refusal(Config):
    """A refused record. Its detail is not kept: it may quote the file, and no free text enters a corpus."""

    source: str
    record_id: str
    reason: str


class ShardNote(Config):
    """What became of the records of a shard."""

    shard: int
    packed: dict[str, int]
    """Packed records by source; a long record has several rows."""
    refused: tuple[Refusal, ...]
    facts: ShardFacts | None
    """Of the shard's file; None if every record was refused, since then there is none."""


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"{number:05d}.parquet"


def part_name(number: int) -> str:
    """Path of a shard's index rows, relative to the corpus."""
    return f"{PARTS}/{number:05d}.parquet"


def note_name(number: int) -> str:
    """Path of a shard's note, relative to the corpus. It is written after everything else of the shard."""
    return f"{PARTS}/{number:05d}.json"


def build_shard(work: Work, number: int, listings: Sequence[tuple[str, Listing]]) -> ShardNote:
    """Write a shard and its index rows.

    Raises:
        StorageError: if something cannot be read or written.
    """
    rows: list[dict[str, Any]] = []
    refused: list[Refusal] = []
    for name, listing, recording in read_all(work, listings):
        try:
            if isinstance(recording, RecordRefused):
                raise recording
            rows.extend(record_rows(work, name, recording))
        except RecordRefused as refusal:
            refused.append(Refusal(source=name, record_id=listing.record_id, reason=refusal.reason))
    records = {(row["source"], row["record_id"]) for row in rows}
    return ShardNote(
        shard=number,
        packed=Counter(source for source, _ in records),
        refused=tuple(refused),
        facts=_write(work, number, rows) if rows else None,
    )


def read_all(
    work: Work, listings: Sequence[tuple[str, Listing]]
) -> Iterator[tuple[str, Listing, Recording | RecordRefused]]:
    """Every listed record with its source's name: read, or refused by its listing or its source."""
    for name, group in itertools.groupby(listings, key=lambda item: item[0]):
        records = [listing for _, listing in group]
        for listing, recording in zip(records, work.sources[name].read_many(records), strict=True):
            yield name, listing, recording


def record_rows(work: Work, source: str, recording: Recording) -> list[dict[str, Any]]:
    """The rows of one record, one per segment.

    Raises:
        RecordRefused: if the conversion refuses it.
    """
    reader = work.sources[source]
    # Folders of one data set share its patients' ids, but records without one are told apart by folder.
    owner = reader.dataset if recording.patient_id is not None else source
    segments = work.pack.segments(recording)
    prints = fingerprints(
        np.stack([segment.signal_uv for segment in segments]),
        work.pack.rate_hz,
        np.stack([segment.lead_mask for segment in segments]),
        np.array([segment.valid_samples for segment in segments], dtype=np.int64),
    )
    return [
        {
            "signal": segment.signal_uv.astype("<i2").tobytes(),
            "record_id": recording.record_id,
            "source": source,
            "patient_key": work.hasher.patient_key(owner, recording.patient_id, recording.record_id),
            "segment": segment.segment,
            "lead_mask": mask_to_bits(segment.lead_mask),
            "valid_samples": segment.valid_samples,
            "age": recording.age,
            "sex": recording.sex,
            "labels": list(recording.labels),
            "split": recording.split,
            "quality": list(segment.quality),
            "source_rate_hz": recording.rate_hz,
            "source_samples": recording.signal_uv.shape[1],
            "nan_share": segment.measures.nan_share,
            "flat_leads": mask_to_bits(segment.measures.flat_leads),
            "clipped_leads": mask_to_bits(segment.measures.clipped_leads),
            "peak_uv": segment.measures.peak_uv,
            "limb_residual_uv": segment.measures.limb_residual_uv,
            "fingerprint": fingerprint.tobytes(),
        }
        for segment, fingerprint in zip(segments, prints, strict=True)
    ]


def _write(work: Work, number: int, rows: Sequence[dict[str, Any]]) -> ShardFacts:
    content = shard_bytes(table(rows, shard_schema(work.pack.num_samples)))
    (work.out / "shards" / shard_name(number)).write_bytes(content)
    places = [
        dict(zip(("row_group", "row"), divmod(i, ROWS_PER_GROUP), strict=True)) for i in range(len(rows))
    ]
    index = [{**row, **place, "shard": number} for row, place in zip(rows, places, strict=True)]
    (work.out / part_name(number)).write_bytes(plain_bytes(table(index, INDEX)))
    return ShardFacts(
        name=shard_name(number),
        rows=len(rows),
        row_groups=tuple(min(ROWS_PER_GROUP, len(rows) - i) for i in range(0, len(rows), ROWS_PER_GROUP)),
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )
