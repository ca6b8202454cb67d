"""Read pools: fetch their row groups by range reads, and put their rows in the order's sequence."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ecgdist.corpus import Corpus
from ecgdist.corpus.schema import signal_array, signal_column
from ecgdist.errors import DataError
from ecgdist.patience import patiently
from ecgdist.record import NUM_LEADS
from ecgdist.storage import Location
from ecgdist.streaming.order import Order, PoolItem
from ecgdist.streaming.reads import GroupRead, plan_reads
from ecgdist.streaming.selection import Selection

Ints = npt.NDArray[np.int64]

_COLUMNS = ("signal", "record_id", "segment", "source", "patient_key", "lead_mask", "valid_samples")


@dataclass(frozen=True)
class PoolReader:
    """Everything a read task needs; picklable."""

    location: Location
    corpus_id: str
    order: Order
    selection: Selection

    def read_alone(self, item: PoolItem) -> pa.Table:
        """The rows of a pool that are still needed, in order.

        Returns:
            Columns ``signal`` (int16 bytes, 12 x samples), ``row_id``, ``patient`` (int64), ``lead_mask``,
            ``valid_samples``, and ``lane`` and ``step`` of the item, by which the consumer checks its order.
        """
        (table,) = self.read([item], threads=1, kept_rows=0)
        return table

    def read(
        self, items: Sequence[PoolItem], threads: int, kept_rows: int
    ) -> Generator[pa.Table, None, None]:
        """The table of every item, one after the other, as `read_alone` gives it.

        Args:
            items: pools in the sequence in which they are needed.
            threads: row groups that are fetched and decoded at the same time, ahead of the table that is due.
            kept_rows: most rows that are kept for later pools of the same row group.
        """
        opened = _open(self.location, self.corpus_id)
        pools = [_needed(self.order, item) for item in items]
        plan = plan_reads([groups for groups, _ in pools], kept_rows)
        pieces: list[list[tuple[Ints, Future[dict[int, pa.Table]]]]] = [[] for _ in items]

        def begin(place: int) -> int:
            for read in plan[place]:
                future = executor.submit(self._read_group, opened, read, pools)
                for later, slots in read.slots.items():
                    pieces[later].append((slots, future))
            return len(plan[place])

        def due(place: int) -> list[tuple[Ints, pa.Table]]:
            parts = [(slots, future.result().pop(place)) for slots, future in pieces[place]]
            pieces[place].clear()
            return parts

        executor = ThreadPoolExecutor(threads, thread_name_prefix="row-groups")
        try:
            begun = deque[int]()
            for place, item in enumerate(items):
                # One row group for every thread is being read behind those of the pool that is due.
                while place + len(begun) < len(items) and (not begun or sum(begun) - begun[0] < threads):
                    begun.append(begin(place + len(begun)))
                begun.popleft()
                yield _table(item, due(place), opened.corpus.num_samples)
        finally:
            executor.shutdown(wait=True, cancel_futures=True)

    def _read_group(
        self, opened: _Opened, read: GroupRead, pools: Sequence[tuple[Ints, Ints]]
    ) -> dict[int, pa.Table]:
        """The rows of a row group for each pool that it serves, in the pool's sequence."""
        rows = np.concatenate([pools[place][1][slots] for place, slots in read.slots.items()])
        with opened.handle() as corpus:
            offsets = self.selection.row_offsets(read.group, rows)
            table = patiently(lambda: corpus.read_group(read.group, _COLUMNS, offsets))
        found, start = {}, 0
        for place, slots in read.slots.items():
            rows_of = table.slice(start, len(slots))
            # What waits for a later pool is copied out, or it would hold the memory of all the others.
            found[place] = rows_of.take(pa.array(np.arange(len(slots)))) if start else rows_of
            start += len(slots)
        return found


@dataclass
class _Opened:
    """A corpus, and handles of it for threads: a Parquet file serves one thread at a time."""

    corpus: Corpus
    _idle: list[Corpus] = field(default_factory=list)

    @contextmanager
    def handle(self) -> Iterator[Corpus]:
        try:
            corpus = self._idle.pop()
        except IndexError:
            corpus = self.corpus.reopened()
        try:
            yield corpus
        finally:
            self._idle.append(corpus)


def _needed(order: Order, item: PoolItem) -> tuple[Ints, Ints]:
    """Row groups and places of the rows of a pool that are still needed."""
    groups, places = order.pool(item.epoch, item.lane, item.pool)
    return groups[item.skip :], places[item.skip :]


def _table(item: PoolItem, parts: Sequence[tuple[Ints, pa.Table]], num_samples: int) -> pa.Table:
    """A pool's table from the rows of its row groups: each part with its rows' slots in the pool."""
    slots = np.concatenate([slots for slots, _ in parts])
    count = len(slots)
    signal = np.empty((count, NUM_LEADS, num_samples), dtype="<i2")
    for here, facts in parts:
        signal[here] = signal_array(facts["signal"], num_samples)
    all_facts = pa.concat_tables([facts.drop_columns("signal") for _, facts in parts])
    facts = all_facts.take(pa.array(np.argsort(slots))).combine_chunks()
    return pa.table(
        {
            "signal": signal_column(signal),
            "row_id": row_ids(facts),
            "patient": np.array([patient_number(key) for key in facts["patient_key"].to_pylist()], np.int64),
            "lead_mask": facts["lead_mask"].to_numpy(),
            "valid_samples": facts["valid_samples"].to_numpy(),
            "lane": np.full(count, item.lane, np.int32),
            "step": np.full(count, item.step, np.int64),
        }
    )


def row_ids(facts: pa.Table) -> pa.Array:
    """``source/record#segment`` of each row."""
    segment = facts["segment"].cast(pa.string())
    joined = pc.binary_join_element_wise(facts["source"], "/", facts["record_id"], "#", segment, "")
    return joined.combine_chunks()


def patient_number(patient_key: str) -> int:
    """A patient key's first 63 bits: what the loss compares to know two ECGs of one patient."""
    return int(patient_key[:16], 16) >> 1


@lru_cache(maxsize=2)
def _open(location: Location, corpus_id: str) -> _Opened:
    corpus = patiently(lambda: Corpus(location))
    if corpus.corpus_id != corpus_id:
        raise DataError(
            f"{location} was replaced by another corpus during the run ({corpus_id} -> {corpus.corpus_id})"
        )
    return _Opened(corpus)
