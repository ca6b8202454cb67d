"""Near fingerprints are found without comparing all, and the same as by comparing all."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from ecgdist.corpus.candidates import Pairs, near_pairs, near_pairs_between
from ecgdist.corpus.duplicates import linked
from ecgdist.signals.fingerprint import FINGERPRINT_BYTES, SAME_BITS, differing_bits

BITS = 8 * FINGERPRINT_BYTES

Bytes = npt.NDArray[np.uint8]


def drawn(count: int, seed: int) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, (count, FINGERPRINT_BYTES), dtype=np.uint8)


def changed(prints: Bytes, bits: int, seed: int) -> Bytes:
    """Copies in which so many bits differ."""
    random = np.random.default_rng(seed)
    flips = np.zeros((len(prints), BITS), dtype=np.uint8)
    for flip in flips:
        flip[random.choice(BITS, bits, replace=False)] = 1
    return prints ^ np.packbits(flips, axis=1)


def all_pairs(prints: Bytes, others: Bytes, limit: int) -> set[tuple[int, int]]:
    return {
        (i, j)
        for i in range(len(prints))
        for j in np.flatnonzero(differing_bits(np.repeat(prints[[i]], len(others), axis=0), others) <= limit)
    }


def as_set(pairs: Pairs) -> set[tuple[int, int]]:
    return set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))


@pytest.mark.parametrize("bits", [0, 1, 8, 15])
def test_fewer_bits_than_bands_are_always_found(bits: int) -> None:
    prints = drawn(3000, 0)
    others = changed(prints, bits, 1)[::-1]
    expected = {(i, 2999 - i) for i in range(3000)}
    assert as_set(near_pairs_between(prints, others)) == expected
    both = near_pairs(np.concatenate([prints, others]))
    assert {(min(p), max(p) - 3000) for p in as_set(both)} == expected


def test_of_those_at_the_limit_nearly_all_are_found() -> None:
    prints = drawn(3000, 0)
    found = as_set(near_pairs_between(prints, changed(prints, SAME_BITS, 1)))
    assert found <= {(i, i) for i in range(3000)}
    assert len(found) > 0.98 * 3000


def test_the_limit_holds() -> None:
    prints = drawn(500, 0)
    assert len(near_pairs_between(prints, changed(prints, 9, 1), limit=8)) == 0
    assert len(near_pairs_between(prints, changed(prints, 8, 1), limit=8)) == 500


def test_the_same_as_comparing_all() -> None:
    """Of many copies some pairs are left out, but all are linked, and each has a partner on the other side."""
    base = drawn(40, 0)
    random = np.random.default_rng(2)
    prints = changed(base[random.integers(0, 40, 400)], 4, 3)
    prints[::7] = base[random.integers(0, 40, len(prints[::7]))]
    ours, theirs = prints[:250], prints[250:]
    within = near_pairs(prints)
    expected = Pairs(*(np.array(c) for c in zip(*all_pairs(prints, prints, 28), strict=True)))
    np.testing.assert_array_equal(linked(400, within), linked(400, expected))
    between = as_set(near_pairs_between(ours, theirs))
    slow = all_pairs(ours, theirs, 28)
    assert between <= slow
    for side in (0, 1):
        assert {pair[side] for pair in between} == {pair[side] for pair in slow}


@pytest.mark.parametrize("bits", [0, 1, 6])
def test_ten_thousand_copies_take_no_more_than_their_rows(bits: int) -> None:
    copies = changed(np.repeat(drawn(1, 0), 10_000, axis=0), bits, 1)
    prints = np.concatenate([drawn(5_000, 2), copies])
    pairs = near_pairs(prints)
    assert len(pairs) < 300 * len(copies)  # of 50 million
    group = linked(len(prints), pairs)
    assert len(set(group[5_000:].tolist())) == 1
    assert len(set(group.tolist())) == 5_001
    between = near_pairs_between(copies, copies[:3_000])
    assert len(between) < 300 * len(copies)
    assert set(between.first.tolist()) == set(range(10_000))
    assert set(between.second.tolist()) == set(range(3_000))


@pytest.mark.parametrize(("ours", "theirs"), [(1, 40), (40, 1), (20, 20), (33, 300), (300, 33)])
@pytest.mark.parametrize("bits", [0, 1, 3])
def test_every_row_has_a_partner_on_the_other_side(ours: int, theirs: int, bits: int) -> None:
    prints = changed(np.repeat(drawn(1, 0), ours + theirs, axis=0), bits, 1)
    found = near_pairs_between(prints[:ours], prints[ours:])
    assert set(found.first.tolist()) == set(range(ours))
    assert set(found.second.tolist()) == set(range(theirs))


def test_each_of_a_few_rows_with_one_fingerprint_is_compared_with_each() -> None:
    """They need not hold one waveform, and any two of them may."""
    prints = np.repeat(drawn(1, 0), 16, axis=0)
    assert {tuple(sorted(pair)) for pair in as_set(near_pairs(prints))} == {
        (i, j) for i in range(16) for j in range(i + 1, 16)
    }
    assert as_set(near_pairs_between(prints, prints)) == {(i, j) for i in range(16) for j in range(16)}


def test_rows_without_a_waveform_are_in_no_pair() -> None:
    prints = np.zeros((5, FINGERPRINT_BYTES), dtype=np.uint8)
    prints[3] = 1
    assert len(near_pairs(prints)) == 0
    assert as_set(near_pairs_between(prints, prints)) == {(3, 3)}


def test_empty_tables() -> None:
    assert len(near_pairs(drawn(0, 0))) == 0
    assert len(near_pairs_between(drawn(0, 0), drawn(3, 0))) == 0
    assert len(near_pairs_between(drawn(3, 0), drawn(0, 0))) == 0
