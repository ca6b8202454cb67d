"""The order of samples: over many settings, every row at most once an epoch, and the same for any workers."""

from __future__ import annotations

import hashlib
import pickle
import random
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgdist.errors import ConfigError
from ecgdist.streaming.order import Order

Row = tuple[int, int]


@st.composite
def orders(draw: st.DrawFn) -> Order:
    groups = draw(st.lists(st.integers(0, 40), min_size=1, max_size=30).filter(lambda sizes: sum(sizes) > 0))
    lanes = draw(st.integers(1, min(12, sum(groups))))
    most = sum(groups) // lanes
    batch = lanes * draw(st.integers(1, most))
    return Order(
        groups,
        seed=draw(st.integers(0, 2**32)),
        lanes=lanes,
        global_batch=batch,
        shuffle_rows=draw(st.integers(1, 400)),
    )


def global_batch(order: Order, step: int) -> list[Row]:
    return list(zip(*(column.tolist() for column in order.rows(step)), strict=True))


def served(order: Order, world_size: int, start: int, end: int) -> list[list[Row]]:
    """Global batches as `world_size` workers assemble them from the pools that they are told to read."""
    batches: list[list[Row]] = [[] for _ in range(start, end)]
    for rank in range(world_size):
        lanes = order.lanes_of(rank, world_size)
        waiting: dict[int, list[Row]] = {lane: [] for lane in lanes}
        items = list(order.items(lanes, start, end))
        assert items == sorted(items, key=lambda item: item.step)
        for item in items:
            groups, places = order.pool(item.epoch, item.lane, item.pool)
            waiting[item.lane].extend(
                zip(groups[item.skip :].tolist(), places[item.skip :].tolist(), strict=True)
            )
        q = order.rows_per_step
        for lane in lanes:
            for number, batch in enumerate(batches):
                batch.extend(waiting[lane][number * q : (number + 1) * q])
    return batches


@settings(max_examples=300, deadline=None)
@given(order=orders(), data=st.data())
def test_every_row_at_most_once_an_epoch_and_the_leftover_is_named(order: Order, data: st.DataObject) -> None:
    epoch = data.draw(st.integers(0, 5))
    first = epoch * order.steps_per_epoch
    trained = [
        row for step in range(first, first + order.steps_per_epoch) for row in global_batch(order, step)
    ]
    leftover = list(zip(*(column.tolist() for column in order.leftover(epoch)), strict=True))
    everything = [(g, r) for g, rows in enumerate(order.group_rows.tolist()) for r in range(rows)]
    assert sorted(trained + leftover) == everything
    assert len(leftover) < order.global_batch


@settings(max_examples=300, deadline=None)
@given(order=orders(), data=st.data())
def test_workers_restarts_and_resizes_do_not_change_the_batches(order: Order, data: st.DataObject) -> None:
    world_size = data.draw(st.integers(1, order.lanes))
    start = data.draw(st.integers(0, 3 * order.steps_per_epoch))
    end = start + data.draw(st.integers(1, 2 * order.steps_per_epoch + 1))
    assert served(order, world_size, start, end) == [global_batch(order, step) for step in range(start, end)]


@settings(max_examples=100, deadline=None)
@given(order=orders(), data=st.data())
def test_lanes_are_shared_out_evenly_and_completely(order: Order, data: st.DataObject) -> None:
    world_size = data.draw(st.integers(1, order.lanes))
    lanes = [order.lanes_of(rank, world_size) for rank in range(world_size)]
    assert [lane for part in lanes for lane in part] == list(range(order.lanes))
    assert max(map(len, lanes)) - min(map(len, lanes)) <= 1
    positions = np.concatenate([order.positions_of(rank, world_size) for rank in range(world_size)])
    assert positions.tolist() == list(range(order.global_batch))


def make(**changes: int) -> Order:
    values = {"seed": 1, "lanes": 4, "global_batch": 8, "shuffle_rows": 64}
    return Order([16] * 20, **{**values, **changes})


def test_seed_and_epoch_change_the_order() -> None:
    order, other = make(), make(seed=2)
    assert global_batch(order, 0) != global_batch(other, 0)
    assert global_batch(order, 0) != global_batch(order, order.steps_per_epoch)
    assert global_batch(order, 0) == global_batch(make(), 0)


def test_every_row_is_left_over_now_and_then() -> None:
    order = Order([10] * 9, seed=0, lanes=4, global_batch=16, shuffle_rows=32)
    counts = np.zeros((9, 10), int)
    for epoch in range(900):
        np.add.at(counts, order.leftover(epoch), 1)
    assert counts.sum() == 900 * 10
    assert counts.min() > 50
    assert counts.max() < 160


