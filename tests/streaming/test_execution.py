"""Ray Data executes the order: the same tables in the same sequence as a plain loop, errors as themselves."""

from __future__ import annotations

import functools
import gc
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pytest
import ray

from ecgdist.corpus import Corpus
from ecgdist.errors import DataError
from ecgdist.streaming.execution import StreamLimits, pool_tables
from ecgdist.streaming.order import PoolItem
from ecgdist.streaming.pool import PoolReader
from tests.streaming.streams import Stream, Tables, global_batches

pytestmark = pytest.mark.ray

LIMITS = StreamLimits(items_per_segment=5)


@pytest.fixture
def stream(sample_corpus: Corpus) -> Stream:
    return Stream.of(sample_corpus)


def through_ray(stream: Stream) -> Tables:
    return lambda items: pool_tables(items, stream.reader.read, LIMITS)


@pytest.mark.parametrize("segment", [1, 2, 5, 512])
def test_tables_are_those_of_a_plain_loop(stream: Stream, segment: int) -> None:
    """From mid-epoch over an epoch's end, in one segment and in many."""
    items = list(stream.order.items([1, 2], 9, 17))
    assert {item.epoch for item in items} == {0, 1}
    assert items[0].skip
    tables = list(pool_tables(iter(items), stream.reader.read, StreamLimits(items_per_segment=segment)))
    assert len(tables) == len(items)
    for table, item in zip(tables, items, strict=True):
        assert table.equals(stream.reader.read_alone(item))


def test_no_items_give_no_tables(stream: Stream) -> None:
    assert list(pool_tables(iter([]), stream.reader.read, LIMITS)) == []


@pytest.mark.parametrize("world_size", [1, 3])
def test_batches_through_ray_are_the_global_batches(stream: Stream, world_size: int) -> None:
    start, end = 5, stream.order.steps_per_epoch + 4
    ranks = [
        list(stream.rank(rank, world_size, start, end, through_ray(stream))) for rank in range(world_size)
    ]
    assert global_batches(ranks) == [stream.expected_ids(step) for step in range(start, end)]


def test_int16_goes_through_the_object_store(stream: Stream) -> None:
    table = next(pool_tables(stream.order.items([0], 0, 4), stream.reader.read, LIMITS))
    assert table.schema.field("signal").type == pa.binary(12 * 1000 * 2)


def test_a_pool_larger_than_rays_blocks_stays_whole(stream: Stream) -> None:
    context = ray.data.DataContext.get_current()
    usual = context.target_max_block_size
    context.target_max_block_size = 50_000
    try:
        items = list(stream.order.items([0], 0, 4))
        tables = list(pool_tables(iter(items), stream.reader.read, LIMITS))
    finally:
        context.target_max_block_size = usual
    assert [table.num_rows for table in tables] == [stream.reader.read_alone(item).num_rows for item in items]
    assert max(table.nbytes for table in tables) > 3 * 50_000


def test_limits_are_the_pipelines_own(stream: Stream) -> None:
    usual = ray.data.DataContext.get_current().execution_options.resource_limits
    list(pool_tables(stream.order.items([0], 0, 2), stream.reader.read, LIMITS))
    context = ray.data.DataContext.get_current()
    assert context.execution_options.resource_limits == usual
    assert not context.execution_options.preserve_order


def read_but_fail_at(reader: PoolReader, step: int, items: Sequence[PoolItem], *_: int) -> Iterator[pa.Table]:
    for item in items:
        if item.step >= step:
            raise DataError(f"the pool of step {item.step} is damaged; pack the corpus again")
        yield reader.read_alone(item)


@pytest.mark.parametrize("fail_at", [0, 6])
def test_an_error_in_a_read_task_arrives_as_itself(stream: Stream, fail_at: int) -> None:
    """In the first pool of a segment and in a later one."""
    items = list(stream.order.items([0, 1], 0, 12))
    read = functools.partial(read_but_fail_at, stream.reader, fail_at)
    with pytest.raises(DataError) as caught:
        list(pool_tables(iter(items), read, StreamLimits(items_per_segment=50)))
    assert type(caught.value) is DataError
    assert re.fullmatch(r"the pool of step \d+ is damaged; pack the corpus again", str(caught.value))


def test_a_damaged_shard_is_named(stream: Stream, tmp_path: Path) -> None:
    shutil.copytree(stream.corpus.location.uri, tmp_path / "corpus")
    (tmp_path / "corpus/shards/00004.parquet").write_bytes(b"rubbish")
    damaged = Stream(Corpus(tmp_path / "corpus"), stream.selection, stream.order)
    with pytest.raises(DataError, match=r"00004\.parquet is damaged"):
        list(damaged.rank(0, 1, 0, damaged.order.steps_per_epoch, through_ray(damaged)))


def read_swapped(
    reader: PoolReader, first: PoolItem, second: PoolItem, items: Sequence[PoolItem], *_: int
) -> Iterator[pa.Table]:
    """As a reader whose results Ray gave in another order."""
    for item in items:
        yield reader.read_alone({first: second, second: first}.get(item, item))


def read_nothing(
    reader: PoolReader, missing: PoolItem, items: Sequence[PoolItem], *_: int
) -> Iterator[pa.Table]:
    for item in items:
        table = reader.read_alone(item)
        yield table.slice(0, 0) if item == missing else table


def test_tables_out_of_order_are_refused(stream: Stream) -> None:
    items = list(stream.order.items([0, 1], 0, 12))
    read = functools.partial(read_swapped, stream.reader, items[1], items[2])
    with pytest.raises(DataError, match="rows are out of order"):
        list(pool_tables(iter(items), read, LIMITS))


def test_a_missing_table_is_refused(stream: Stream) -> None:
    items = list(stream.order.items([0, 1], 0, 12))
    read = functools.partial(read_nothing, stream.reader, items[3])
    with pytest.raises(DataError, match=r"rows (would have been lost|are out of order)"):
        list(pool_tables(iter(items), read, LIMITS))


def available_object_store() -> float:
    return float(ray.available_resources().get("object_store_memory", 0.0))


def wait_until_free(free: float) -> None:
    deadline = time.monotonic() + 30
    while (now := available_object_store()) < free:
        assert time.monotonic() < deadline, f"{now:.0f} bytes are available, {free:.0f} were at the start"
        gc.collect()
        time.sleep(0.1)


def consume_all(batches: Iterator[object]) -> None:
    for _ in batches:
        pass


def consume_three(batches: Iterator[object]) -> None:
    for _ in range(3):
        next(batches)


@pytest.mark.parametrize("consume", [consume_all, consume_three])
def test_the_object_store_is_free_again(stream: Stream, consume: Callable[[Iterator[object]], None]) -> None:
    """At the end of a run, and when its consumer stops early."""
    gc.collect()
    free = available_object_store()
    batches = stream.rank(0, 1, 0, 2 * stream.order.steps_per_epoch, through_ray(stream))
    consume(batches)
    batches.close()
    wait_until_free(free)


def test_closing_early_takes_no_longer_than_a_segment(stream: Stream) -> None:
    began = time.monotonic()
    tables = pool_tables(stream.order.items(range(4), 0, 10**6), stream.reader.read, LIMITS)
    next(tables)
    tables.close()
    assert time.monotonic() - began < 60  # a guard against a hang, not a measurement
