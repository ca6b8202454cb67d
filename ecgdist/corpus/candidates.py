"""Rows whose fingerprints are near to each other, found without comparing every pair.

A fingerprint is cut into `_BANDS` bands, and only rows that agree in a whole band are compared: two that differ in
fewer bits than there are bands agree in one for certain, two that differ in `SAME_BITS` of 384 with probability
0.99. Rows are sorted by each band in turn. Of up to `_FEW` rows that agree every pair is compared; of more, a crowd,
each with its neighbours and with the first (between two tables, the first of the other one), so that time and memory
grow with the rows and not with their pairs, however many copies there are of one waveform. Which rows are in a crowd
is told, and `every_near_pair` compares those that matter with all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ecgdist.signals.fingerprint import CANDIDATE_BITS, FINGERPRINT_BYTES

_BAND_BYTES = 3
_BANDS = FINGERPRINT_BYTES // _BAND_BYTES
_BAND_BITS = 8 * _BAND_BYTES
_FEW = 128
"""Of 13 million real ECGs 18 agree with one in a band by chance (1.4 of a million: ``tests/benchmarks/index.py``)."""
_NEIGHBOURS = 3
_COMPARED_AT_ONCE = 2**16
_GROUPS_AT_ONCE = 2**16

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Words = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Pairs:
    """Pairs of rows.

    Attributes:
        first: ``(pairs,)`` row numbers.
        second: ``(pairs,)`` row numbers.
    """

    first: Ints
    second: Ints

    def __len__(self) -> int:
        return len(self.first)

    @classmethod
    def none(cls) -> Pairs:
        """No pairs."""
        return cls(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))

    @classmethod
    def joined(cls, parts: Sequence[Pairs]) -> Pairs:
        """The pairs of several, one after the other."""
        return cls(np.concatenate([p.first for p in parts]), np.concatenate([p.second for p in parts]))

    def where(self, keep: Bools) -> Pairs:
        """The pairs for which `keep` is True."""
        return Pairs(self.first[keep], self.second[keep])


@dataclass(frozen=True)
class PairsWithin(Pairs):
    """Pairs of rows of one table.

    Attributes:
        crowd: rows that agree in a band with so many others that not each pair was compared.
    """

    crowd: Ints


def near_pairs(prints: Bytes, limit: int = CANDIDATE_BITS) -> PairsWithin:
    """Pairs within one table that link all rows whose fingerprints are near to each other.

    Not every pair of a large group is given, but enough of them to connect it.

    Args:
        prints: ``(rows, FINGERPRINT_BYTES)``; rows that are all zero have no waveform and are in no pair.
        limit: most bits in which two may differ.
    """
    rows = np.flatnonzero(prints.any(axis=1))
    compared, stands_for = _distinct(prints[rows])
    copies = np.flatnonzero(stands_for != np.arange(len(rows)))
    crowded = np.zeros(len(prints), dtype=np.bool_)
    near = _near(prints, rows[compared], None, limit, crowded)
    crowded[rows[copies]] = crowded[rows[stands_for[copies]]] = True
    return PairsWithin(
        np.concatenate([rows[stands_for[copies]], near.first]),
        np.concatenate([rows[copies], near.second]),
        np.flatnonzero(crowded),
    )


@dataclass(frozen=True)
class PairsBetween(Pairs):
    """Pairs of a row of one table and a row of another.

    Attributes:
        crowd: rows of the first table that agree in a band with so many others that not each pair was compared.
        other_crowd: such rows of the second table.
    """

    crowd: Ints
    other_crowd: Ints


def near_pairs_between(prints: Bytes, others: Bytes, limit: int = CANDIDATE_BITS) -> PairsBetween:
    """Pairs of a row of `prints` and a row of `others`: of few rows that agree in a band all, of a crowd
    those that the module names.

    Args:
        prints: ``(rows, FINGERPRINT_BYTES)``; all zero as in `near_pairs`.
        others: ``(other rows, FINGERPRINT_BYTES)``.
        limit: most bits in which two may differ.
    """
    both = np.concatenate([prints, others])
    rows = np.flatnonzero(both.any(axis=1))
    ours = rows < len(prints)
    kept, firsts = [], np.arange(len(both))
    for side in (rows[ours], rows[~ours]):
        compared, stands_for = _distinct(both[side])
        kept.append(side[compared])
        firsts[side] = side[stands_for]
    crowded = np.zeros(len(both), dtype=np.bool_)
    near = _near(both, np.concatenate(kept), len(kept[0]), limit, crowded)
    near = _with_copies(near, firsts, rows)
    copies = np.flatnonzero(firsts != np.arange(len(both)))
    crowded[copies] = crowded[firsts[copies]] = True
    return PairsBetween(
        near.first,
        near.second - len(prints),
        np.flatnonzero(crowded[: len(prints)]),
        np.flatnonzero(crowded[len(prints) :]),
    )


def every_near_pair(prints: Bytes, others: Bytes, limit: int = CANDIDATE_BITS) -> Pairs:
    """`near_pairs_between` by comparing every pair: exact, and in a time that grows with their number."""
    words, other_words = _words(prints), _words(others)
    parts = [Pairs.none()]
    for row in range(len(others)):
        bits = np.zeros(len(prints), dtype=np.uint16)
        for word, other in zip(words, other_words[:, row], strict=True):
            bits += np.bitwise_count(word ^ other)
        near = np.flatnonzero(bits <= limit)
        parts.append(Pairs(near, np.full(len(near), row)))
    return Pairs.joined(parts)


def _with_copies(near: Pairs, firsts: Ints, rows: Ints) -> Pairs:
    """Add the rows with the very fingerprint of a row of a pair, each beside one row of the other side."""
    parts = [(near.first, near.second)]
    copies = rows[firsts[rows] != rows]
    for mine, partner in ((near.first, near.second), (near.second, near.first)):
        known, place = np.unique(mine, return_index=True)
        if not len(known):
            continue
        spot = np.minimum(np.searchsorted(known, firsts[copies]), len(known) - 1)
        paired = known[spot] == firsts[copies]
        found = (copies[paired], partner[place[spot[paired]]])
        parts.append(found if mine is near.first else found[::-1])
    first, second = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return Pairs(first, second)


def _distinct(prints: Bytes) -> tuple[Ints, Ints]:
    """The rows to compare, and for every row the one that stands for it.

    A row stands for itself, but of more than `_FEW` with one fingerprint the first stands for all. (Not of fewer:
    rows of one fingerprint need not hold one waveform, and then each has to be compared with each.)
    """
    words = np.ascontiguousarray(prints).view(np.uint64)
    # Multiplication by an odd number, modulo 2^64, loses nothing. Rows of one fingerprint come together; others
    # that do, too, are told apart below.
    mixed = np.zeros(len(words), dtype=np.uint64)
    for column in words.T:
        mixed = (mixed ^ column) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    order = np.argsort(mixed, kind="stable")
    changes = np.ones(len(order), dtype=np.bool_)
    if len(order):
        changes[1:] = (words[order[1:]] != words[order[:-1]]).any(axis=1)
    starts = np.flatnonzero(changes)
    sizes = np.diff(np.append(starts, len(order)))
    first = np.repeat(order[starts], sizes)
    stands_for = np.empty(len(order), dtype=np.int64)
    stands_for[order] = np.where(np.repeat(sizes, sizes) > _FEW, first, order)
    return np.flatnonzero(stands_for == np.arange(len(order))), stands_for


def _near(prints: Bytes, rows: Ints, num_ours: int | None, limit: int, crowded: Bools) -> Pairs:
    """Near pairs among chosen rows; with `num_ours`, only pairs of the first so many with the rest.

    Rows of a crowd are marked in `crowded`, ``(len(prints),)``.
    """
    words = _words(prints[rows])
    found: list[Ints] = [np.zeros(0, dtype=np.int64)]
    for band in range(_BANDS):
        order, key = _sorted_by_band(words, band)
        theirs = None if num_ours is None else order >= num_ours
        starts, sizes = _groups(key)
        crowded[rows[order[np.repeat(sizes > _FEW, sizes)]]] = True
        # Two words that hold nothing of the band: unrelated rows differ in 64 bits of them, near ones in few.
        last = ((band + 1) * _BAND_BYTES - 1) // 8
        checked = [words[(last + step) % len(words), order] for step in (1, 3)]
        for left, right in _agreeing(starts, sizes, theirs):
            maybe = _maybe_near(checked, left, right, limit)
            found.append(_close(words, order[left[maybe]], order[right[maybe]], limit))
    pairs = np.unique(np.concatenate(found))
    first, second = np.divmod(pairs, max(len(rows), 1))
    return Pairs(rows[first], rows[second])


def _words(prints: Bytes) -> Words:
    """``(6, rows)``: the words of a fingerprint, each of all rows side by side in memory."""
    return np.ascontiguousarray(np.ascontiguousarray(prints).view("<u8").T)


def _sorted_by_band(words: Words, band: int) -> tuple[Ints, Words]:
    """Places in the order of a band's bits, and these bits; then in the order of bits of the next band, as many as
    there is room for, so that copies are neighbours even among many rows that agree by chance."""
    num_rows = words.shape[1]
    place_bits = max(num_rows - 1, 1).bit_length()
    key = np.zeros(num_rows, dtype=np.uint64)
    for column in range(band * _BAND_BYTES, (band + 2) * _BAND_BYTES):
        word, byte = divmod(column % FINGERPRINT_BYTES, 8)
        key <<= np.uint64(8)
        key |= (words[word] >> np.uint64(8 * byte)) & np.uint64(0xFF)
    # One number for bits and place together: it is there once, and sorting such numbers is what processors do best.
    key >>= np.uint64(max(0, 2 * _BAND_BITS + place_bits - 64))
    key <<= np.uint64(place_bits)
    key |= np.arange(num_rows, dtype=np.uint64)
    key.sort()
    order = (key & np.uint64(2**place_bits - 1)).astype(np.int64)
    key >>= np.uint64(place_bits + min(_BAND_BITS, 64 - _BAND_BITS - place_bits))
    return order, key


def _groups(key: Words) -> tuple[Ints, Ints]:
    """Where each value of a sorted key starts, and how often it is there."""
    starts = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]])[: len(key)])
    return starts, np.diff(np.append(starts, len(key)))


def _agreeing(starts: Ints, sizes: Ints, theirs: Bools | None) -> Iterator[tuple[Ints, Ints]]:
    """Places in a sorted key whose values are equal: every pair of few, of a crowd those that the module names.

    With `theirs`, only pairs of a place where it is False with one where it is True.
    """
    several = sizes > 1
    starts, sizes = starts[several], sizes[several]
    for first in range(0, len(starts), _GROUPS_AT_ONCE):
        part = slice(first, first + _GROUPS_AT_ONCE)
        yield from _agreeing_in(starts[part], sizes[part], theirs)


def _agreeing_in(starts: Ints, sizes: Ints, theirs: Bools | None) -> Iterator[tuple[Ints, Ints]]:
    ends = np.repeat(starts + sizes, sizes)
    place = ends - np.repeat(np.cumsum(sizes), sizes) + np.arange(len(ends))
    crowd = np.repeat(sizes > _FEW, sizes)
    left, last = place, np.where(crowd, np.minimum(ends, place + _NEIGHBOURS + 1), ends)
    for shift in range(1, _FEW):
        going = left + shift < last
        left, last = left[going], last[going]
        if not len(left):
            break
        pairs = left if theirs is None else left[theirs[left] != theirs[left + shift]]
        yield pairs, pairs + shift
    place = place[crowd]
    if not len(place):
        return
    value = np.repeat(np.arange(len(starts)), sizes)[crowd]
    everybody = np.ones(len(place), dtype=np.bool_)
    mine = everybody if theirs is None else theirs[place]
    for leaders, others in ((everybody, everybody),) if theirs is None else ((mine, ~mine), (~mine, mine)):
        leader = np.full(len(starts), -1, dtype=np.int64)
        # Backwards, so that the first of each value is the one that stays.
        leader[value[leaders][::-1]] = place[leaders][::-1]
        led = others & (leader[value] >= 0) & (leader[value] != place)
        yield leader[value[led]], place[led]


def _maybe_near(checked: Sequence[Words], left: Ints, right: Ints, limit: int) -> Ints:
    """Which of the pairs differ in at most `limit` bits of some words, which is quick to tell."""
    kept = [np.zeros(0, dtype=np.int64)]
    for start in range(0, len(left), _COMPARED_AT_ONCE):
        one, other = left[start : start + _COMPARED_AT_ONCE], right[start : start + _COMPARED_AT_ONCE]
        bits = np.zeros(len(one), dtype=np.uint8)
        for word in checked:
            bits += np.bitwise_count(word[one] ^ word[other])
        kept.append(start + np.flatnonzero(bits <= limit))
    return np.concatenate(kept)


def _close(words: Words, one: Ints, other: Ints, limit: int) -> Ints:
    """Pairs of places that differ in at most `limit` bits, each as one number: lower place x rows + higher."""
    bits = np.zeros(len(one), dtype=np.uint16)
    for word in words:
        bits += np.bitwise_count(word[one] ^ word[other])
    near = bits <= limit
    low, high = np.minimum(one, other)[near], np.maximum(one, other)[near]
    pairs: Ints = low * words.shape[1] + high
    return pairs
