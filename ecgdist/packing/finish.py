"""The end of a packing: stop over refusals, or write index, refusals and, last, the manifest."""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from ecgdist.corpus.codec import CODEC
from ecgdist.corpus.corpus import EXAMPLES_FILE, INDEX_FILE, MANIFEST, REFUSED_FILE
from ecgdist.corpus.examples import EXAMPLES, PER_REASON, first_of_each_reason
from ecgdist.corpus.manifest import Manifest, ShardFacts, SourceFacts
from ecgdist.corpus.schema import FORMAT_VERSION, INDEX, REFUSED, plain_writer, read_plain
from ecgdist.errors import DataError, EcgdistError
from ecgdist.packing.notes import PARTS, ShardNote, examples_name, note_name, part_name, refused_name
from ecgdist.packing.plan import Plan
from ecgdist.packing.shards import record_rows
from ecgdist.record import STANDARD_LEADS
from ecgdist.signals.rules import SETTINGS
from ecgdist.sources import Listing
from ecgdist.storage import Location

REFUSED_SO_FAR = f"{PARTS}/refused.csv"
"""Written by a packing that stops over its refusals, relative to the corpus: source, record_id and reason of each."""
_SHOWN = 5
"""Refused records that an error names."""
_READERS = 16
"""Files read at a time."""
_ROWS_PER_GROUP = 2**17
"""Least rows of a row group of the index but for its last: what `finish` holds in memory."""
_WHOLE = 2**30
"""Rows of a row group when a table is to be one."""


def stop_if_too_many(plan: Plan, notes: Mapping[int, ShardNote]) -> None:
    """Stop once more than the allowed share of all records is refused.

    Raises:
        DataError: with the count, the reasons, and the first refused records.
    """
    refused = sum(note.num_refused for note in notes.values())
    if refused / plan.num_records <= plan.max_refused_share:
        return
    first = list(itertools.islice(_described(plan, notes), _SHOWN))
    listed = plan.work.out / REFUSED_SO_FAR
    listed.write_bytes(_list_of_refused(plan, notes))
    counts = ", ".join(f"{reason} {count}" for reason, count in _by_reason(notes.values()).most_common())
    raise DataError(
        f"{refused} of {plan.num_records} records are refused, more than "
        f"max_refused_share = {plan.max_refused_share:g} allows: {counts}. "
        f"The first: {'; '.join(first)}{' (private = false says more)' if plan.work.private else ''}. "
        f"All of them are in {listed}. "
        f"Mend the files, or set max_refused_share higher to pack without them: so far they are "
        f"{refused / plan.num_records:.3g} of all{_settings(notes.values())}"
    )


def forget_refused(plan: Plan) -> None:
    """After a packing that stopped over its refusals: let the shards that have some be built again.

    The user may have mended their files.
    """
    out = plan.work.out
    if not (out / REFUSED_SO_FAR).exists():
        return
    names = set(out.list_files())
    for number in range(len(plan.chunks)):
        if {refused_name(number), note_name(number)} <= names:
            (out / note_name(number)).delete()
    (out / REFUSED_SO_FAR).delete()


def _list_of_refused(plan: Plan, notes: Mapping[int, ShardNote]) -> bytes:
    """Every refused record so far, as a comma-separated table."""
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, REFUSED.names)
    table.writeheader()
    for number in sorted(notes):
        if notes[number].refused:
            part = plan.work.out / refused_name(number)
            table.writerows(read_plain(part.read_bytes()).to_pylist())
    return text.getvalue().encode()


def _settings(notes: Iterable[ShardNote]) -> str:
    """Which settings decide over the reasons of refusal."""
    named = [f"{reason} by {SETTINGS[reason]}" for reason in sorted(_by_reason(notes)) if reason in SETTINGS]
    return f". Rules that can be changed: {', '.join(named)}" if named else ""


def finish(plan: Plan, notes: Sequence[ShardNote]) -> None:
    """Turn the notes of all shards, in order, into a corpus.

    Raises:
        DataError: if no record is left, or records were lost.
        StorageError: if something cannot be read or written.
    """
    out = plan.work.out
    shards = tuple(note.facts for note in notes if note.facts)
    if not shards:
        raise DataError("every listed record was refused; nothing to pack")
    sources = _account(plan, notes)
    index_sha256 = _join(out / INDEX_FILE, _index_parts(plan, notes), INDEX)
    refused_sha256 = _join(out / REFUSED_FILE, _refused_parts(plan, notes), REFUSED)
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        pack=plan.work.pack,
        leads=STANDARD_LEADS,
        unit="uV",
        codec=CODEC,
        patient_key_fingerprint=plan.work.hasher.fingerprint,
        private=plan.work.private,
        sources=sources,
        refused=dict(sorted(_by_reason(notes).items())),
        rows=sum(facts.rows for facts in shards),
        shards=shards,
        index_sha256=index_sha256,
        refused_sha256=refused_sha256,
        examples_sha256=_write_examples(plan, notes),
    ).identified()
    (out / MANIFEST).write_bytes(manifest.to_bytes())
    _tidy(plan, shards)


