"""Sources -> corpus, as a Ray Data job.

The listing is cut into shards of a fixed number of records before any work starts; a shard is one task with a
deterministic name and content. Every finished shard leaves a note under ``parts/``, so the same command run again builds
only what is missing. ``manifest.json`` is written last: a folder without it is not a corpus.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from pydantic import Field, field_validator

from ecgdist.config import Config
from ecgdist.corpus.corpus import INDEX_FILE, MANIFEST, REFUSED_FILE, Corpus
from ecgdist.corpus.manifest import Manifest, ShardFacts, SourceFacts, canonical_json
from ecgdist.corpus.patients import PatientHasher
from ecgdist.corpus.schema import (
    FORMAT_VERSION,
    INDEX,
    REFUSED,
    ROWS_PER_GROUP,
    plain_bytes,
    shard_bytes,
    shard_schema,
    table,
)
from ecgdist.errors import ConfigError, DataError, RecordRefused
from ecgdist.preprocessing import PackStep, Preprocessing
from ecgdist.raytools import ray_session, user_errors
from ecgdist.record import STANDARD_LEADS, mask_to_bits
from ecgdist.sources import Listing, Source, open_source
from ecgdist.storage import Location

PLAN = "packing.json"


class PackConfig(Config):
    """What to pack, and how."""

    sources: tuple[str, ...]
    """``KIND=URI`` for each source, for example ``ptbxl=s3://ecg/ptb-xl``."""
    out: str
    """Folder of the corpus, local or s3://; must be empty, or hold an unfinished packing of the same records."""
    pack: PackStep = PackStep()
    """Rate, length and limits of the packed signals."""
    records_per_shard: int = Field(default=2048, ge=1)
    """Records listed per shard; 2,048 records of 10 s at 250 Hz are about 128 MB before compression."""
    max_refused_share: float = Field(default=0.05, ge=0.0, le=1.0)
    """Packing stops when more than this share of the listed records is refused."""

    @field_validator("sources")
    @classmethod
    def _pairs(cls, sources: tuple[str, ...]) -> tuple[str, ...]:
        if not sources:
            raise ValueError("name at least one source as KIND=URI")
        for text in sources:
            kind, equals, uri = text.partition("=")
            if not (kind and equals and uri):
                raise ValueError(f"{text!r} is not of the form KIND=URI, for example ptbxl=/data/ptb-xl")
        return sources


@dataclass(frozen=True)
class PackResult:
    """What packing did."""

    corpus: Corpus
    built: int
    """Shards built by this call; the others were there already."""


@dataclass(frozen=True)
class _Plan:
    """Everything a task needs to build any shard of the corpus."""

    out: Location
    digest: str
    preprocessing: Preprocessing
    hasher: PatientHasher
    sources: Mapping[str, Source]
    """By the name that the corpus gives the source."""


def pack(config: PackConfig) -> PackResult:
    """Pack the sources of `config` into a corpus; run again, it goes on where it stopped.

    Raises:
        ConfigError: for an unknown source kind, or an output folder that holds something else.
        DataError: if a source cannot be listed, or too many records are refused.
        StorageError: if something cannot be read or written.
    """
    out = Location.of(config.out)
    sources = _open_sources(config.sources)
    listings = [(name, listing) for name, source in sources.items() for listing in source.list_records()]
    if not listings:
        raise DataError(f"no ECG found in {', '.join(config.sources)}; check the kind of source and the folder")
    plan = _Plan(
        out=out,
        digest=_plan_digest(config, listings),
        preprocessing=Preprocessing(pack=config.pack),
        hasher=PatientHasher.from_environment(),
        sources=sources,
    )
    finished = _claim_folder(plan)
    if finished is not None:
        return PackResult(finished, built=0)
    size = config.records_per_shard
    chunks = [listings[i : i + size] for i in range(0, len(listings), size)]
    done = _finished_parts(plan, len(chunks))
    missing = [number for number in range(len(chunks)) if number not in done]
    limit = int(config.max_refused_share * len(listings))
    _stop_if_too_many(done.values(), limit, len(listings))
    for part in _build_shards(plan, chunks, missing):
        done[part["shard"]] = part
        _stop_if_too_many(done.values(), limit, len(listings))
    _finish(plan, [done[number] for number in range(len(chunks))], Counter(name for name, _ in listings))
    return PackResult(Corpus(out), built=len(missing))


def _open_sources(texts: Sequence[str]) -> dict[str, Source]:
    """Sources by name: their kind, numbered from the second of a kind on."""
    sources: dict[str, Source] = {}
    seen: Counter[str] = Counter()
    for text in texts:
        kind, _, uri = text.partition("=")
        source = open_source(kind, Location.of(uri))
        seen[kind] += 1
        sources[kind if seen[kind] == 1 else f"{kind}-{seen[kind]}"] = source
    return sources


