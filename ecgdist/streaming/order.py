"""The order of samples: a pure function of (seed, epoch, lanes, global batch, pool size) that reads nothing.

For an epoch all row groups are permuted; the rows, in that sequence and from a random one on, are cut into
`lanes` equal lanes of ``T * q`` rows (q = global_batch / lanes, T = steps of an epoch). In a lane,
consecutive rows form pools, and the rows of a pool are permuted. A step takes the next q rows of every lane.
Which worker serves which lane changes nothing of this.

Only the sequence of row groups is laid out, once an epoch and process: 12 bytes a group. Rows and pools are
reckoned where they are asked for, at any step, so that planning costs the same at its start as near its end.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ecgdist.errors import ConfigError

Ints = npt.NDArray[np.int64]

# Names of the independent random streams.
_GROUPS, _POOL = 0, 1


@dataclass(frozen=True)
class PoolItem:
    """One unit of reading: a pool of one lane, from its first row that is still needed on."""

    step: int
    """The first step that needs a row of it."""
    epoch: int
    lane: int
    pool: int
    skip: int
    """Rows at its start that were consumed before the stream began."""


@dataclass(frozen=True)
class _Epoch:
    """One epoch's sequence of row groups: where each `starts`; lanes begin at `shift` and wrap around."""

    groups: npt.NDArray[np.int32]
    starts: Ints
    shift: int


_EPOCHS: dict[tuple[bytes, int, int], _Epoch] = {}
"""The epochs laid out last, by (hash of the row groups, seed, epoch): read tasks of one process, each of which
unpickles the order anew, share them. They hold no view of the order's arrays, which may lie in Ray's store."""

_MOST_EPOCHS = 2
"""At an epoch's end the pools of two are read."""


