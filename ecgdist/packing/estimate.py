"""What a packing will take: a random sample of every source is read and packed, and the rest reckoned."""

from __future__ import annotations

import os
import platform
import random
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.table import Table
from scipy.stats import binomtest

from ecgdist.config import Config
from ecgdist.corpus.patients import PatientHasher
from ecgdist.errors import DataError
from ecgdist.packing.config import PackConfig
from ecgdist.packing.listings import Exclusion
from ecgdist.packing.notes import part_name
from ecgdist.packing.plan import list_source, open_sources
from ecgdist.packing.privacy import is_private
from ecgdist.packing.shards import Work, build_shard, read_all
from ecgdist.sources import Listing
from ecgdist.storage import Location

_SIDES = ("", ".hea", ".dat", ".mat")
"""What may follow a listing's key in the names of its files."""
_CONFIDENCE = 0.95


class SourceEstimate(Config):
    """One source, reckoned from a sample. Counts are of records."""

    listed: int
    excluded: int
    sampled: int
    listing_s: float
    """Seconds that listing took here."""
    seconds_per_record: float
    """To read and pack one record on one core."""
    refused: float
    """Expected refusals, those that the listing shows and those that the sample lets expect."""
    refused_low: float
    refused_high: float
    """The 95 % interval of `refused` (Clopper and Pearson 1934)."""
    refused_by_reason: dict[str, float]
    rows: float
    raw_bytes: float
    """Of the files that will be read."""
    corpus_bytes: float


class PackEstimate(Config):
    """What a packing will take: an estimate, not a promise."""

    sources: dict[str, SourceEstimate]
    records: int
    """Records to pack or to refuse."""
    rows: float
    raw_bytes: float
    corpus_bytes: float
    refused: float
    refused_low: float
    refused_high: float
    max_refused_share: float
    ecg_per_s_per_core: float
    workers: int
    """Cores that the hours are for."""
    hours: float
    hours_by_workers: dict[int, float]
    peak_mb: float
    """Memory of this process, which listed all sources and packed the sample; no worker needs more."""
    measured_on: str


@dataclass(frozen=True)
class _Sample:
    """What became of the sampled records of one source."""

    seconds: float
    refused: Counter[str]
    rows: int
    corpus_bytes: int


def estimate_packing(
    config: PackConfig, workers: int | None = None, sample: int = 64, seed: int = 0
) -> PackEstimate:
    """Reckon what packing `config` will take on `workers` cores (default: those of this machine).

    Nothing is written. Time is that of one process here; storage that many workers share may be slower.

    Args:
        config: what to pack.
        workers: cores.
        sample: records of each source that are read.
        seed: of the choice of records.

    Raises:
        ConfigError, DataError, StorageError: as packing itself.
    """
    workers = workers or os.cpu_count() or 1
    hasher = PatientHasher.from_environment()
    sources = open_sources(config.sources, config.follow_links)
    private = is_private(config.private, hasher)
    work = Work(Location.of(config.out), config.pack, hasher, sources, private, config.relative_dates)
    exclusion = Exclusion(config.exclude)
    each = {name: _source(work, name, exclusion, sample, seed) for name in sources}
    exclusion.refuse_unused()
    records = sum(source.listed - source.excluded for source in each.values())
    if not records:
        raise DataError(
            f"no ECG to pack in {', '.join(config.sources)}; check the kind of source and the folder"
        )
    work_s = sum(s.seconds_per_record * (s.listed - s.excluded) for s in each.values())
    listing_s = sum(source.listing_s for source in each.values())

    def hours(cores: int) -> float:
        return (listing_s + work_s / cores) / 3600

    return PackEstimate(
        sources=each,
        records=records,
        rows=sum(source.rows for source in each.values()),
        raw_bytes=sum(source.raw_bytes for source in each.values()),
        corpus_bytes=sum(source.corpus_bytes for source in each.values()),
        refused=sum(source.refused for source in each.values()),
        refused_low=sum(source.refused_low for source in each.values()),
        refused_high=sum(source.refused_high for source in each.values()),
        max_refused_share=config.max_refused_share,
        ecg_per_s_per_core=records / work_s if work_s else 0.0,
        workers=workers,
        hours=hours(workers),
        hours_by_workers={cores: hours(cores) for cores in sorted({1, 8, 32, 128, workers})},
        peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        measured_on=f"one core of {os.cpu_count()}, {platform.machine()}, {sample} records a source",
    )


