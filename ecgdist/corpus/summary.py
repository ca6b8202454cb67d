"""What a corpus holds, counted."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from rich.table import Table

from ecgdist.config import Config
from ecgdist.corpus.corpus import Corpus
from ecgdist.corpus.counts import (
    Codes,
    Ints,
    binned,
    by_frequency,
    cross,
    encode,
    encode_ids,
    encode_lists,
    encode_numbers,
)
from ecgdist.record import NUM_LEADS, STANDARD_LEADS, bits_to_mask

Floats = npt.NDArray[np.float64]


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
    """Records listed, packed, refused and excluded, and rows and patients, by source."""
    licences: dict[str, str]
    by_label: dict[str, int]
    """Rows that carry each label, most frequent first; a row may carry several."""
    labels_by_source: dict[str, dict[str, int]]
    by_split: dict[str, int]
    """Rows by the split that their source assigns; "none" for rows without one."""
    by_lead: dict[str, int]
    """Rows in which each lead is present."""
    by_quality: dict[str, int]
    """Rows with each quality flag."""
    quality_by_source: dict[str, dict[str, int]]
    by_sex: dict[str, int]
    age_by_sex: dict[str, dict[str, int]]
    """Rows by sex and decade of age."""
    rate_hz_by_source: dict[str, dict[str, int]]
    """Rows by the sampling rate of their recording."""
    length_s_by_source: dict[str, dict[str, int]]
    """Records by the length of the recording."""
    records_per_patient: dict[str, int]
    """Patients by how many records they have."""
    refused: dict[str, int]
    """Refused records by reason; ``refused.parquet`` names each."""
    refused_by_source: dict[str, dict[str, int]]


def summarise(corpus: Corpus) -> Summary:
    """Count what a corpus holds. Reads the columns that it counts and no others."""
    manifest = corpus.manifest
    source = encode(corpus.columns("source")["source"], null="none")
    patient = encode_ids(corpus.columns("patient_key")["patient_key"])
    label, label_rows = encode_lists(corpus.columns("labels")["labels"])
    flag, flag_rows = encode_lists(corpus.columns("quality")["quality"])
    sex = encode(corpus.columns("sex")["sex"], null="unknown")
    is_record = corpus.columns("segment")["segment"].to_numpy() == 0
    rate_hz, length_s = source_rates_and_lengths(corpus)
    rows = source.counts()
    return Summary(
        corpus_id=corpus.corpus_id,
        rate_hz=manifest.pack.rate_hz,
        duration_s=manifest.pack.duration_s,
        records=int(is_record.sum()),
        rows=manifest.rows,
        patients=int(patient.max(initial=-1)) + 1,
        shards=len(manifest.shards),
        megabytes=round(sum(shard.bytes for shard in manifest.shards) / 1e6, 3),
        by_source={
            name: {
                "listed": facts.listed,
                "packed": facts.packed,
                "refused": facts.refused,
                "excluded": facts.excluded,
                "rows": rows.get(name, 0),
                "patients": len(np.unique(patient[source.codes == source.names.index(name)]))
                if name in rows
                else 0,
            }
            for name, facts in manifest.sources.items()
        },
        licences={name: facts.licence for name, facts in manifest.sources.items()},
        by_label=by_frequency(label.counts()),
        labels_by_source=_sorted_each(cross(source.take(label_rows), label)),
        by_split=_by_name(encode(corpus.columns("split")["split"], null="none").counts()),
        by_lead=_rows_by_lead(corpus),
        by_quality=by_frequency(flag.counts()),
        quality_by_source=_sorted_each(cross(source.take(flag_rows), flag)),
        by_sex=_by_name(sex.counts()),
        age_by_sex=cross(sex, _decades(corpus)),
        rate_hz_by_source=cross(source, encode_numbers(rate_hz)),
        length_s_by_source=cross(source.take(is_record), encode_numbers(np.round(length_s[is_record]))),
        records_per_patient=_records_per_patient(patient[is_record]),
        refused=manifest.refused,
        refused_by_source=_refused_by_source(corpus),
    )


def source_rates_and_lengths(corpus: Corpus) -> tuple[Floats, Floats]:
    """``(rows,)`` sampling rate in Hz and ``(rows,)`` length in seconds of the recordings that rows are cut from."""
    columns = corpus.columns("source_rate_hz", "source_samples")
    rate_hz = columns["source_rate_hz"].to_numpy().astype(np.float64)
    return rate_hz, columns["source_samples"].to_numpy() / rate_hz


def _rows_by_lead(corpus: Corpus) -> dict[str, int]:
    # Few of the 4,096 masks occur: count masks, not rows times leads.
    masks = np.bincount(corpus.columns("lead_mask")["lead_mask"].to_numpy(), minlength=2**NUM_LEADS)
    present = bits_to_mask(np.arange(2**NUM_LEADS)).T @ masks
    return dict(zip(STANDARD_LEADS, present.tolist(), strict=True))


def _decades(corpus: Corpus) -> Codes:
    age = corpus.columns("age")["age"].to_numpy().astype(np.float64)
    names = (*(f"{first} to {first + 9}" for first in range(0, 100, 10)), "100 or more", "unknown")
    decade = np.where(np.isnan(age), len(names) - 1, np.clip(age // 10, 0, len(names) - 2))
    return Codes(names, decade.astype(np.int64))


def _records_per_patient(patient: Ints) -> dict[str, int]:
    """Patients by their number of records, in classes."""
    each = np.bincount(patient)
    edges = [1, 2, 3, 4, 6, 11, 21, 51]
    names = ("1", "2", "3", "4 to 5", "6 to 10", "11 to 20", "21 to 50", "more than 50")
    counts = Codes(names, binned(each[each > 0], edges)).counts()
    return {name: count for name, count in counts.items() if count}


def _refused_by_source(corpus: Corpus) -> dict[str, dict[str, int]]:
    refused = corpus.refused
    return _sorted_each(cross(encode(refused["source"], null="none"), encode(refused["reason"], null="none")))


def _sorted_each(counts: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    return {name: by_frequency(inner) for name, inner in counts.items()}


def headline(summary: Summary) -> str:
    """The corpus in one line."""
    return (
        f"corpus {summary.corpus_id}: {summary.rows:,} rows of {summary.records:,} records, "
        f"{summary.patients:,} patients; {summary.duration_s:g} s at {summary.rate_hz:g} Hz; "
        f"{summary.shards} {'shard' if summary.shards == 1 else 'shards'}, {summary.megabytes:,.1f} MB"
    )


def tables(summary: Summary) -> list[Table]:
    """The summary as tables for the console."""
    by_source = Table(title="records by source")
    columns = ("listed", "packed", "refused", "excluded", "patients")
    for column in ("source", *columns, "licence"):
        by_source.add_column(column, justify="right" if column in columns else "left")
    for name, counts in summary.by_source.items():
        numbers = (f"{counts[key]:,}" for key in columns)
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


def _by_name(counted: Mapping[str, int]) -> dict[str, int]:
    """Names in order, those that end in a number by that number."""

    def natural(name: str) -> tuple[str, int]:
        digits = "".join(c for c in name if c.isdigit())
        return name.rstrip("0123456789"), int(digits or 0)

    return {name: counted[name] for name in sorted(counted, key=natural)}
