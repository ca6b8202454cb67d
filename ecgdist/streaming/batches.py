"""Assemble one rank's part of every global batch from the pools of its lanes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ecgdist.corpus.schema import signal_array
from ecgdist.errors import DataError
from ecgdist.record import NUM_LEADS, bits_to_mask
from ecgdist.streaming.order import Order, PoolItem

T = TypeVar("T")


@dataclass(frozen=True)
class RankBatch:
    """The rows of one step that one rank serves, in the order of the global batch.

    Attributes:
        step: global step.
        positions: ``(b,)`` positions in the global batch.
        signal_uv: ``(b, 12, samples)`` int16 microvolt.
        valid_samples: ``(b,)`` samples before padding.
        lead_mask: ``(b, 12)`` True where a lead is present.
        patient: ``(b,)`` number of the patient.
        row_ids: ``source/record#segment`` of each row.
    """

    step: int
    positions: npt.NDArray[np.int64]
    signal_uv: npt.NDArray[np.int16]
    valid_samples: npt.NDArray[np.int64]
    lead_mask: npt.NDArray[np.bool_]
    patient: npt.NDArray[np.int64]
    row_ids: list[str]


@dataclass
class _LaneRows:
    """Rows of one pool that wait to be used, copied out of the object store so that its memory is free."""

    signal_uv: npt.NDArray[np.int16]
    valid_samples: npt.NDArray[np.int64]
    lead_mask: npt.NDArray[np.bool_]
    patient: npt.NDArray[np.int64]
    row_ids: list[str]
    used: int = 0

    @classmethod
    def of(cls, table: pa.Table, num_samples: int) -> _LaneRows:
        return cls(
            signal_array(table["signal"], num_samples).copy(),
            table["valid_samples"].to_numpy().astype(np.int64),
            bits_to_mask(table["lead_mask"].to_numpy()),
            table["patient"].to_numpy().copy(),
            table["row_id"].to_pylist(),
        )

    @property
    def left(self) -> int:
        return len(self.row_ids) - self.used


def rank_batches(
    order: Order,
    rank: int,
    world_size: int,
    start_step: int,
    end_step: int,
    num_samples: int,
    tables: Callable[[Iterator[PoolItem]], Generator[pa.Table, None, None]],
) -> Generator[RankBatch, None, None]:
    """Batches of steps ``start_step ... end_step - 1`` for one rank.

    Args:
        tables: gives the table of each pool item, in order: `execution.pool_tables`, or a plain loop.

    Raises:
        DataError: if a pool is missing, or one comes that no step needs.
    """
    lanes = order.lanes_of(rank, world_size)
    positions = order.positions_of(rank, world_size)
    waiting: dict[int, deque[_LaneRows]] = {lane: deque() for lane in lanes}
    # Closed with this generator, so that a pipeline stops when its consumer does.
    with closing(tables(order.items(lanes, start_step, end_step))) as arriving:
        for step in range(start_step, end_step):
            while short := [
                lane for lane in lanes if sum(pool.left for pool in waiting[lane]) < order.rows_per_step
            ]:
                table = next(arriving, None)
                if table is None:
                    raise DataError(f"the stream ended at step {step} with lanes {short} short of rows")
                waiting[table["lane"][0].as_py()].append(_LaneRows.of(table, num_samples))
            pools = [waiting[lane] for lane in lanes]
            yield _assemble(step, positions, pools, order.rows_per_step, num_samples)
        if next(arriving, None) is not None:
            raise DataError(f"the stream goes on after step {end_step - 1}, which was to be its last")


def _assemble(
    step: int,
    positions: npt.NDArray[np.int64],
    lanes: list[deque[_LaneRows]],
    rows_per_lane: int,
    num_samples: int,
) -> RankBatch:
    count = len(positions)
    batch = RankBatch(
        step,
        positions,
        np.empty((count, NUM_LEADS, num_samples), np.int16),
        np.empty(count, np.int64),
        np.empty((count, NUM_LEADS), np.bool_),
        np.empty(count, np.int64),
        [],
    )
    filled = 0
    for pools in lanes:
        wanted = rows_per_lane
        while wanted:
            pool = pools[0]
            taken = min(wanted, pool.left)
            here, there = slice(filled, filled + taken), slice(pool.used, pool.used + taken)
            batch.signal_uv[here] = pool.signal_uv[there]
            batch.valid_samples[here] = pool.valid_samples[there]
            batch.lead_mask[here] = pool.lead_mask[there]
            batch.patient[here] = pool.patient[there]
            batch.row_ids.extend(pool.row_ids[there])
            pool.used += taken
            filled, wanted = filled + taken, wanted - taken
            if not pool.left:
                pools.popleft()
    return batch


def read_ahead(source: Generator[T, None, None], depth: int = 2) -> Generator[T, None, None]:
    """The items of `source`, computed up to `depth` ahead in a thread; it closes `source` when it is closed.

    Raises:
        Exception: what `source` raises, where its item was due.
    """
    end = object()
    with closing(source), ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-ahead") as worker:
        futures: deque[Future[object]] = deque(worker.submit(next, source, end) for _ in range(depth))
        try:
            while (item := futures.popleft().result()) is not end:
                futures.append(worker.submit(next, source, end))
                yield item  # type: ignore[misc]  # anything but `end` came from `source`
        finally:
            for future in futures:
                future.cancel()