def test_pools_of_different_lanes_end_at_different_steps() -> None:
    order = Order([128] * 64, seed=0, lanes=8, global_batch=8, shuffle_rows=1024)
    starts = [item.step for item in order.items(range(8), 0, order.steps_per_epoch) if item.pool > 0]
    busiest = max(starts.count(step) for step in set(starts))
    assert busiest == 1


@pytest.mark.parametrize(
    ("group_rows", "settings", "digest"),
    [
        ([16] * 20, {"seed": 1, "lanes": 4, "global_batch": 8, "shuffle_rows": 64}, "baae5beb94941a93"),
        (
            [7, 0, 30, 1, 0, 12],
            {"seed": 2**40, "lanes": 3, "global_batch": 6, "shuffle_rows": 1},
            "49ed1547cd83679b",
        ),
        (
            [128] * 999 + [57],
            {"seed": 0, "lanes": 64, "global_batch": 1024, "shuffle_rows": 16384},
            "286e94c2f08c000d",
        ),
    ],
)
def test_the_order_is_that_of_runs_already_made(
    group_rows: list[int], settings: dict[str, int], digest: str
) -> None:
    order = Order(group_rows, **settings)
    found = hashlib.sha256()
    for step in range(0, 3 * order.steps_per_epoch, max(1, order.steps_per_epoch // 7)):
        found.update(np.stack(order.rows(step)).astype("<i8").tobytes())
    found.update(np.stack(order.leftover(1)).astype("<i8").tobytes())
    assert found.hexdigest()[:16] == digest, "runs in progress would go on with other batches"


def test_pools_are_planned_when_they_are_asked_for() -> None:
    order = Order(np.full(7_812_500, 128), seed=0, lanes=64, global_batch=1024, shuffle_rows=16384)
    assert order.num_rows == 10**9
    tracemalloc.start()
    try:
        # The list of one epoch's pools would take hundreds of megabytes.
        items = order.items(order.lanes_of(0, 1), 900_000, 10**12)
        steps = [next(items).step for _ in range(1000)]
        # All lanes at first; then four of the 64 are through their 16 steps' rows on every step.
        assert (steps[:64], steps[-1]) == ([900_000] * 64, 900_000 + (1000 - 64) // 4)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_step_of_a_billion_rows_is_found_in_little_memory() -> None:
    order = Order(np.full(7_812_500, 128), seed=0, lanes=64, global_batch=1024, shuffle_rows=16384)
    tracemalloc.start()
    try:
        for step in (0, 900_000, 5_000_000):
            groups, places = order.rows(step)
            assert len(set(zip(groups.tolist(), places.tolist(), strict=True))) == 1024
        # Twelve bytes a row group for each of two epochs, and as much again while one is laid out.
        assert tracemalloc.get_traced_memory()[1] < 400_000_000
    finally:
        tracemalloc.stop()


def test_copies_of_an_order_share_the_layout_of_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    make_epoch = Order._make_epoch

    def counted(order: Order, epoch: int) -> Any:
        made.append(epoch)
        return make_epoch(order, epoch)

    monkeypatch.setattr(Order, "_make_epoch", counted)
    order = make(seed=77)
    text = pickle.dumps(order)
    for _ in range(3):
        pickle.loads(text).pool(0, 1, 0)  # noqa: S301 - it was made above
    assert made == [0]
    pickle.loads(text).pool(1, 1, 0)  # noqa: S301 - as before
    make(seed=78).pool(0, 1, 0)
    assert made == [0, 1, 0]


def test_an_order_travels_to_read_tasks() -> None:
    order = make()
    copy = pickle.loads(pickle.dumps(order))  # noqa: S301 - it was made in the same line
    assert [global_batch(copy, step) for step in range(5)] == [global_batch(order, step) for step in range(5)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"global_batch": 10}, "global_batch = 10 is no multiple of lanes = 4; use 8 or 12"),
        ({"global_batch": 400}, "more than the 320 selected rows"),
        ({"lanes": 0}, "must be at least 1"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**changes)


def test_more_workers_than_lanes_are_refused() -> None:
    with pytest.raises(ConfigError, match="5 workers for lanes = 4"):
        make().lanes_of(0, 5)


def test_a_pool_mixes_rows_of_several_groups() -> None:
    order = Order([128] * 100, seed=0, lanes=4, global_batch=64, shuffle_rows=4096)
    groups, _ = order.pool(0, 2, 1)
    assert len(groups) == 1024
    assert len(set(groups.tolist())) >= 8
    assert len(set(random.Random(0).sample(groups.tolist(), 64))) >= 5
