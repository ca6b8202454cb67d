"""No patient and no waveform is ever in two splits, whatever links them; the same table gives the same split."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from ecgdist.config import build
from ecgdist.corpus.candidates import Pairs
from ecgdist.corpus.splits import (
    NO_SPLIT,
    SPLITS,
    Assignment,
    SeededSplit,
    digest,
    groups_of,
    official_split,
    seeded_split,
)
from ecgdist.errors import ConfigError, DataError

OF_FOLD = {"a": "train", "b": "train", "c": "validation", "d": "test"}


def key(patient: int) -> str:
    return hashlib.sha256(str(patient).encode()).hexdigest()[:32]


def strings(values: list[str | None]) -> pa.ChunkedArray:
    """A column in two chunks, as a Parquet file gives it."""
    half = len(values) // 2
    return pa.chunked_array([pa.array(values[:half], pa.string()), pa.array(values[half:], pa.string())])


class Table:
    """Random rows of patients in folds, with planted links: patients in two folds, one waveform under two patients."""

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.rows = int(random.integers(1, 60))
        self.patient = random.integers(0, random.integers(1, 40), self.rows)
        links = int(random.integers(0, self.rows))
        self.links = Pairs(*random.integers(0, self.rows, (2, links)))
        self.fold = random.choice(["a", "b", "c", "d", "e"], self.rows).tolist()
        self.keys = strings([key(p) for p in self.patient])
        self.groups = groups_of(self.keys, self.links)
        self.names = strings([f"x/{n}" for n in range(self.rows)])

    def check(self, assignment: Assignment) -> None:
        """By sets, with nothing of the code under test: each patient, and each link, is in at most one split."""
        split = assignment.split
        of_patient: dict[int, set[int]] = {}
        for patient, place in zip(self.patient.tolist(), split.tolist(), strict=True):
            if place != NO_SPLIT:
                of_patient.setdefault(patient, set()).add(place)
        assert all(len(places) == 1 for places in of_patient.values())
        for one, other in zip(self.links.first, self.links.second, strict=True):
            assert len({int(split[one]), int(split[other])} - {NO_SPLIT}) <= 1


@pytest.mark.parametrize("block", range(10))
def test_a_thousand_tables_with_planted_links(block: int) -> None:
    for seed in range(block * 100, block * 100 + 100):
        table = Table(seed)
        table.check(seeded_split(table.keys, table.groups, SeededSplit(train=0.6, validation=0.2, seed=seed)))
        official = official_split(strings(table.fold), OF_FOLD, table.groups, table.names, "drop")
        table.check(official)
        wanted = [SPLITS.index(OF_FOLD[f]) if f in OF_FOLD else NO_SPLIT for f in table.fold]
        kept = ~official.dropped
        assert official.split[kept].tolist() == np.array(wanted)[kept].tolist()
        assert (official.split[official.dropped] == NO_SPLIT).all()
        # Nothing is dropped without need, and no test row ever.
        for row in np.flatnonzero(official.dropped):
            mates = np.flatnonzero(table.groups == table.groups[row])
            assert max(wanted[m] for m in mates) > wanted[row]


def test_groups_are_chains_of_patients_and_waveforms() -> None:
    keys = strings(["p", "q", "p", "r", "q", "s"])
    groups = groups_of(keys, Pairs(np.array([2]), np.array([3])))
    assert groups[0] == groups[2] == groups[3]
    assert groups[1] == groups[4]
    assert len(set(groups.tolist())) == 3


def test_official_folds_that_share_somebody_are_refused_with_their_names() -> None:
    folds = strings(["a", "d", "c", "b"])
    names = strings(["ptbxl/145", "ptbxl/463", "ptbxl/7", "ptbxl/8"])
    groups = np.array([0, 0, 1, 2])
    with pytest.raises(DataError) as caught:
        official_split(folds, OF_FOLD, groups, names)
    assert "1 patients or waveforms are in more than one split" in str(caught.value)
    assert "ptbxl/145 (train), ptbxl/463 (test)." in str(caught.value)
    assert "on_conflict=drop" in str(caught.value)
    found = official_split(folds, OF_FOLD, groups, names, "drop")
    assert found.split.tolist() == [NO_SPLIT, 2, 1, 0]
    assert found.dropped.tolist() == [True, False, False, False]


def test_many_conflicts_are_counted_and_ten_of_them_named() -> None:
    groups = np.repeat(np.arange(50), 2)
    names = strings([f"x/{n}" for n in range(100)])
    with pytest.raises(DataError, match=r"50 patients or waveforms .* and 40 more"):
        official_split(strings(["a", "d"] * 50), OF_FOLD, groups, names)


def test_shares_are_kept() -> None:
    patient = np.random.default_rng(0).integers(0, 2000, 10_000)
    keys = strings([key(p) for p in patient])
    groups = groups_of(keys, Pairs(np.zeros(0, int), np.zeros(0, int)))
    found = seeded_split(keys, groups, SeededSplit(train=0.7, validation=0.1))
    shares = np.bincount(found.split) / len(groups)
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.002)


def test_a_seeded_split_depends_on_seed_and_patients_and_not_on_the_order_of_rows() -> None:
    keys = strings([key(n // 3) for n in range(90)])
    groups = groups_of(keys, Pairs(np.array([0]), np.array([50])))
    settings = SeededSplit(train=0.5, validation=0.25)
    found = seeded_split(keys, groups, settings).split
    order = np.random.default_rng(1).permutation(90)
    again = seeded_split(strings([keys[int(r)].as_py() for r in order]), groups[order], settings).split
    assert again.tolist() == found[order].tolist()
    others = {tuple(seeded_split(keys, groups, SeededSplit(seed=s)).split.tolist()) for s in range(5)}
    assert len(others) == 5


def test_the_digest_is_that_of_the_sorted_lines() -> None:
    source, record = strings(["x", "y", "x"]), strings(["2", "1", "1"])
    segment = pa.chunked_array([pa.array([0, 3, 0], pa.int32())])
    split = np.array([2, 0, NO_SPLIT])
    expected = hashlib.sha256(b"x\t2\t0\ttest\ny\t1\t3\ttrain\n").hexdigest()
    assert digest(split, source, record, segment) == expected
    order = [2, 1, 0]
    assert digest(split[order], source.take(order), record.take(order), segment.take(order)) == expected
    assert digest(np.array([2, 1, NO_SPLIT]), source, record, segment) != expected


def test_shares_that_leave_no_test_split_are_refused() -> None:
    with pytest.raises(ConfigError, match="leave nothing to test on"):
        build(SeededSplit, {"train": 0.9, "validation": 0.1})
