"""Readings of row groups: every row of every pool is served once, and no more is kept than there is room for."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from ecgdist.streaming.order import Order
from ecgdist.streaming.reads import GroupRead, plan_reads

Ints = np.ndarray


def pools_of(**settings: int) -> list[Ints]:
    """The row groups of all rows of an epoch's pools, in the sequence in which they are needed."""
    group_rows = np.random.default_rng(3).integers(1, 60, size=40)
    values = {"seed": 1, "lanes": 6, "global_batch": 24, "shuffle_rows": 200, **settings}
    order = Order(group_rows, **values)
    items = order.items(range(order.lanes), 0, order.steps_per_epoch)
    return [order.pool(item.epoch, item.lane, item.pool)[0] for item in items]


def served(plan: list[list[GroupRead]], pools: list[Ints]) -> list[Ints]:
    """The row group that serves every slot of every pool; each slot must be served once."""
    found = [np.full(len(groups), -1) for groups in pools]
    for place, reads in enumerate(plan):
        for read in reads:
            assert min(read.slots) == place, "a reading comes with the first pool that it serves"
            for later, slots in read.slots.items():
                assert (found[later][slots] == -1).all()
                found[later][slots] = read.group
    return found


def most_kept(plan: list[list[GroupRead]]) -> int:
    """The most rows that wait for later pools at any time."""
    waiting, most = Counter[int](), 0
    for place, reads in enumerate(plan):
        for read in reads:
            waiting.update({later: len(slots) for later, slots in read.slots.items()})
        del waiting[place]
        most = max(most, waiting.total())
    return most


@pytest.mark.parametrize("kept_rows", [0, 1, 17, 50, 100, 10**6])
@pytest.mark.parametrize("shuffle_rows", [1, 60, 200, 1000])
@pytest.mark.parametrize("lanes", [1, 6, 24])
def test_every_row_is_served_once_within_the_room(kept_rows: int, shuffle_rows: int, lanes: int) -> None:
    pools = pools_of(shuffle_rows=shuffle_rows, lanes=lanes)
    plan = plan_reads(pools, kept_rows)
    for found, groups in zip(served(plan, pools), pools, strict=True):
        np.testing.assert_array_equal(found, groups)
    assert most_kept(plan) <= kept_rows


def test_with_room_every_group_is_read_once_and_without_for_every_pool() -> None:
    pools = pools_of()
    groups = np.unique(np.concatenate(pools))
    assert sum(map(len, plan_reads(pools, 10**6))) == len(groups)
    assert sum(map(len, plan_reads(pools, 0))) == sum(len(np.unique(pool)) for pool in pools)


def test_what_is_needed_last_is_read_again() -> None:
    """Group 7 serves pools 0, 1 and 3, of one row each: there is room for one of the later two."""
    plan = plan_reads([np.array([7]), np.array([7]), np.array([8]), np.array([7])], kept_rows=1)
    assert [[(read.group, sorted(read.slots)) for read in reads] for reads in plan] == [
        [(7, [0, 1])], [], [(8, [2])], [(7, [3])],
    ]  # fmt: skip


def test_no_pools_need_no_reads() -> None:
    assert plan_reads([], 100) == []
