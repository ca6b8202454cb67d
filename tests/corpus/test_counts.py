"""Counting columns gives what loops over their rows give."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgdist.corpus.counts import (
    Codes,
    binned,
    by_frequency,
    cross,
    encode,
    encode_ids,
    encode_lists,
    encode_numbers,
)

WORDS = st.sampled_from(["scp:NORM", "b", "a", "ü", ""])


def chunked(values: list, kind: pa.DataType, cut: int) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values[:cut], kind), pa.array(values[cut:], kind)])


@given(st.lists(st.none() | WORDS), st.integers(0, 5))
def test_strings_are_counted(values: list[str | None], cut: int) -> None:
    found = encode(chunked(values, pa.string(), cut), null="none")
    assert [found.names[code] for code in found.codes] == [v if v is not None else "none" for v in values]
    assert found.counts() == Counter(v if v is not None else "none" for v in values)
    without_null = [name for name in found.names if name != "none"]
    assert without_null == sorted(without_null)


@given(st.lists(st.lists(WORDS)), st.integers(0, 5))
def test_lists_are_counted_and_know_their_rows(values: list[list[str]], cut: int) -> None:
    found, rows = encode_lists(chunked(values, pa.list_(pa.string()), cut))
    again: dict[int, list[str]] = defaultdict(list)
    for row, code in zip(rows.tolist(), found.codes.tolist(), strict=True):
        again[row].append(found.names[code])
    assert [again[row] for row in range(len(values))] == values


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1))
def test_two_columns_are_crossed(pairs: list[tuple[str, str]]) -> None:
    one, two = (encode(pa.chunked_array([pa.array(side)]), null="none") for side in zip(*pairs, strict=True))
    expected: dict[str, Counter[str]] = defaultdict(Counter)
    for first, second in pairs:
        expected[first][second] += 1
    assert cross(one, two) == expected


@pytest.mark.parametrize(
    "column", [pa.chunked_array([], pa.string()), pa.chunked_array([pa.array([], pa.string())])]
)
def test_an_empty_column(column: pa.ChunkedArray) -> None:
    assert encode(column, null="none").counts() == {}
    assert len(encode_ids(column)) == 0


def test_ids_are_numbered_from_zero() -> None:
    ids = encode_ids(chunked(["x", "y", "x", "z"], pa.string(), 1)).tolist()
    assert ids[0] == ids[2]
    assert sorted(set(ids)) == [0, 1, 2]


def test_numbers_are_named_smallest_first() -> None:
    found = encode_numbers(np.array([500.0, 257.0, 500.0, 128.5]))
    assert found.names == ("128.5", "257", "500")
    assert found.counts() == {"128.5": 1, "257": 1, "500": 2}


def test_some_entries() -> None:
    found = Codes(("a", "b"), np.array([0, 1, 1]))
    assert found.take(np.array([False, True, True])).counts() == {"a": 0, "b": 2}


def test_the_most_frequent_come_first() -> None:
    assert list(by_frequency({"b": 1, "a": 1, "c": 3, "d": 0})) == ["c", "a", "b"]


def test_bins_hold_their_lower_edge() -> None:
    assert binned(np.array([1, 3, 4, 5, 6, 1000]), [1, 2, 4, 6]).tolist() == [0, 1, 2, 2, 3, 3]