def _plan_digest(config: PackConfig, listings: Sequence[tuple[str, Listing]]) -> str:
    """Two packings with this digest build the same corpus; it depends on no path."""
    digest = hashlib.sha256()
    hasher = PatientHasher.from_environment()
    settings = {"format": FORMAT_VERSION, "pack": config.pack.model_dump(mode="json"), "per_shard": config.records_per_shard}
    digest.update(canonical_json([settings, hasher.fingerprint]))
    for name, listing in listings:
        digest.update(canonical_json([name, asdict(listing)]))
    return digest.hexdigest()[:32]


def _claim_folder(plan: _Plan) -> Corpus | None:
    """Make the output folder ours, or return the finished corpus that is there already."""
    note = plan.out / PLAN
    if note.exists():
        found = json.loads(note.read_bytes()).get("plan")
        if found != plan.digest:
            raise ConfigError(
                f"{plan.out} holds a packing of other records or settings; choose another --out, or remove that folder"
            )
        return Corpus(plan.out) if (plan.out / MANIFEST).exists() else None
    if plan.out.is_file() or plan.out.list_files():
        raise ConfigError(f"{plan.out} exists and is not empty; choose another --out, or remove it first")
    note.write_bytes(json.dumps({"plan": plan.digest}).encode() + b"\n")
    return None


def _finished_parts(plan: _Plan, count: int) -> dict[int, dict[str, Any]]:
    """Notes of the shards that an earlier call built, where the shard itself is still whole."""
    names = set(plan.out.list_files())
    wanted = [n for n in range(count) if {_note(n), f"shards/{_shard(n)}"} <= names or _note(n) in names]
    with ThreadPoolExecutor(16) as pool:
        notes = pool.map(lambda n: json.loads((plan.out / _note(n)).read_bytes()), wanted)
        return {note["shard"]: note for note in notes if _is_whole(note, names)}


def _is_whole(note: Mapping[str, Any], names: set[str]) -> bool:
    return note["rows"] == 0 or f"shards/{note['name']}" in names


def _build_shards(
    plan: _Plan, chunks: Sequence[Sequence[tuple[str, Listing]]], missing: Sequence[int]
) -> Iterable[dict[str, Any]]:
    """Build the missing shards with Ray Data, giving each one's note as it is finished."""
    if not missing:
        return
    with ray_session(num_cpus=max(2, os.cpu_count() or 2)), user_errors():
        plan_ref = ray.put(plan)
        chunk_refs = {number: ray.put(chunks[number]) for number in missing}

        def build(batch: dict[str, Any]) -> dict[str, list[str]]:
            work = ray.get(plan_ref)
            return {"note": [json.dumps(_build_shard(work, int(n), ray.get(chunk_refs[int(n)]))) for n in batch["shard"]]}

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        shards = ray.data.from_items([{"shard": n} for n in missing], override_num_blocks=len(missing))
        for row in shards.map_batches(build, batch_size=1).iter_rows():
            yield json.loads(row["note"])


def _build_shard(plan: _Plan, number: int, listings: Sequence[tuple[str, Listing]]) -> dict[str, Any]:
    """Read, convert and write one shard; returns (and stores) its note."""
    rows: list[dict[str, Any]] = []
    refused: list[dict[str, str]] = []
    for name, listing in listings:
        try:
            rows.extend(_rows(plan, name, listing))
        except RecordRefused as refusal:
            refused.append(
                {"source": name, "record_id": listing.record_id, "reason": refusal.reason, "detail": refusal.detail}
            )
    note: dict[str, Any] = {"shard": number, "name": _shard(number), "rows": len(rows), "refused": refused}
    packed = {(row["source"], row["record_id"]) for row in rows}
    note["packed"] = dict(Counter(source for source, _ in packed))
    if rows:
        content = shard_bytes(table(rows, shard_schema(plan.preprocessing.pack.num_samples)))
        (plan.out / "shards" / _shard(number)).write_bytes(content)
        note["bytes"] = len(content)
        note["sha256"] = hashlib.sha256(content).hexdigest()
        note["row_groups"] = [min(ROWS_PER_GROUP, len(rows) - i) for i in range(0, len(rows), ROWS_PER_GROUP)]
        for position, row in enumerate(rows):
            row["row_group"], row["row"] = divmod(position, ROWS_PER_GROUP)
            row["shard"] = number
        (plan.out / _part(number)).write_bytes(plain_bytes(table(rows, INDEX)))
    (plan.out / _note(number)).write_bytes(json.dumps(note).encode())
    return note


