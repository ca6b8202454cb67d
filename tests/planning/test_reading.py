"""How much is read for what is used, against a reader that goes pool by pool."""

from __future__ import annotations

import numpy as np
import pytest

from ecgdist.planning.reading import read_amplification
from ecgdist.streaming.execution import StreamLimits
from ecgdist.streaming.order import Order

GROUPS = np.full(40, 20)


def order(lanes: int = 4, shuffle_rows: int = 200) -> Order:
    return Order(GROUPS, seed=3, lanes=lanes, global_batch=40, shuffle_rows=shuffle_rows)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_without_keeping_every_pool_reads_each_of_its_groups(workers: int) -> None:
    run, limits = order(), StreamLimits(kept_rows=0, items_per_segment=10)
    read = used = pools = 0
    for item in run.items(run.lanes_of(0, workers), 0, run.steps_per_epoch):
        groups, _ = run.pool(item.epoch, item.lane, item.pool)
        if pools < limits.items_per_segment:
            read += sum(GROUPS[group] for group in set(groups.tolist()))
            used += len(groups)
            pools += 1
    assert read_amplification(run, GROUPS, limits, workers) == pytest.approx(read / used)
    assert read > used


def test_with_room_for_all_every_group_is_read_once() -> None:
    run, limits = order(), StreamLimits(kept_rows=10_000, items_per_segment=10_000)
    touched: set[int] = set()
    used = 0
    for item in run.items(range(4), 0, run.steps_per_epoch):
        groups, _ = run.pool(item.epoch, item.lane, item.pool)
        touched |= set(groups.tolist())
        used += len(groups)
    assert read_amplification(run, GROUPS, limits, 1) == pytest.approx(20 * len(touched) / used)


def test_rows_that_are_not_selected_are_read_with_the_others() -> None:
    limits = StreamLimits()
    plain = read_amplification(order(), GROUPS, limits, 1)
    assert read_amplification(order(), 2 * GROUPS, limits, 1) == pytest.approx(2 * plain)