def _source(work: Work, name: str, exclusion: Exclusion, size: int, seed: int) -> SourceEstimate:
    begin = time.perf_counter()
    listed = list_source(work, name)
    listing_s = time.perf_counter() - begin
    kept = [listing for listing in listed if f"{name}/{listing.record_id}" not in exclusion]
    readable = [number for number, listing in enumerate(kept) if listing.refusal is None]
    chosen = sorted(random.Random(seed).sample(readable, min(size, len(readable))))
    sampled = [kept[number] for number in chosen]
    packed = _pack(work, name, sampled)
    known = Counter(listing.refusal[0] for listing in kept if listing.refusal is not None)
    each = len(readable) / max(1, len(sampled))
    refused_here = packed.refused.total()
    low, high = _interval(refused_here, len(sampled))
    return SourceEstimate(
        listed=len(listed),
        excluded=len(listed) - len(kept),
        sampled=len(sampled),
        listing_s=listing_s,
        seconds_per_record=packed.seconds / max(1, len(sampled)) * len(readable) / max(1, len(kept)),
        refused=known.total() + refused_here * each,
        refused_low=known.total() + low * len(readable),
        refused_high=known.total() + high * len(readable),
        refused_by_reason={
            reason: known[reason] + packed.refused[reason] * each
            for reason in sorted({*known, *packed.refused})
        },
        rows=packed.rows * each,
        raw_bytes=_raw_bytes(work, name, kept, sampled) * each,
        corpus_bytes=packed.corpus_bytes * each,
    )


def _pack(work: Work, name: str, sampled: Sequence[Listing]) -> _Sample:
    """Build a shard of some records in a folder that is thrown away."""
    listings = [(name, listing) for listing in sampled]
    for _ in read_all(work, listings[:1]):
        pass  # what only the first record of a process waits for
    with tempfile.TemporaryDirectory(prefix="ecgdist-") as folder:
        begin = time.perf_counter()
        note = build_shard(replace(work, out=Location.of(folder)), 0, listings)
        seconds = time.perf_counter() - begin
        corpus_bytes = note.facts.bytes + os.path.getsize(f"{folder}/{part_name(0)}") if note.facts else 0
    rows = note.facts.rows if note.facts else 0
    return _Sample(seconds, Counter(note.refused.get(name, {})), rows, corpus_bytes)


def _interval(refused: int, sampled: int) -> tuple[float, float]:
    """The share of refusals, from the least to the most that fits the sample."""
    if not sampled:
        return 0.0, 0.0
    low, high = binomtest(refused, sampled).proportion_ci(_CONFIDENCE)
    return float(low), float(high)


def _raw_bytes(work: Work, name: str, kept: Sequence[Listing], sampled: Sequence[Listing]) -> float:
    """Bytes of the files of the sampled records; a file of many records is shared among them."""
    in_file = Counter(listing.key for listing in kept)
    total = 0.0
    for listing in sampled:
        with work.hiding_names(name, listing):
            total += _bytes_of(work.sources[name].root / listing.key) / in_file[listing.key]
    return total


def _bytes_of(key: Location) -> int:
    """Bytes of a file, or of the files of a WFDB record."""
    total = 0
    for place in (Location(f"{key.uri}{side}") for side in _SIDES):
        if place.is_file():
            with place.open() as file:
                total += file.seek(0, os.SEEK_END)
    return total


def sentences(estimate: PackEstimate) -> list[str]:
    """The estimate in words."""
    limit = estimate.max_refused_share * estimate.records
    stop = f"packing stops beyond max_refused_share = {estimate.max_refused_share:g}, {limit:,.0f} records"
    warnings = []
    if estimate.refused > limit:
        warnings.append(f"{stop}: look at the reasons before you start")
    elif estimate.refused_high > limit:
        warnings.append(f"{stop}, which so small a sample cannot rule out")
    return [
        f"an estimate, from {estimate.measured_on}:",
        f"{estimate.records:,} ECGs, {estimate.ecg_per_s_per_core:,.0f} a second and core: "
        f"{_duration(estimate.hours)} on {estimate.workers} cores",
        f"{estimate.raw_bytes / 1e9:,.2f} GB to read, {estimate.corpus_bytes / 1e9:,.2f} GB to write "
        f"in {estimate.rows:,.0f} rows; at most {estimate.peak_mb:,.0f} MB of memory a process",
        f"{estimate.refused:,.0f} refused ({estimate.refused_low:,.0f} to {estimate.refused_high:,.0f}, 95 %)",
        *warnings,
    ]


def _duration(hours: float) -> str:
    if hours >= 2:
        return f"{hours:,.1f} hours"
    return f"{hours * 60:.0f} minutes" if hours * 60 >= 2 else f"{hours * 3600:.0f} s"


def tables(estimate: PackEstimate) -> list[Table]:
    """The estimate by source and by number of workers, for the console."""
    by_source = Table(title="estimate by source")
    for column in (
        "source",
        "listed",
        "excluded",
        "sampled",
        "refused",
        "GB to read",
        "GB to write",
        "ms an ECG",
    ):
        by_source.add_column(column, justify="left" if column == "source" else "right")
    for name, source in estimate.sources.items():
        by_source.add_row(
            name,
            *(f"{count:,}" for count in (source.listed, source.excluded, source.sampled)),
            f"{source.refused:,.0f} ({source.refused_low:,.0f} to {source.refused_high:,.0f})",
            f"{source.raw_bytes / 1e9:,.3f}",
            f"{source.corpus_bytes / 1e9:,.3f}",
            f"{source.seconds_per_record * 1e3:.2f}",
        )
    by_workers = Table(title="time by cores")
    for cores in estimate.hours_by_workers:
        by_workers.add_column(f"{cores}", justify="right")
    by_workers.add_row(*(_duration(hours) for hours in estimate.hours_by_workers.values()))
    return [by_source, by_workers]
