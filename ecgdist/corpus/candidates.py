"""Rows whose fingerprints are near to each other, found without comparing every pair.

A fingerprint is cut into `_BANDS` bands, and only rows that agree in a whole band are compared: two that differ in
fewer bits than there are bands agree in one for certain, two that differ in `SAME_BITS` of 384 with probability
0.99. Rows are sorted by each band in turn. Of up to `_FEW` rows that agree every pair is compared; of more, each
with its neighbours and with the first (between two tables, the first of the other one), so that time and memory
grow with the rows and not with their pairs, however many copies there are of one waveform.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ecgdist.signals.fingerprint import CANDIDATE_BITS, FINGERPRINT_BYTES, differing_bits

_BAND_BYTES = 3
_BANDS = FINGERPRINT_BYTES // _BAND_BYTES
_FEW = 32
_NEIGHBOURS = 3
_COMPARED_AT_ONCE = 2**20

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


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

    def where(self, keep: Bools) -> Pairs:
        """The pairs for which `keep` is True."""
        return Pairs(self.first[keep], self.second[keep])


def near_pairs(prints: Bytes, limit: int = CANDIDATE_BITS) -> Pairs:
    """Pairs within one table that link all rows whose fingerprints are near to each other.

    Not every pair of a large group is given, but enough of them to connect it.

    Args:
        prints: ``(rows, FINGERPRINT_BYTES)``; rows that are all zero have no waveform and are in no pair.
        limit: most bits in which two may differ.
    """
    rows = np.flatnonzero(prints.any(axis=1))
    compared, stands_for = _distinct(prints[rows])
    copies = np.flatnonzero(stands_for != np.arange(len(rows)))
    near = _near(prints, rows[compared], None, limit)
    return Pairs(
        np.concatenate([rows[stands_for[copies]], near.first]), np.concatenate([rows[copies], near.second])
    )


def near_pairs_between(prints: Bytes, others: Bytes, limit: int = CANDIDATE_BITS) -> Pairs:
    """Pairs of a row of `prints` and a row of `others`: of few rows that agree in a band all, of many
    those that the module names.

    Args:
        prints: ``(rows, FINGERPRINT_BYTES)``; all zero as in `near_pairs`.
        others: ``(other rows, FINGERPRINT_BYTES)``.
        limit: most bits in which two may differ.
    """
    both = np.concatenate([prints, others])
    rows = np.flatnonzero(both.any(axis=1))
    ours = rows < len(prints)
    kept, firsts = [], np.zeros(len(both), dtype=np.int64)
    for side in (rows[ours], rows[~ours]):
        compared, stands_for = _distinct(both[side])
        kept.append(side[compared])
        firsts[side] = side[stands_for]
    near = _near(both, np.concatenate(kept), len(kept[0]), limit)
    near = _with_copies(near, firsts, rows)
    return Pairs(near.first, near.second - len(prints))


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


def _near(prints: Bytes, rows: Ints, num_ours: int | None, limit: int) -> Pairs:
    """Near pairs among chosen rows; with `num_ours`, only pairs of the first so many with the rest."""
    found: list[Ints] = []
    for band in range(_BANDS):
        order, key = _sorted_by_band(prints, rows, band)
        theirs = None if num_ours is None else order >= num_ours
        for left, right in _agreeing(key, theirs):
            found.append(_close(prints, rows, order[left], order[right], limit))
    pairs = np.unique(np.concatenate(found)) if found else np.zeros(0, dtype=np.int64)
    first, second = np.divmod(pairs, len(rows)) if len(rows) else (pairs, pairs)
    return Pairs(rows[first], rows[second])


def _sorted_by_band(prints: Bytes, rows: Ints, band: int) -> tuple[Ints, npt.NDArray[np.uint32]]:
    """Places of `rows` in the order of a band's bits, and these bits; then in the order of the next band's bits,
    so that copies are neighbours even among many rows that agree by chance."""
    columns = (np.arange(2 * _BAND_BYTES) + band * _BAND_BYTES) % FINGERPRINT_BYTES
    key = np.zeros(len(rows), dtype=np.uint64)
    for column in columns:
        key = (key << np.uint64(8)) | prints[rows, column]
    order = np.argsort(key, kind="stable")  # else the order of equal keys is the processor's
    return order, (key[order] >> np.uint64(8 * _BAND_BYTES)).astype(np.uint32)


def _agreeing(key: npt.NDArray[np.uint32], theirs: Bools | None) -> Iterator[tuple[Ints, Ints]]:
    """Places in a sorted key whose values are equal: every pair of few, of many those that the module names.

    With `theirs`, only pairs of a place where it is False with one where it is True.
    """
    starts = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]])[: len(key)])
    sizes = np.diff(np.append(starts, len(key)))
    few = np.repeat(sizes <= _FEW, sizes)
    for shift in range(1, _FEW):
        same = key[shift:] == key[:-shift]
        left = np.flatnonzero(same if shift <= _NEIGHBOURS else same & few[shift:])
        if not len(left):
            break
        if theirs is not None:
            left = left[theirs[left] != theirs[left + shift]]
        yield left, left + shift
    value = np.repeat(np.arange(len(starts)), sizes)
    everybody = np.ones(len(key), dtype=np.bool_)
    for leaders, others in (
        ((everybody, everybody),) if theirs is None else ((theirs, ~theirs), (~theirs, theirs))
    ):
        leader = np.full(len(starts), -1, dtype=np.int64)
        # Backwards, so that the first of each value is the one that stays.
        places = np.flatnonzero(leaders)[::-1]
        leader[value[places]] = places
        led = np.flatnonzero(others & ~few & (leader[value] >= 0))
        led = led[leader[value[led]] != led]
        yield leader[value[led]], led


def _close(prints: Bytes, rows: Ints, one: Ints, other: Ints, limit: int) -> Ints:
    """Pairs of places that differ in at most `limit` bits, each as one number: lower place x rows + higher."""
    low, high = np.minimum(one, other), np.maximum(one, other)
    kept = []
    for start in range(0, len(low), _COMPARED_AT_ONCE):
        part = slice(start, start + _COMPARED_AT_ONCE)
        near = differing_bits(prints[rows[low[part]]], prints[rows[high[part]]]) <= limit
        kept.append(low[part][near] * len(rows) + high[part][near])
    return np.concatenate(kept) if kept else np.zeros(0, dtype=np.int64)