def _rows(plan: _Plan, source: str, listing: Listing) -> list[dict[str, Any]]:
    """The rows of one record.

    Raises:
        RecordRefused: if the listing, the source or the conversion refuses it.
    """
    if listing.refusal is not None:
        raise RecordRefused(*listing.refusal)
    reader = plan.sources[source]
    recording = reader.read_record(listing)
    # Two folders of one kind share their patients' ids, but records without one are told apart by folder.
    owner = reader.kind if recording.patient_id is not None else source
    return [
        {
            "signal": segment.signal_uv.astype("<i2").tobytes(),
            "record_id": recording.record_id,
            "source": source,
            "patient_key": plan.hasher.patient_key(owner, recording.patient_id, recording.record_id),
            "segment": segment.segment,
            "lead_mask": mask_to_bits(segment.lead_mask),
            "valid_samples": segment.valid_samples,
            "age": recording.age,
            "sex": recording.sex,
            "labels": list(recording.labels),
            "split": recording.split,
            "quality": list(segment.quality),
        }
        for segment in plan.preprocessing.pack_recording(recording)
    ]


def _stop_if_too_many(parts: Iterable[Mapping[str, Any]], limit: int, listed: int) -> None:
    refused = [item for part in parts for item in part["refused"]]
    if len(refused) <= limit:
        return
    reasons = ", ".join(f"{reason} {count}" for reason, count in Counter(r["reason"] for r in refused).most_common())
    first = "; ".join(f"{r['source']}/{r['record_id']}: {r['reason']}: {r['detail']}" for r in refused[:5])
    raise DataError(
        f"{len(refused)} of {listed} records are refused, more than max_refused_share allows ({limit}): {reasons}. "
        f"The first: {first}. Mend the files, or set max_refused_share higher to pack without them"
    )


def _finish(plan: _Plan, parts: Sequence[Mapping[str, Any]], listed: Mapping[str, int]) -> None:
    """Write the index, the refusals and, last, the manifest."""
    filled = [part for part in parts if part["rows"]]
    if not filled:
        raise DataError("every listed record was refused; nothing to pack")
    with ThreadPoolExecutor(16) as pool:
        contents = list(pool.map(lambda part: (plan.out / _part(part["shard"])).read_bytes(), filled))
    # Shards without a row have no file, so the index counts only those that the manifest lists.
    tables = []
    for place, content in enumerate(contents):
        rows = pq.read_table(io.BytesIO(content)).cast(INDEX)
        tables.append(rows.set_column(0, INDEX.field("shard"), pa.array([place] * rows.num_rows, pa.int32())))
    refused = [item for part in parts for item in part["refused"]]
    index_content = plain_bytes(pa.concat_tables(tables).combine_chunks())
    refused_content = plain_bytes(table(refused, REFUSED))
    (plan.out / INDEX_FILE).write_bytes(index_content)
    (plan.out / REFUSED_FILE).write_bytes(refused_content)
    packed: Counter[str] = Counter()
    for part in parts:
        packed.update(part["packed"])
    refused_by_source = Counter(item["source"] for item in refused)
    for name, count in listed.items():
        if packed[name] + refused_by_source[name] != count:
            raise DataError(f"source {name}: {count} records listed, but {packed[name]} packed and {refused_by_source[name]} refused")
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        pack=plan.preprocessing.pack,
        leads=STANDARD_LEADS,
        unit="uV",
        patient_key_fingerprint=plan.hasher.fingerprint,
        sources={
            name: SourceFacts(
                kind=source.kind,
                licence=source.licence,
                citation=source.citation,
                listed=listed.get(name, 0),
                packed=packed[name],
                refused=refused_by_source[name],
            )
            for name, source in plan.sources.items()
        },
        refused=dict(sorted(Counter(item["reason"] for item in refused).items())),
        rows=sum(part["rows"] for part in parts),
        shards=tuple(ShardFacts(**{key: part[key] for key in ShardFacts.model_fields}) for part in filled),
        index_sha256=hashlib.sha256(index_content).hexdigest(),
        refused_sha256=hashlib.sha256(refused_content).hexdigest(),
    ).identified()
    (plan.out / MANIFEST).write_bytes(manifest.to_bytes())
    (plan.out / "parts").delete()


def _shard(number: int) -> str:
    return f"{number:05d}.parquet"


def _part(number: int) -> str:
    return f"parts/{number:05d}.parquet"


def _note(number: int) -> str:
    return f"parts/{number:05d}.json"
