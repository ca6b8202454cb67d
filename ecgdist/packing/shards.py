"""Build one shard: read, convert and write its records. The same records give the same bytes."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ecgdist.corpus.codec import encode
from ecgdist.corpus.examples import EXAMPLES, Examples
from ecgdist.corpus.footer import shard_facts
from ecgdist.corpus.manifest import ShardFacts
from ecgdist.corpus.patients import PatientHasher
from ecgdist.corpus.schema import (
    FACTS,
    INDEX,
    REFUSED,
    ROWS_PER_GROUP,
    plain_bytes,
    shard_schema,
    shard_writer,
    table,
)
from ecgdist.errors import DataError, RecordRefused
from ecgdist.packing.notes import (
    ShardNote,
    examples_name,
    part_name,
    refused_name,
    shard_name,
    shard_path,
    write_note,
)
from ecgdist.packing.privacy import capped_age, hiding_names, keyed_record_id, refuse_free_text, relative_day
from ecgdist.preprocessing import PackStep
from ecgdist.record import Recording, mask_to_bits
from ecgdist.signals.fingerprint import fingerprints
from ecgdist.sources import Listing, Source
from ecgdist.storage import Location


@dataclass(frozen=True)
class Work:
    """Everything that a task needs to build any shard of a corpus.

    Attributes:
        out: folder of the corpus.
        pack: how recordings become segments.
        hasher: of patient ids.
        sources: by the name that the corpus gives them.
        private: whether keyed ids stand for the ids of records.
        relative_dates: whether the days between the ECGs of a patient are kept.
    """

    out: Location
    pack: PackStep
    hasher: PatientHasher
    sources: Mapping[str, Source]
    private: bool
    relative_dates: bool

    def shown_id(self, source: str, record_id: str) -> str:
        """A record's id as a corpus and messages may show it."""
        if not self.private:
            return _readable(record_id)
        return keyed_record_id(self.hasher, self.sources[source].dataset_name, record_id)

    def hiding_names(self, source: str, listing: Listing) -> AbstractContextManager[None]:
        """Hide what an error in reading a record may quote, where the packing is private."""
        shown = self.shown_id(source, listing.record_id)
        return hiding_names(self.private, lambda: f"reading record {source}/{shown}", (RecordRefused,))


def _readable(record_id: str) -> str:
    """A record's id as text that can be stored: file names need not be valid UTF-8."""
    return record_id.encode(errors="backslashreplace").decode()


def build_shard(work: Work, number: int, listings: Sequence[tuple[str, Listing]]) -> ShardNote:
    """Write a shard, its index rows, its refusals and its note. No more than a row group is held at a time.

    Raises:
        StorageError: if something cannot be read or written.
    """
    packed: Counter[str] = Counter()
    refused: list[dict[str, str]] = []
    examples = Examples()
    groups = _groups(_rows(work, listings, packed, refused, examples))
    first = next(groups, None)
    if first is None:
        return _write_outcome(work, number, packed, refused, examples, None)
    with (work.out / shard_path(number)).writing() as path:
        facts = _write_rows(work, number, itertools.chain([first], groups), path)
        note = _write_outcome(work, number, packed, refused, examples, facts)
        # Leaving this block gives the shard its name, after all else: see `notes`.
    return note


def _rows(
    work: Work,
    listings: Sequence[tuple[str, Listing]],
    packed: Counter[str],
    refused: list[dict[str, str]],
    examples: Examples,
) -> Iterator[dict[str, Any]]:
    """The rows of all records that can be packed; what becomes of each is noted in the last three arguments."""
    for name, listing, recording in read_all(work, listings):
        try:
            if isinstance(recording, RecordRefused):
                raise recording
            with work.hiding_names(name, listing):
                rows = record_rows(work, name, recording)
        except RecordRefused as refusal:
            shown = work.shown_id(name, listing.record_id)
            refused.append({"source": name, "record_id": shown, "reason": refusal.reason})
            if isinstance(recording, Recording):
                examples.add(name, shown, refusal.reason, recording)
            continue
        packed[name] += 1
        yield from rows


def _groups(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while group := list(itertools.islice(rows, ROWS_PER_GROUP)):
        yield group


def read_all(
    work: Work, listings: Sequence[tuple[str, Listing]]
) -> Iterator[tuple[str, Listing, Recording | RecordRefused]]:
    """Every listed record with its source's name: read, or refused by its listing or its source."""
    for name, group in itertools.groupby(listings, key=lambda item: item[0]):
        records = [listing for _, listing in group]
        found = work.sources[name].read_many(records)
        for listing in records:
            with work.hiding_names(name, listing):
                recording = next(found, None)
            if recording is None:
                raise DataError(f"source {name} was asked for {len(records)} records and gave fewer")
            yield name, listing, recording


def record_rows(work: Work, source: str, recording: Recording) -> list[dict[str, Any]]:
    """The rows of one record, one per segment.

    Raises:
        RecordRefused: if the conversion refuses it.
    """
    refuse_free_text(recording)
    reader = work.sources[source]
    # Folders of one data set share its patients' ids, but records without one are told apart by folder.
    owner = reader.dataset_name if recording.patient_id is not None else source
    segments = work.pack.segments(recording)
    prints = fingerprints(
        np.stack([segment.signal_uv for segment in segments]),
        work.pack.rate_hz,
        np.stack([segment.lead_mask for segment in segments]),
        np.array([segment.valid_samples for segment in segments], dtype=np.int64),
    )
    return [
        {
            "signal": encode(segment.signal_uv[np.newaxis]).tobytes(),
            "record_id": work.shown_id(source, recording.record_id),
            "source": source,
            "patient_key": work.hasher.patient_key(
                owner, recording.patient_id, _readable(recording.record_id)
            ),
            "segment": segment.segment,
            "lead_mask": mask_to_bits(segment.lead_mask),
            "valid_samples": segment.valid_samples,
            "age": capped_age(recording.age) if work.private else recording.age,
            "sex": recording.sex,
            "day": relative_day(work.hasher, owner, recording) if work.relative_dates else None,
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


def _write_rows(work: Work, number: int, groups: Iterator[list[dict[str, Any]]], path: Path) -> ShardFacts:
    """Write the row groups of a shard one by one to a local path, and then their index rows."""
    index: list[dict[str, Any]] = []
    sizes: list[int] = []
    schema = shard_schema(work.pack.num_samples)
    with shard_writer(path, work.pack.num_samples) as writer:
        for group in groups:
            writer.write_table(table(group, schema))
            for row, facts in enumerate(group):
                place = {"shard": number, "row_group": len(sizes), "row": row}
                index.append({**{name: facts[name] for name in FACTS.names}, **place})
            sizes.append(len(group))
    (work.out / part_name(number)).write_bytes(plain_bytes(table(index, INDEX)))
    return shard_facts(path, shard_name(number), sizes)


def _write_outcome(
    work: Work,
    number: int,
    packed: Counter[str],
    refused: Sequence[dict[str, str]],
    examples: Examples,
    facts: ShardFacts | None,
) -> ShardNote:
    """Write the refusals of a shard, and its note."""
    if refused:
        (work.out / refused_name(number)).write_bytes(plain_bytes(table(refused, REFUSED)))
    if examples.rows:
        (work.out / examples_name(number)).write_bytes(plain_bytes(table(examples.rows, EXAMPLES)))
    by_source: dict[str, dict[str, int]] = defaultdict(Counter)
    for item in refused:
        by_source[item["source"]][item["reason"]] += 1
    note = ShardNote(shard=number, packed=packed, refused=by_source, examples=examples.by_reason, facts=facts)
    write_note(work.out, note)
    return note
