"""Batches of a rank: with any number of workers they make up the global batches of the order."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator

import numpy as np
import pyarrow as pa
import pytest

from ecgdist.corpus import Corpus
from ecgdist.errors import DataError
from ecgdist.record import bits_to_mask
from ecgdist.streaming.batches import read_ahead
from ecgdist.streaming.order import PoolItem
from ecgdist.streaming.pool import patient_number
from tests.streaming.streams import Stream, global_batches

corpus_tests = pytest.mark.ray


@pytest.fixture
def stream(sample_corpus: Corpus) -> Stream:
    return Stream.of(sample_corpus)


@corpus_tests
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("start", [0, 9])
def test_any_number_of_workers_assembles_the_same_global_batches(
    stream: Stream, world_size: int, start: int
) -> None:
    end = start + 2 * stream.order.steps_per_epoch - 3
    ranks = [list(stream.rank(rank, world_size, start, end)) for rank in range(world_size)]
    assert global_batches(ranks) == [stream.expected_ids(step) for step in range(start, end)]
    assert [batch.step for batch in ranks[0]] == list(range(start, end))


@corpus_tests
def test_a_batch_holds_the_facts_of_its_rows(stream: Stream) -> None:
    for batch in stream.rank(1, 3, 12, 18):
        rows = stream.index_rows(*stream.order.rows(batch.step))[batch.positions]
        ascending = np.argsort(rows)
        ((_, signals),) = stream.corpus.iter_signals(rows, batch_rows=len(rows))
        np.testing.assert_array_equal(batch.signal_uv[ascending], signals)
        assert batch.signal_uv.dtype == np.int16
        facts = stream.corpus.index.take(rows)
        assert batch.valid_samples.tolist() == facts["valid_samples"].to_pylist()
        np.testing.assert_array_equal(batch.lead_mask, bits_to_mask(facts["lead_mask"].to_numpy()))
        assert batch.patient.tolist() == [patient_number(k) for k in facts["patient_key"].to_pylist()]


@corpus_tests
def test_a_missing_pool_is_an_error(stream: Stream) -> None:
    def all_but_the_last(items: Iterator[PoolItem]) -> Generator[pa.Table, None, None]:
        yield from map(stream.reader.read_alone, list(items)[:-1])

    with pytest.raises(DataError, match=r"the stream ended at step \d+ with lanes \[\d\] short of rows"):
        list(stream.rank(0, 1, 0, 10, all_but_the_last))


@corpus_tests
def test_a_pool_too_many_is_an_error(stream: Stream) -> None:
    def one_twice(items: Iterator[PoolItem]) -> Generator[pa.Table, None, None]:
        all_items = list(items)
        yield from map(stream.reader.read_alone, [*all_items, all_items[-1]])

    with pytest.raises(DataError, match="the stream goes on after step 9"):
        list(stream.rank(0, 1, 0, 10, one_twice))


@corpus_tests
def test_the_tables_are_closed_with_the_batches(stream: Stream) -> None:
    closed = threading.Event()

    def tables(items: Iterator[PoolItem]) -> Generator[pa.Table, None, None]:
        try:
            yield from stream.plain(items)
        finally:
            closed.set()

    batches = read_ahead(stream.rank(0, 1, 0, 50, tables))
    assert [next(batches).step for _ in range(3)] == [0, 1, 2]
    assert not closed.is_set()
    batches.close()
    assert closed.is_set()


# read_ahead


def counted(count: int, taken: list[int]) -> Generator[int, None, None]:
    for number in range(count):
        taken.append(number)
        yield number


@pytest.mark.parametrize("count", [0, 1, 2, 3, 20])
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_read_ahead_keeps_order_and_loses_nothing(count: int, depth: int) -> None:
    assert list(read_ahead(counted(count, []), depth)) == list(range(count))


def test_read_ahead_is_ahead_by_its_depth_and_no_more() -> None:
    taken: list[int] = []
    items = read_ahead(counted(100, taken), depth=3)
    assert next(items) == 0
    deadline = time.monotonic() + 10
    while len(taken) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert next(items) == 1
    items.close()
    assert len(taken) <= 5


def test_read_ahead_raises_an_error_where_its_item_was_due() -> None:
    def failing() -> Generator[int, None, None]:
        yield 0
        yield 1
        raise DataError("the third cannot be read")

    items = read_ahead(failing(), depth=3)
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(DataError, match="the third cannot be read"):
        next(items)
    with pytest.raises(StopIteration):
        next(items)


def test_closing_read_ahead_early_does_not_hang_and_closes_its_source() -> None:
    closed: list[bool] = []

    def endless() -> Generator[int, None, None]:
        number = 0
        try:
            while True:
                yield number
                number += 1
        finally:
            closed.append(True)

    before = threading.active_count()
    items = read_ahead(endless())
    assert next(items) == 0
    items.close()
    assert closed == [True]
    assert threading.active_count() == before
