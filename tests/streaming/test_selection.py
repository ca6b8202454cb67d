"""A run trains on the rows that are in none of the excluded splits, and says how many it left out."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from ecgdist.corpus import Corpus
from ecgdist.errors import ConfigError
from ecgdist.streaming.selection import select_rows
from tests.streaming.streams import Stream

pytestmark = pytest.mark.ray


def splits(corpus: Corpus) -> list[str]:
    return list(corpus.index["split"].to_pylist())


def test_everything_is_selected_by_default(sample_corpus: Corpus) -> None:
    selection, mask = select_rows(sample_corpus)
    assert mask.all()
    assert selection.left_out == {}
    np.testing.assert_array_equal(selection.group_rows, sample_corpus.group_rows)


def test_excluded_splits_are_left_out_and_counted(sample_corpus: Corpus) -> None:
    selection, mask = select_rows(sample_corpus, ("fold2", "fold7", "fold9"))
    counts = Counter(splits(sample_corpus))
    assert selection.left_out == {"fold2": counts["fold2"], "fold7": counts["fold7"]}
    assert mask.tolist() == [split not in ("fold2", "fold7") for split in splits(sample_corpus)]
    assert selection.group_rows.sum() == mask.sum() == 353 - sum(selection.left_out.values())
    assert selection.linked == 0


@pytest.mark.parametrize(("excluded", "copy"), [("fold1", "145"), ("fold3", "463")])
def test_a_copy_in_another_fold_is_left_out_too(sample_corpus: Corpus, excluded: str, copy: str) -> None:
    """PTB-XL has one signal as ECG 145, fold 3, and as ECG 463 of another patient, fold 1."""
    selection, mask = select_rows(sample_corpus, (excluded,))
    facts = sample_corpus.columns("record_id", "patient_key", "split").to_pandas()
    patient = facts["patient_key"][facts["record_id"] == copy].item()
    linked = (facts["split"] != excluded) & (facts["patient_key"] == patient)
    assert mask.tolist() == (~linked & (facts["split"] != excluded)).tolist()
    assert selection.linked == linked.sum() >= 1
    assert selection.left_out == {excluded: (facts["split"] == excluded).sum()}
    selection, mask = select_rows(sample_corpus, (excluded,), exclude_linked=False)
    assert (selection.linked, mask.tolist()) == (0, (facts["split"] != excluded).tolist())


def test_places_lead_to_the_selected_rows_of_a_group(sample_corpus: Corpus) -> None:
    selection, mask = select_rows(sample_corpus, ("fold1", "fold2", "fold3", "fold4"))
    groups = sample_corpus.groups_of_rows
    for group, count in enumerate(selection.group_rows):
        offsets = selection.row_offsets(group, np.arange(count))
        expected = sample_corpus.index["row"].to_numpy()[(groups == group) & mask]
        np.testing.assert_array_equal(offsets, expected)


def test_an_epoch_never_touches_an_excluded_split(sample_corpus: Corpus) -> None:
    stream = Stream.of(sample_corpus, exclude_splits=("fold2", "fold8"))
    seen: Counter[str] = Counter()
    for step in range(stream.order.steps_per_epoch):
        rows = stream.index_rows(*stream.order.rows(step))
        seen.update(np.array(splits(sample_corpus))[rows].tolist())
    assert set(seen) == {"fold1", "fold3", "fold4", "fold5", "fold6", "fold7"}
    assert seen.total() == stream.order.steps_per_epoch * 24


def test_excluding_everything_is_refused(sample_corpus: Corpus) -> None:
    everything = {f"fold{number}" for number in range(1, 9)}
    with pytest.raises(ConfigError, match=r"exclude_splits = \['fold1', .*leaves no row of"):
        select_rows(sample_corpus, everything)
