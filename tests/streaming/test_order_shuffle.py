"""How well the order shuffles: what ``python -m tests.benchmarks.order --shuffle`` measures, and its bounds."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import chi2, kstest

from ecgdist.streaming.order import Order
from tests.benchmarks.order import (
    DEFAULTS,
    GLOBAL_BATCH,
    DealtOrder,
    Ints,
    Layout,
    epoch_rows,
    expected_patient_pairs,
    make_layout,
    neighbours,
    patient_pairs,
    permuted_rows,
    position_distance,
    rows_read_per_row,
    rows_with_own_patient,
    source_chi_square,
)


@pytest.fixture(scope="module")
def layout() -> Layout:
    """A quarter of the 1.3 million: 327,000 rows in 320 steps of 1,024."""
    return make_layout(scale=4)


def order_of(layout: Layout, kind: type[Order] = Order, **changes: int) -> Order:
    return kind(layout.group_rows, seed=0, **{**DEFAULTS, **changes})


def test_figures_are_those_counted_by_hand() -> None:
    patient = np.array([0, 0, 0, 1, 1, 2, 3, 4])
    source = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    batches = np.array([[0, 3, 2, 6], [5, 4, 7, 1]])
    assert patient_pairs(patient, batches) == 0.5  # one pair in the first batch, none in the second
    assert rows_with_own_patient(patient, batches) == 2 / 8
    assert source_chi_square(source, batches).tolist() == [(1 + 1) / 2, (1 + 1) / 2]
    assert neighbours(batches, distance=2) == 4 / 8  # 2 and 3, 4 and 5
    distances = [kstest((batch + 0.0) / 8, "uniform").statistic for batch in batches]
    np.testing.assert_allclose(position_distance(8, batches), distances)
    pairs = [patient[list(pair)] for pair in combinations(range(8), 2)]
    same = sum(a == b for a, b in pairs)
    assert expected_patient_pairs(patient, 4) == pytest.approx(same * (4 * 3) / (8 * 7))


def test_a_true_permutation_has_the_figures_expected_of_one(layout: Layout) -> None:
    batches = permuted_rows(len(layout.source), GLOBAL_BATCH, seed=3)
    assert patient_pairs(layout.patient, batches) == pytest.approx(
        expected_patient_pairs(layout.patient, GLOBAL_BATCH), rel=0.05
    )
    assert source_chi_square(layout.source, batches).mean() == pytest.approx(1, abs=0.15)
    # Kolmogorov: the mean distance is sqrt(pi / 2) ln 2 / sqrt(n).
    kolmogorov = np.sqrt(np.pi / 2) * np.log(2) / np.sqrt(GLOBAL_BATCH)
    assert position_distance(len(layout.source), batches).mean() == pytest.approx(kolmogorov, rel=0.05)


def test_same_patient_pairs_are_as_many_as_pools_of_random_order_give(layout: Layout) -> None:
    """Rows of a pool of n meet in a step that takes m of them with probability m (m - 1) / (n (n - 1))."""
    order = order_of(layout)
    first = np.cumsum(layout.group_rows) - layout.group_rows
    expected, apart = 0.0, _pairs(np.bincount(layout.patient))
    for item in order.items(range(order.lanes), 0, order.steps_per_epoch):
        groups, places = order.pool(0, item.lane, item.pool)
        _, counts = np.unique(layout.patient[first[groups] + places], return_counts=True)
        begin, end = order._pool_bounds(item.lane, item.pool)
        _, taken = np.unique(np.arange(begin, end) // order.rows_per_step, return_counts=True)
        apart -= _pairs(counts)
        expected += _pairs(counts) * _pairs(taken) / _pairs(np.array([end - begin]))
    # Rows of different pools meet as in a true permutation.
    expected += apart * (GLOBAL_BATCH - 1) / (order.num_rows - 1)
    found = patient_pairs(layout.patient, epoch_rows(order, 0)) * order.steps_per_epoch
    assert found == pytest.approx(expected, rel=0.02)
    assert 190 < found / order.steps_per_epoch < 240


def _pairs(counts: Ints) -> float:
    return float((counts * (counts - 1)).sum() / 2)


def test_batches_are_as_mixed_as_their_pools(layout: Layout) -> None:
    """A step's q rows of a lane come from two or three groups, so they count as fewer rows drawn by chance.

    With a share c of pairs of a pool's rows in one group, the variance of a share is 1 + (q - 1) c times that of
    a random sample (Kish's design effect); for pools of two groups' size that lie anywhere, c = 5 / 12.
    """
    order = order_of(layout)
    batches = epoch_rows(order, 0)
    effect = 1 + (order.rows_per_step - 1) * 5 / 12
    assert 0.75 * effect < source_chi_square(layout.source, batches).mean() < 1.15 * effect
    kolmogorov = np.sqrt(np.pi / 2) * np.log(2) / np.sqrt(GLOBAL_BATCH)
    distance = position_distance(len(layout.source), batches).mean()
    assert 0.8 * effect**0.5 * kolmogorov < distance < 1.1 * effect**0.5 * kolmogorov
    assert rows_read_per_row(order) == pytest.approx(1.5, abs=0.02)


def test_every_row_is_as_likely_at_every_step() -> None:
    order = Order([10] * 9, seed=0, lanes=4, global_batch=16, shuffle_rows=32)
    epochs = 1500
    counts = np.zeros((90, order.steps_per_epoch), int)
    for epoch in range(epochs):
        rows = epoch_rows(order, epoch)
        counts[rows, np.arange(order.steps_per_epoch)[:, None]] += 1
    expected = epochs * 16 / 90
    statistic = ((counts - expected) ** 2 / expected).sum(axis=0)
    # Rows of a group go together, so the steps' statistics scatter more than those of independent draws.
    assert (statistic / 89).max() < 1.5
    assert abs(counts - expected).max() < chi2.isf(1e-6, 1) ** 0.5 * expected**0.5


def test_what_is_proposed_is_an_order_with_fewer_pairs(layout: Layout) -> None:
    order = order_of(layout, DealtOrder, shuffle_rows=65536)
    rows = epoch_rows(order, 0)
    assert len(np.unique(rows)) == rows.size
    larger = patient_pairs(layout.patient, epoch_rows(order_of(layout, shuffle_rows=65536), 0))
    assert 50 < larger < 70
    assert patient_pairs(layout.patient, rows) < expected_patient_pairs(layout.patient, GLOBAL_BATCH)