class Order:
    """Which rows every step of a run takes.

    A row is named by (row group, place among the selected rows of the group). The global batch is ordered by
    lane: positions ``lane * q ... (lane + 1) * q - 1`` belong to `lane`.
    """

    def __init__(
        self, group_rows: Sequence[int] | Ints, *, seed: int, lanes: int, global_batch: int, shuffle_rows: int
    ) -> None:
        """Set up the order.

        Args:
            group_rows: selected rows of each row group.
            seed: of the run.
            lanes: fixed for the life of a run; at least the largest number of workers it will have.
            global_batch: rows of a step; a multiple of `lanes`.
            shuffle_rows: rows that are mixed at a time, over all lanes together.

        Raises:
            ConfigError: if the numbers do not fit each other or the data.
        """
        self.group_rows = np.ascontiguousarray(group_rows, dtype=np.int64)
        self.num_rows = int(self.group_rows.sum())
        if lanes < 1 or global_batch < 1:
            raise ConfigError(f"lanes = {lanes} and global_batch = {global_batch} must be at least 1")
        if global_batch % lanes:
            below = global_batch // lanes * lanes
            nearest = f"{below} or {below + lanes}" if below else str(lanes)
            raise ConfigError(
                f"global_batch = {global_batch} is no multiple of lanes = {lanes}; use {nearest}"
            )
        if global_batch > self.num_rows:
            raise ConfigError(
                f"global_batch = {global_batch} is more than the {self.num_rows} selected rows of the "
                "corpus; make it smaller"
            )
        self.seed, self.lanes, self.global_batch, self.shuffle_rows = seed, lanes, global_batch, shuffle_rows
        self.rows_per_step = global_batch // lanes
        """q: rows that a lane gives to a step."""
        self.steps_per_epoch = self.num_rows // global_batch
        self.lane_rows = self.steps_per_epoch * self.rows_per_step
        self.pool_rows = max(self.rows_per_step, shuffle_rows // lanes)
        self._digest = hashlib.blake2b(self.group_rows.data, digest_size=16).digest()

    def rows(self, step: int) -> tuple[Ints, Ints]:
        """``(global_batch,)`` row groups and places of a step's rows, in the order of the global batch."""
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        groups, places = [], []
        for lane in range(self.lanes):
            begin = step_in_epoch * self.rows_per_step
            end = begin + self.rows_per_step
            while begin < end:
                pool = self._pool_at(lane, begin)
                first, last = self._pool_bounds(lane, pool)
                stop = min(end, last)
                pool_groups, pool_places = self.pool(epoch, lane, pool)
                groups.append(pool_groups[begin - first : stop - first])
                places.append(pool_places[begin - first : stop - first])
                begin = stop
        return np.concatenate(groups), np.concatenate(places)

    def pool(self, epoch: int, lane: int, pool: int) -> tuple[Ints, Ints]:
        """Row groups and places of the rows of a pool, in the order in which the lane gives them."""
        first, last = self._pool_bounds(lane, pool)
        positions = np.arange(first, last) + lane * self.lane_rows
        shuffled = self._random(_POOL, epoch, lane, pool).permutation(positions)
        return self._rows_at(epoch, shuffled)

    def leftover(self, epoch: int) -> tuple[Ints, Ints]:
        """Row groups and places of the rows that no step of the epoch takes: fewer than one global batch."""
        return self._rows_at(epoch, np.arange(self.lanes * self.lane_rows, self.num_rows))

    def items(self, lanes: Sequence[int], start_step: int, end_step: int) -> Iterator[PoolItem]:
        """The pools that `lanes` need for steps ``start_step ... end_step - 1``, sorted by first need."""
        for epoch in range(start_step // self.steps_per_epoch, -(-end_step // self.steps_per_epoch)):
            base = epoch * self.steps_per_epoch
            begin, end = max(start_step - base, 0), min(end_step - base, self.steps_per_epoch)
            # An epoch may have millions of pools: the next one of every lane is all that is held.
            by_lane = [self._lane_items(epoch, lane, begin, end) for lane in lanes]
            yield from heapq.merge(*by_lane, key=lambda item: (item.step, item.lane))

    def _lane_items(self, epoch: int, lane: int, begin_step: int, end_step: int) -> Iterator[PoolItem]:
        """The pools that a lane needs for these steps of an epoch, in order."""
        base = epoch * self.steps_per_epoch
        position, end = begin_step * self.rows_per_step, end_step * self.rows_per_step
        while position < end:
            pool = self._pool_at(lane, position)
            first, last = self._pool_bounds(lane, pool)
            yield PoolItem(base + position // self.rows_per_step, epoch, lane, pool, position - first)
            position = last

    def lanes_of(self, rank: int, world_size: int) -> range:
        """The lanes that a worker serves: floor or ceil of lanes / world_size of them, in order of rank.

        Raises:
            ConfigError: if there are more workers than lanes.
        """
        if world_size > self.lanes:
            raise ConfigError(
                f"{world_size} workers for lanes = {self.lanes}: every worker needs a lane; use fewer "
                "workers, or more lanes in a new run"
            )
        each, more = divmod(self.lanes, world_size)
        first = rank * each + min(rank, more)
        return range(first, first + each + (rank < more))

    def positions_of(self, rank: int, world_size: int) -> Ints:
        """Positions in the global batch that a worker serves, ascending."""
        lanes = self.lanes_of(rank, world_size)
        return np.arange(lanes.start * self.rows_per_step, lanes.stop * self.rows_per_step, dtype=np.int64)

    def _pool_at(self, lane: int, position: int) -> int:
        first = self._first_pool_rows(lane)
        return 0 if position < first else 1 + (position - first) // self.pool_rows

    def _pool_bounds(self, lane: int, pool: int) -> tuple[int, int]:
        first = self._first_pool_rows(lane)
        begin = 0 if pool == 0 else first + (pool - 1) * self.pool_rows
        end = first + pool * self.pool_rows
        return begin, min(end, self.lane_rows)

    def _first_pool_rows(self, lane: int) -> int:
        # Lanes whose pools all ended together would all be read again on the same step.
        return self.pool_rows - lane * self.pool_rows // self.lanes

    def _rows_at(self, epoch: int, positions: Ints) -> tuple[Ints, Ints]:
        plan = self._epoch(epoch)
        positions = (positions + plan.shift) % self.num_rows
        slot = np.searchsorted(plan.starts, positions, side="right") - 1
        return plan.groups[slot].astype(np.int64), positions - plan.starts[slot]

    def _epoch(self, epoch: int) -> _Epoch:
        key = (self._digest, self.seed, epoch)
        plan = _EPOCHS.get(key)
        if plan is None:
            plan = self._make_epoch(epoch)
            for old in list(_EPOCHS)[: len(_EPOCHS) + 1 - _MOST_EPOCHS]:
                _EPOCHS.pop(old, None)
            _EPOCHS[key] = plan
        return plan

    def _make_epoch(self, epoch: int) -> _Epoch:
        random = self._random(_GROUPS, epoch)
        groups = np.arange(len(self.group_rows), dtype=np.int32)
        random.shuffle(groups)
        rows = self.group_rows[groups]
        starts = np.cumsum(rows)
        starts -= rows
        # Without a shift the leftover would always be the last rows of a group.
        return _Epoch(groups, starts, int(random.integers(self.num_rows)))

    def _random(self, *stream: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(np.random.SeedSequence(self.seed, spawn_key=stream)))
