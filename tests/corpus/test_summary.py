"""The counts of a corpus are those of its index."""

from __future__ import annotations

import pytest

from ecgdist.corpus import Corpus
from ecgdist.corpus.summary import summarise, tables
from ecgdist.record import STANDARD_LEADS

pytestmark = pytest.mark.ray


def test_counts(sample_corpus: Corpus) -> None:
    summary = summarise(sample_corpus)
    facts = sample_corpus.index.to_pylist()
    assert (summary.rows, summary.records, summary.shards) == (353, 353, 15)
    assert summary.patients == len({fact["patient_key"] for fact in facts})
    assert summary.by_source == {"ptbxl": {"listed": 353, "packed": 353, "refused": 0}}
    assert summary.by_lead == dict.fromkeys(STANDARD_LEADS, 353)
    assert list(summary.by_split) == [f"fold{number}" for number in range(1, 9)]
    assert summary.by_split["fold3"] == sum(fact["split"] == "fold3" for fact in facts)
    assert summary.by_label["scp:NORM"] == sum("scp:NORM" in fact["labels"] for fact in facts)
    assert list(summary.by_label.values()) == sorted(summary.by_label.values(), reverse=True)
    assert sum(summary.by_sex.values()) == 353


def test_every_count_has_a_table(sample_corpus: Corpus) -> None:
    titles = [table.title for table in tables(summarise(sample_corpus))]
    assert titles == [
        "records by source", "refused records by reason", "rows by label", "rows by split", "rows by lead",
        "rows by quality flag", "rows by sex",
    ]  # fmt: skip
