"""The end of a packing: stop over refusals, or write index, refusals and, last, the manifest."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from ecgdist.corpus.corpus import INDEX_FILE, MANIFEST, REFUSED_FILE
from ecgdist.corpus.manifest import Manifest, SourceFacts
from ecgdist.corpus.schema import FORMAT_VERSION, INDEX, REFUSED, plain_bytes, read_plain, table
from ecgdist.errors import DataError, RecordRefused
from ecgdist.packing.plan import Plan
from ecgdist.packing.shards import PARTS, Refusal, ShardNote, note_name, part_name, record_rows
from ecgdist.record import STANDARD_LEADS

_SHOWN = 5
"""Refused records that an error names."""


def stop_if_too_many(plan: Plan, notes: Mapping[int, ShardNote]) -> None:
    """Stop once more than the allowed share of all listed records is refused.

    Raises:
        DataError: with the count, the reasons, and the first refused records.
    """
    listed = sum(plan.listed.values())
    refused = [item for number in sorted(notes) for item in notes[number].refused]
    if len(refused) / listed <= plan.max_refused_share:
        return
    # The next call reads these records again: the user may have mended their files.
    for number, note in notes.items():
        if note.refused:
            (plan.work.out / note_name(number)).delete()
    by_reason = Counter(item.reason for item in refused).most_common()
    counts = ", ".join(f"{reason} {count}" for reason, count in by_reason)
    raise DataError(
        f"{len(refused)} of {listed} records are refused, more than "
        f"max_refused_share = {plan.max_refused_share:g} allows: {counts}. "
        f"The first: {'; '.join(_describe(plan, item) for item in refused[:_SHOWN])}. "
        "Mend the files, or set max_refused_share higher to pack without them"
    )


def finish(plan: Plan, notes: Sequence[ShardNote]) -> None:
    """Turn the notes of all shards, in order, into a corpus.

    Raises:
        DataError: if no record is left, or records were lost.
        StorageError: if something cannot be read or written.
    """
    out = plan.work.out
    if not any(note.facts for note in notes):
        raise DataError("every listed record was refused; nothing to pack")
    sources = _account(plan, notes)
    index = plain_bytes(_index(plan, notes))
    refused = [item for note in notes for item in note.refused]
    refusals = plain_bytes(table([item.model_dump() for item in refused], REFUSED))
    (out / INDEX_FILE).write_bytes(index)
    (out / REFUSED_FILE).write_bytes(refusals)
    shards = tuple(note.facts for note in notes if note.facts)
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        pack=plan.work.pack,
        leads=STANDARD_LEADS,
        unit="uV",
        patient_key_fingerprint=plan.work.hasher.fingerprint,
        sources=sources,
        refused=dict(sorted(Counter(item.reason for item in refused).items())),
        rows=sum(facts.rows for facts in shards),
        shards=shards,
        index_sha256=hashlib.sha256(index).hexdigest(),
        refused_sha256=hashlib.sha256(refusals).hexdigest(),
    ).identified()
    (out / MANIFEST).write_bytes(manifest.to_bytes())
    _tidy(plan)


def _account(plan: Plan, notes: Sequence[ShardNote]) -> dict[str, SourceFacts]:
    """What became of the records of every source; listed must be packed + refused."""
    packed: Counter[str] = Counter()
    refused = Counter(item.source for note in notes for item in note.refused)
    for note in notes:
        packed.update(note.packed)
    facts = {}
    for name, source in plan.work.sources.items():
        listed = plan.listed.get(name, 0)
        if packed[name] + refused[name] != listed:
            raise DataError(
                f"source {name}: {listed} records listed, but {packed[name]} packed and "
                f"{refused[name]} refused; are there two records of one name?"
            )
        facts[name] = SourceFacts(
            kind=source.kind,
            dataset=source.dataset,
            licence=source.licence,
            citation=source.citation,
            listed=listed,
            packed=packed[name],
            refused=refused[name],
        )
    return facts


def _index(plan: Plan, notes: Sequence[ShardNote]) -> pa.Table:
    """The index rows of all shards, in order."""
    filled = [note.shard for note in notes if note.facts]
    with ThreadPoolExecutor(16) as pool:
        contents = list(pool.map(lambda number: (plan.work.out / part_name(number)).read_bytes(), filled))
    tables = []
    for place, content in enumerate(contents):
        rows = read_plain(content).cast(INDEX)
        # Shards without a row have no file, so the index counts only those that the manifest lists.
        places = pa.array([place] * rows.num_rows, pa.int32())
        tables.append(rows.set_column(0, INDEX.field("shard"), places))
    return pa.concat_tables(tables).combine_chunks()


def _tidy(plan: Plan) -> None:
    """Remove what only packing needed, and the half-written files of calls that were killed."""
    out = plan.work.out
    (out / PARTS).delete()
    for name in out.list_files():
        if name.endswith(".part"):
            (out / name).delete()


def _describe(plan: Plan, refusal: Refusal) -> str:
    """A refused record with the detail of its refusal, which is found out again because no note keeps it."""
    name = f"{refusal.source}/{refusal.record_id}"
    listing = next(
        listing
        for chunk in plan.chunks
        for source, listing in chunk
        if (source, listing.record_id) == (refusal.source, refusal.record_id)
    )
    try:
        record_rows(plan.work, refusal.source, plan.work.sources[refusal.source].read_record(listing))
    except RecordRefused as again:
        return f"{name}: {again.reason}: {again.detail}"
    return f"{name}: {refusal.reason}, but it can be read now"
