"""Let Ray Data execute the order: one pipeline per rank, whose items are pools."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
from pydantic import Field
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ecgdist.config import Config
from ecgdist.errors import DataError
from ecgdist.raytools import blocks, handing_over_errors_on_the_way
from ecgdist.streaming.order import PoolItem

_STEP_S, _IDLE_STEP_S = 0.005, 0.02
"""Least time of a step of the scheduling loop that met a new block, and of one that met none."""


class StreamLimits(Config):
    """What one rank's pipeline may take from the cluster."""

    cpus: float = Field(default=1.0, gt=0)
    """CPUs for the read tasks of one rank: there are two around the start of a segment."""
    cpus_per_task: float = Field(default=0.5, gt=0)
    """CPUs that one read task claims."""
    threads: int = Field(default=4, ge=1)
    """Row groups that a read task fetches and decodes at the same time."""
    kept_rows: int = Field(default=2048, ge=0)
    """Rows that a read task keeps for later pools of the same row group, rather than read them again; each takes
    60 kB of memory."""
    object_store_bytes: int = Field(default=150_000_000, ge=1)
    """Bytes of blocks that may wait in the object store for one rank."""
    items_per_segment: int = Field(default=512, ge=1)
    """Pools that one Ray Data execution holds; the next one starts while the last pools of this are used."""


ReadPools = Callable[[Sequence[PoolItem], int, int], Iterator[pa.Table]]
"""Gives the table of every item; told how many threads to use and how many rows to keep (`PoolReader.read`)."""


def pool_tables(
    items: Iterator[PoolItem], read: ReadPools, limits: StreamLimits
) -> Generator[pa.Table, None, None]:
    """The table of every item, in order, read ahead by a Ray task that gives one after the other.

    A run may have millions of items, so they go to Ray Data in segments; memory and time to the first table
    do not grow with the length of the run, and the start of a segment is hidden behind the one before.

    Raises:
        DataError: if Ray Data gives another item than the order asks for, or none.
        EcgdistError: what `read` raised, as itself.
    """
    read_ref = ray.put(read)
    segments = iter(lambda: list(itertools.islice(items, limits.items_per_segment)), [])
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="next-segment") as starter:
        upcoming = _start(starter, next(segments, []), read_ref, limits)
        while upcoming is not None:
            segment = upcoming.result()
            upcoming = None
            ahead = max(1, len(segment.items) // 4)
            for number, item in enumerate(segment.items):
                if number == len(segment.items) - ahead:
                    upcoming = _start(starter, next(segments, []), read_ref, limits)
                yield _expect(segment.take(), item)
            if segment.take() is not None:
                raise DataError(
                    "Ray Data gave more pools than the order has; this is a defect, please report it"
                )


@dataclass
class _Segment:
    """A running Ray Data execution, with the table that was waited for when it started."""

    items: list[PoolItem]
    tables: Iterator[pa.Table]
    first: pa.Table | None

    def take(self) -> pa.Table | None:
        """The next table, or None at the end."""
        if self.first is not None:
            table, self.first = self.first, None
            return table
        return next(self.tables, None)


class _Paced(ExecutionCallback):  # type: ignore[misc]  # Ray's classes are untyped here
    """Gives the scheduling loop a rhythm.

    While blocks wait for the consumer, Ray 2.60 has nothing to wait for itself, and its loop would spin in the
    training process: it took nine tenths of a core and the interpreter lock, and cut training to a third of its
    speed on two cores. While the consumer waits for blocks, a slow rhythm would hold back the read task, which
    may be two blocks ahead of the loop.
    """

    def __init__(self) -> None:
        self._blocks = 0

    def on_execution_step(self, executor: Any) -> None:
        blocks_now = sum(operator.metrics.num_task_outputs_generated for operator in executor._topology)
        time.sleep(_IDLE_STEP_S if blocks_now == self._blocks else _STEP_S)
        self._blocks = blocks_now


def _start(
    starter: ThreadPoolExecutor, items: list[PoolItem], read_ref: Any, limits: StreamLimits
) -> Future[_Segment] | None:
    return starter.submit(_execute, items, read_ref, limits) if items else None


def _execute(items: list[PoolItem], read_ref: Any, limits: StreamLimits) -> _Segment:
    # In the object store, because Ray would send the order's arrays with every task.
    items_ref = ray.put(items)

    def read_blocks(_: dict[str, Any]) -> Iterator[pa.Table]:
        read: ReadPools = ray.get(read_ref)
        yield from map(_as_one_row, read(ray.get(items_ref), limits.threads, limits.kept_rows))

    dataset = ray.data.from_items([{"segment": 0}], override_num_blocks=1).map_batches(
        handing_over_errors_on_the_way(read_blocks),
        batch_size=1,
        num_cpus=limits.cpus_per_task,
        # Where the consumer is: a pool read elsewhere would cross the network twice.
        scheduling_strategy=NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=True
        ),
    )
    context = dataset.context
    context.enable_progress_bars = False
    # Every row is a block of its own, so that no pool comes in pieces and none waits for another.
    context.target_max_block_size = 1
    context.custom_execution_callback_classes = [_Paced]
    context.execution_options.preserve_order = True
    context.execution_options.resource_limits = ray.data.ExecutionResources(
        cpu=limits.cpus, object_store_memory=limits.object_store_bytes
    )
    tables = map(_from_one_row, blocks(dataset))
    return _Segment(items, tables, next(tables, None))


def _as_one_row(table: pa.Table) -> pa.Table:
    """A table as one row of lists, without a copy: Ray Data may cut a block between rows, but not in a row."""
    ends = pa.array([0, table.num_rows], pa.int32())
    columns = map(_whole, table.columns)
    return pa.table(
        {name: pa.ListArray.from_arrays(ends, c) for name, c in zip(table.column_names, columns, strict=True)}
    )


def _from_one_row(row: pa.Table) -> pa.Table:
    """The inverse of `_as_one_row`, without a copy."""
    return pa.table({name: _whole(row[name]).flatten() for name in row.column_names})


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array; `combine_chunks` would copy where there is only one."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _expect(table: pa.Table | None, item: PoolItem) -> pa.Table:
    """Check that a table is the one that the order asks for: Ray Data owes us order and completeness."""
    if table is None or table.num_rows == 0:
        raise DataError(f"Ray Data ended before pool {item}; rows would have been lost")
    found = (table["lane"][0].as_py(), table["step"][0].as_py())
    if found != (item.lane, item.step):
        raise DataError(
            f"Ray Data gave the pool of (lane, step) {found} where {item} was due; rows are out of order"
        )
    return table
