"""The promises of the order over a grid of 2,400 settings, each drawn from its number alone."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from ecgdist.streaming.order import Order

Ints = npt.NDArray[np.int64]

PARTS, SETTINGS_PER_PART = 24, 100


@dataclass(frozen=True)
class Stretch:
    """One life of a run: `workers` serve ``start ... end - 1``; the next life may begin before `end`."""

    workers: int
    start: int
    end: int


@dataclass(frozen=True)
class Setting:
    """An order, an epoch to look at, and a run over it with restarts and resizes."""

    order: Order
    epoch: int
    stretches: tuple[Stretch, ...]


def setting(number: int) -> Setting:
    draw = random.Random(number)
    group_rows = _group_rows(draw)
    rows = sum(group_rows)
    lanes = draw.randint(1, min(rows, draw.choice([1, 3, 8, 16, 64])))
    least_q = max(1, rows // lanes // 12)
    q = draw.randint(least_q, min(rows // lanes, 3 * least_q))
    order = Order(
        group_rows,
        seed=draw.getrandbits(40),
        lanes=lanes,
        global_batch=lanes * q,
        shuffle_rows=draw.choice([1, rows // 8 + 1, draw.randint(1, rows), 3 * rows]),
    )
    return Setting(order, draw.randint(0, 10_000), tuple(_stretches(draw, order)))


def _group_rows(draw: random.Random) -> list[int]:
    """Even groups with a short last one, as a packed source has; or uneven ones; or mostly empty ones."""
    count, size = draw.randint(1, 40), draw.randint(1, 24)
    kind = draw.choice(["even", "uneven", "sparse"])
    if kind == "even":
        return [size] * (count - 1) + [draw.randint(1, size)]
    if kind == "uneven":
        return [draw.randint(1, 2 * size) for _ in range(count)]
    return [draw.choice([0, 0, draw.randint(1, size)]) for _ in range(count)] + [size, 0]


def _stretches(draw: random.Random, order: Order) -> list[Stretch]:
    """Three lives, of other numbers of workers, from a random step on; each begins at a step of the one before."""
    begin = draw.randint(0, 3 * order.steps_per_epoch)
    found = []
    for _ in range(3):
        end = begin + draw.randint(1, order.steps_per_epoch + 2)
        found.append(Stretch(draw.randint(1, order.lanes), begin, end))
        begin = draw.randint(begin, end)
    return found


def numbers(order: Order, rows: tuple[Ints, Ints]) -> Ints:
    """Rows as numbers from 0 on through all row groups."""
    groups, places = rows
    assert (places >= 0).all()
    assert (places < order.group_rows[groups]).all()
    first: Ints = np.cumsum(order.group_rows) - order.group_rows
    return first[groups] + places


def rank_part(order: Order, rank: int, stretch: Stretch) -> Ints:
    """``(steps, rows)``: what a rank takes of every step, as it puts it together from its pools."""
    lanes = order.lanes_of(rank, stretch.workers)
    arrived: dict[int, list[Ints]] = {lane: [] for lane in lanes}
    items = list(order.items(lanes, stretch.start, stretch.end))
    assert items == sorted(items, key=lambda item: (item.step, item.lane))
    for item in items:
        pool = numbers(order, order.pool(item.epoch, item.lane, item.pool))
        rows_before = sum(map(len, arrived[item.lane]))
        assert item.step == stretch.start + rows_before // order.rows_per_step
        arrived[item.lane].append(pool[item.skip :])
    steps, q = stretch.end - stretch.start, order.rows_per_step
    taken = [np.concatenate(arrived[lane])[: steps * q].reshape(steps, q) for lane in lanes]
    return np.concatenate(taken, axis=1)


def check_epoch(order: Order, epoch: int) -> None:
    """Each row at most once; what no step takes is named."""
    first = epoch * order.steps_per_epoch
    batches = [numbers(order, order.rows(first + step)) for step in range(order.steps_per_epoch)]
    assert {len(batch) for batch in batches} == {order.global_batch}
    leftover = numbers(order, order.leftover(epoch))
    assert len(leftover) < order.global_batch
    assert np.array_equal(np.sort(np.concatenate([*batches, leftover])), np.arange(order.num_rows))


def check_run(order: Order, stretches: tuple[Stretch, ...]) -> None:
    """Whoever serves a step, and from wherever it began: the ranks' parts make up its global batch."""
    for stretch in stretches:
        expected = np.stack([numbers(order, order.rows(step)) for step in range(stretch.start, stretch.end)])
        positions = [order.positions_of(rank, stretch.workers) for rank in range(stretch.workers)]
        assert np.array_equal(np.concatenate(positions), np.arange(order.global_batch))
        rows_of_ranks = {len(part) // order.rows_per_step for part in positions}
        assert rows_of_ranks <= {order.lanes // stretch.workers, -(-order.lanes // stretch.workers)}
        for rank, part in enumerate(positions):
            assert np.array_equal(rank_part(order, rank, stretch), expected[:, part])


def check_reading_is_even(order: Order, epoch: int) -> None:
    """Few lanes start a pool on the same step, and a step finds little more than half of every pool waiting."""
    first = epoch * order.steps_per_epoch
    lanes, q, pool_rows = order.lanes, order.rows_per_step, order.pool_rows
    started: Counter[int] = Counter()
    read: Counter[int] = Counter()
    for item in order.items(range(lanes), first, first + order.steps_per_epoch):
        started[item.step] += item.pool > 0
        read[item.step] += len(order.pool(item.epoch, item.lane, item.pool)[0])
    assert max(started.values()) <= lanes * q // pool_rows + 2
    waiting = 0
    for step in range(first, first + order.steps_per_epoch):
        waiting += read[step]
        # Pools lie pool_rows / lanes apart, so they are half used on the mean; the rest is the step's own rows.
        assert waiting <= pool_rows * (lanes + 5) // 2 + order.global_batch + lanes
        waiting -= order.global_batch
    assert waiting == 0


@pytest.mark.parametrize(
    "part",
    [
        pytest.param(part, marks=(pytest.mark.slow, pytest.mark.extra)) if part % 4 else part
        for part in range(PARTS)
    ],
)
def test_the_order_keeps_its_promises(part: int) -> None:
    for number in range(part * SETTINGS_PER_PART, (part + 1) * SETTINGS_PER_PART):
        case = setting(number)
        try:
            check_epoch(case.order, case.epoch)
            check_run(case.order, case.stretches)
            check_reading_is_even(case.order, case.epoch)
        except AssertionError as error:
            raise AssertionError(f"setting {number}") from error


def test_the_leftover_differs_over_epochs() -> None:
    orders = [setting(number).order for number in range(PARTS * SETTINGS_PER_PART)]
    orders = [order for order in orders if order.num_rows > 40 and order.num_rows % order.global_batch]
    same = 0
    for order in orders:
        named = [np.sort(numbers(order, order.leftover(epoch))) for epoch in range(4)]
        assert not all(np.array_equal(named[0], other) for other in named[1:])
        same += np.array_equal(named[0], named[1])
    assert len(orders) > 1000
    # Two epochs leave the same rows over by chance at most, in settings with few rows.
    assert same < len(orders) // 50


def test_the_grid_has_what_it_is_there_for() -> None:
    cases = [setting(number) for number in range(PARTS * SETTINGS_PER_PART)]
    stretches = [(case.order, stretch) for case in cases for stretch in case.stretches]
    assert sum(order.lanes % stretch.workers > 0 for order, stretch in stretches) > 2000
    assert sum(stretch.start % order.steps_per_epoch > 0 for order, stretch in stretches) > 4000
    assert sum(case.order.pool_rows > case.order.lane_rows for case in cases) > 300
    assert sum(case.order.pool_rows == case.order.rows_per_step for case in cases) > 300
    assert sum((case.order.group_rows == 0).any() for case in cases) > 500
    assert sum(case.order.num_rows % case.order.global_batch > 0 for case in cases) > 1000