def _by_reason(notes: Iterable[ShardNote]) -> Counter[str]:
    """Refused records by reason."""
    counts: Counter[str] = Counter()
    for note in notes:
        for by_reason in note.refused.values():
            counts.update(by_reason)
    return counts


def _account(plan: Plan, notes: Sequence[ShardNote]) -> dict[str, SourceFacts]:
    """What became of the records of every source; listed must be packed + refused + excluded."""
    packed: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for note in notes:
        packed.update(note.packed)
        refused.update({name: sum(by_reason.values()) for name, by_reason in note.refused.items()})
    facts = {}
    for name, source in plan.work.sources.items():
        listed, excluded = plan.listed.get(name, 0), plan.excluded.get(name, 0)
        if packed[name] + refused[name] + excluded != listed:
            raise DataError(
                f"source {name}: {listed} records listed, but {packed[name]} packed, {refused[name]} refused "
                f"and {excluded} excluded; this is a defect"
            )
        facts[name] = SourceFacts(
            kind=source.kind,
            dataset=source.dataset_name,
            licence=source.licence,
            citation=source.citation,
            listed=listed,
            packed=packed[name],
            refused=refused[name],
            excluded=excluded,
        )
    return facts


def _index_parts(plan: Plan, notes: Sequence[ShardNote]) -> Iterator[pa.Table]:
    """The index rows of all shards, in order."""
    filled = [part_name(note.shard) for note in notes if note.facts]
    for place, rows in enumerate(_read_in_order(plan, filled)):
        # Shards without a row have no file, so the index counts only those that the manifest lists.
        places = pa.array([place] * rows.num_rows, pa.int32())
        yield rows.cast(INDEX).set_column(0, INDEX.field("shard"), places)


def _refused_parts(plan: Plan, notes: Sequence[ShardNote]) -> Iterator[pa.Table]:
    """The refused records of all shards, in order."""
    return _read_in_order(plan, [refused_name(note.shard) for note in notes if note.refused])


def _write_examples(plan: Plan, notes: Sequence[ShardNote]) -> str | None:
    """Keep the first refused recordings of each reason; their file's SHA-256, or None if there are none."""
    found: Counter[str] = Counter()
    names = []
    for note in notes:
        if any(found[reason] < PER_REASON for reason in note.examples):
            names.append(examples_name(note.shard))
            found.update(note.examples)
    if not names:
        return None
    parts = [first_of_each_reason(pa.concat_tables(_read_in_order(plan, names)))]
    return _join(plan.work.out / EXAMPLES_FILE, parts, EXAMPLES)


def _read_in_order(plan: Plan, names: Sequence[str]) -> Iterator[pa.Table]:
    """Small Parquet files of the output folder, a few read at a time."""
    with ThreadPoolExecutor(_READERS) as pool:
        for start in range(0, len(names), _READERS):
            some = names[start : start + _READERS]
            yield from map(read_plain, pool.map(lambda name: (plan.work.out / name).read_bytes(), some))


def _join(target: Location, parts: Iterable[pa.Table], schema: pa.Schema) -> str:
    """Write many small tables as one file, of which no more than a row group is held, and give its SHA-256."""
    held: list[pa.Table] = []
    with target.writing() as path:
        with plain_writer(path, schema) as writer:
            for part in parts:
                held.append(part)
                if sum(map(len, held)) >= _ROWS_PER_GROUP:
                    writer.write_table(pa.concat_tables(held).combine_chunks(), _WHOLE)
                    held.clear()
            writer.write_table(pa.concat_tables([*held, schema.empty_table()]).combine_chunks(), _WHOLE)
        with path.open("rb") as written:
            return hashlib.file_digest(written, "sha256").hexdigest()


def _tidy(plan: Plan, shards: Sequence[ShardFacts]) -> None:
    """Remove what only packing needed, and the half-written files of calls that were killed."""
    out = plan.work.out
    (out / PARTS).delete()
    listed = {f"shards/{shard.name}" for shard in shards}
    for name in out.list_files():
        # A shard that no manifest lists: its records were packed by an earlier call and are all refused now.
        if name.endswith(".part") or (name.startswith("shards/") and name not in listed):
            (out / name).delete()


def _described(plan: Plan, notes: Mapping[int, ShardNote]) -> Iterator[str]:
    """The refused records in order, each with its reason.

    The detail is found out again, because no note keeps it; a private packing does not show it.
    """
    work = plan.work
    for number in sorted(number for number, note in notes.items() if note.refused):
        refused = read_plain((work.out / refused_name(number)).read_bytes()).to_pylist()
        listings = {
            (name, work.shown_id(name, listing.record_id)): listing
            for name, listing in plan.chunks[number].listings()
        }
        for item in refused:
            name = f"{item['source']}/{item['record_id']}"
            listing = listings[item["source"], item["record_id"]]
            yield f"{name}: {item['reason'] if work.private else _detail(plan, item, listing)}"


def _detail(plan: Plan, item: Mapping[str, str], listing: Listing) -> str:
    try:
        record_rows(plan.work, item["source"], plan.work.sources[item["source"]].read_record(listing))
    except EcgdistError as again:
        return str(again)
    return f"{item['reason']}, but it can be read now"
