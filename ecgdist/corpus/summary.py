"""What a corpus holds, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from rich.table import Table

from ecgdist.config import Config
from ecgdist.corpus.corpus import Corpus
from ecgdist.record import STANDARD_LEADS, bits_to_mask


class Summary(Config):
    """Counts of a corpus. A *record* is one recording of a source; a *row* is one segment of it."""

    corpus_id: str
    rate_hz: float
    duration_s: float
    records: int
    rows: int
    patients: int
    shards: int
    megabytes: float
    """Size of the shards, in 10^6 bytes."""
    by_source: dict[str, dict[str, int]]
    """Records listed, packed and refused, by source."""
    licences: dict[str, str]
    by_label: dict[str, int]
    """Rows that carry each label, most frequent first; a row may carry several."""
    by_split: dict[str, int]
    """Rows by the split that their source assigns; "none" for rows without one."""
    by_lead: dict[str, int]
    """Rows in which each lead is present."""
    by_quality: dict[str, int]
    """Rows with each quality flag."""
    by_sex: dict[str, int]
    refused: dict[str, int]
    """Refused records by reason; ``refused.parquet`` names each."""


def summarise(corpus: Corpus) -> Summary:
    """Count what a corpus holds."""
    manifest, index = corpus.manifest, corpus.index
    present = bits_to_mask(index["lead_mask"].to_numpy()).sum(axis=0)
    records = {
        (s, r) for s, r in zip(index["source"].to_pylist(), index["record_id"].to_pylist(), strict=True)
    }
    return Summary(
        corpus_id=corpus.corpus_id,
        rate_hz=manifest.pack.rate_hz,
        duration_s=manifest.pack.duration_s,
        records=len(records),
        rows=manifest.rows,
        patients=len(set(index["patient_key"].to_pylist())),
        shards=len(manifest.shards),
        megabytes=round(sum(shard.bytes for shard in manifest.shards) / 1e6, 3),
        by_source={
            name: {"listed": facts.listed, "packed": facts.packed, "refused": facts.refused}
            for name, facts in manifest.sources.items()
        },
        licences={name: facts.licence for name, facts in manifest.sources.items()},
        by_label=_counts(label for labels in index["labels"].to_pylist() for label in labels),
        by_split=_by_name(Counter(split or "none" for split in index["split"].to_pylist())),
        by_lead={lead: int(count) for lead, count in zip(STANDARD_LEADS, present, strict=True)},
        by_quality=_counts(flag for flags in index["quality"].to_pylist() for flag in flags),
        by_sex=_by_name(Counter(sex or "unknown" for sex in index["sex"].to_pylist())),
        refused=manifest.refused,
    )


def headline(summary: Summary) -> str:
    """The corpus in one line."""
    return (
        f"corpus {summary.corpus_id}: {summary.rows:,} rows of {summary.records:,} records, "
        f"{summary.patients:,} patients; {summary.duration_s:g} s at {summary.rate_hz:g} Hz; "
        f"{summary.shards} shards, {summary.megabytes:,.1f} MB"
    )


def tables(summary: Summary) -> list[Table]:
    """The summary as tables for the console."""
    by_source = Table(title="records by source")
    for column in ("source", "listed", "packed", "refused", "licence"):
        by_source.add_column(column, justify="left" if column in ("source", "licence") else "right")
    for name, counts in summary.by_source.items():
        numbers = (f"{counts[key]:,}" for key in ("listed", "packed", "refused"))
        by_source.add_row(name, *numbers, summary.licences[name])
    counted = {
        "refused records by reason": summary.refused,
        "rows by label": summary.by_label,
        "rows by split": summary.by_split,
        "rows by lead": summary.by_lead,
        "rows by quality flag": summary.by_quality,
        "rows by sex": summary.by_sex,
    }
    return [by_source, *(_table(title, counts) for title, counts in counted.items())]


def _table(title: str, counts: dict[str, int]) -> Table:
    table = Table(title=title, show_header=False, min_width=30)
    for name, count in counts.items() or [("none", 0)]:
        table.add_row(name, f"{count:,}")
    table.columns[1].justify = "right"
    return table


def _counts(names: Iterable[str]) -> dict[str, int]:
    counted = Counter(names)
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def _by_name(counted: Counter[str]) -> dict[str, int]:
    def natural(name: str) -> tuple[str, int]:
        digits = "".join(c for c in name if c.isdigit())
        return name.rstrip("0123456789"), int(digits or 0)

    return {name: counted[name] for name in sorted(counted, key=natural)}
