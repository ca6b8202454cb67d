"""The counts of a corpus are those of its index, counted here row by row."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecgdist.corpus import Corpus
from ecgdist.corpus.summary import headline, summarise, tables
from ecgdist.record import STANDARD_LEADS, bits_to_mask
from tests.packing.folders import DATA, georgia_folder, pack_to, ptbxl_folder

pytestmark = pytest.mark.ray


@pytest.fixture
def mixed(ray_cluster: None, tmp_path: Path) -> Corpus:
    """PTB-XL, WFDB files of several kinds in short segments, and three records that are refused."""
    ptbxl = ptbxl_folder(tmp_path / "ptb-xl", 30)
    for header in sorted(ptbxl.rglob("*.hea"))[:2]:
        header.with_suffix(".dat").unlink()
    wfdb = georgia_folder(tmp_path / "wfdb", "a", "b")
    (wfdb / "b.mat").unlink()
    sources = (f"ptbxl={ptbxl}", f"wfdb={wfdb}", f"wfdb:mitdb={DATA / 'wfdb/mitdb'}")
    pack = {"rate_hz": 100.0, "duration_s": 4.0, "min_duration_s": 1.0}
    return pack_to(tmp_path / "corpus", *sources, pack=pack, max_refused_share=0.5).corpus


def nested(pairs: list[tuple[str, str]]) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for one, two in pairs:
        found[one][two] += 1
    return dict(found)


def decade(age: float | None) -> str:
    if age is None:
        return "unknown"
    first = int(age // 10) * 10
    return f"{first} to {first + 9}" if first < 100 else "100 or more"


def test_every_count_is_that_of_a_loop_over_the_rows(mixed: Corpus) -> None:
    summary = summarise(mixed)
    rows: list[dict[str, Any]] = mixed.index.to_pylist()
    records = [row for row in rows if row["segment"] == 0]
    assert (summary.rows, summary.records) == (len(rows), len(records))
    assert summary.patients == len({row["patient_key"] for row in rows})
    for name, facts in mixed.manifest.sources.items():
        mine = [row for row in rows if row["source"] == name]
        assert summary.by_source[name] == {
            "listed": facts.listed,
            "packed": facts.packed,
            "refused": facts.refused,
            "excluded": 0,
            "rows": len(mine),
            "patients": len({row["patient_key"] for row in mine}),
        }
    labels = [(row["source"], label) for row in rows for label in row["labels"]]
    assert summary.labels_by_source == nested(labels)
    assert summary.by_label == Counter(label for _, label in labels)
    assert list(summary.by_label.values()) == sorted(summary.by_label.values(), reverse=True)
    flags = [(row["source"], flag) for row in rows for flag in row["quality"]]
    assert "tail_dropped" in summary.by_quality or not flags
    assert summary.quality_by_source == nested(flags)
    assert summary.by_quality == Counter(flag for _, flag in flags)
    assert summary.by_split == Counter(row["split"] or "none" for row in rows)
    masks = np.array([bits_to_mask(row["lead_mask"]) for row in rows])
    assert summary.by_lead == dict(zip(STANDARD_LEADS, masks.sum(axis=0).tolist(), strict=True))
    sexes = [(row["sex"] or "unknown", decade(row["age"])) for row in rows]
    assert summary.age_by_sex == nested(sexes)
    assert summary.by_sex == Counter(sex for sex, _ in sexes)
    rates = [(row["source"], f"{row['source_rate_hz']:g}") for row in rows]
    assert summary.rate_hz_by_source == nested(rates)
    lengths = [(row["source"], f"{round(row['source_samples'] / row['source_rate_hz'])}") for row in records]
    assert summary.length_s_by_source == nested(lengths)
    assert sum(summary.records_per_patient.values()) == summary.patients
    assert summary.refused_by_source == {"ptbxl": {"missing_signal": 2}, "wfdb": {"missing_signal": 1}}
    assert summary.refused == {"missing_signal": 3}


def test_the_shipped_ecgs(sample_corpus: Corpus) -> None:
    summary = summarise(sample_corpus)
    assert (summary.rows, summary.records, summary.shards, summary.patients) == (353, 353, 15, 339)
    assert summary.records_per_patient == {"1": 325, "2": 14}
    assert list(summary.by_split) == [f"fold{number}" for number in range(1, 9)]
    assert headline(summary).startswith(
        f"corpus {summary.corpus_id}: 353 rows of 353 records, 339 patients; 10 s"
    )


def test_every_count_has_a_table(sample_corpus: Corpus) -> None:
    titles = [table.title for table in tables(summarise(sample_corpus))]
    assert titles == [
        "records by source", "refused records by reason", "rows by label", "rows by split", "rows by lead",
        "rows by quality flag", "rows by sex",
    ]  # fmt: skip
