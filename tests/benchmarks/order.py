"""The order of samples: time and memory of its planning, and how well it shuffles beside a true permutation.

``python -m tests.benchmarks.order`` prints all tables; ``--plan``, ``--shuffle`` or ``--waiting`` prints one.

The corpus of the table on shuffling is made, in numbers alone: rows and patients as in MIMIC-IV-ECG, CODE-15%, IKEM,
SaMi-Trop and the PhysioNet 2021 challenge without PTB-XL, one source after the other in shards of 2,048 rows and
row groups of 128, with all ECGs of a patient lying next to each other. That is the worst case for an order that
reads whole row groups, and what packing makes of MIMIC's list.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ecgdist.streaming.order import Order

Ints = npt.NDArray[np.int64]

SOURCES = {
    "mimic": (800_035, 161_352),
    "code15": (345_779, 233_770),
    "ikem": (98_130, 30_290),
    "samitrop": (1_631, 1_631),
    "challenge2021": (66_416, 66_416),
}
"""Rows and patients."""

_PATIENT_SPREAD = 0.45
"""Shape of the gamma distribution of ECGs per patient beyond the first; 7 % of MIMIC's ECGs are then of patients
with one only, as in MIMIC (the largest patient has 110 here, 260 there)."""

SHARD_ROWS, GROUP_ROWS = 2048, 128
LANES, GLOBAL_BATCH, SHUFFLE_ROWS = 64, 1024, 16384
DEFAULTS = {"lanes": LANES, "global_batch": GLOBAL_BATCH, "shuffle_rows": SHUFFLE_ROWS}
"""Of `pretrain`, at this size."""


@dataclass(frozen=True)
class Layout:
    """Rows of a corpus as they lie: source and patient of each, and rows of each row group."""

    source: Ints
    patient: Ints
    group_rows: Ints

    def in_shards_of(self, rows: int, seed: int = 0) -> Layout:
        """The same rows, permuted inside every `rows` consecutive ones, as packing could write them."""
        random = np.random.default_rng(seed)
        starts = range(0, len(self.source), rows)
        moved = np.concatenate(
            [start + random.permutation(min(rows, len(self.source) - start)) for start in starts]
        )
        return Layout(self.source[moved], self.patient[moved], self.group_rows)


def make_layout(scale: int = 1, group_rows: int = GROUP_ROWS, seed: int = 0) -> Layout:
    """The layout with a `scale`-th of the rows and patients of every source."""
    random = np.random.default_rng(seed)
    patients, groups, first = [], [], 0
    for rows, people in ((r // scale, p // scale) for r, p in SOURCES.values()):
        share = random.gamma(_PATIENT_SPREAD, size=people)
        ecgs = 1 + random.multinomial(rows - people, share / share.sum())
        patients.append(np.repeat(np.arange(first, first + people), ecgs))
        whole, rest = divmod(rows, group_rows)
        groups += [group_rows] * whole + [rest] * (rest > 0)
        first += people
    source = np.repeat(np.arange(len(SOURCES)), [len(part) for part in patients])
    return Layout(source, np.concatenate(patients), np.array(groups))


class DealtOrder(Order):
    """A proposal: rows that lie next to each other go to different steps.

    The rows of a pool are dealt out like cards, in the sequence in which they lie: one to each step of the pool,
    then the next round. A round serves one half of the steps first, in random order, then the other; so two rows
    that lie closer than half as many rows as the pool has steps never meet in a batch.
    """

    def pool(self, epoch: int, lane: int, pool: int) -> tuple[Ints, Ints]:
        """Row groups and places of the rows of a pool, in the order in which the lane gives them."""
        first, last = self._pool_bounds(lane, pool)
        rows = last - first
        random = self._random(1, epoch, lane, pool)
        step = np.arange(first, last) // self.rows_per_step - first // self.rows_per_step
        # In which round each place of a step is dealt: the places of every step in random order.
        shuffled = np.lexsort((random.random(rows), step))
        dealt_in = np.empty(rows, np.int64)
        dealt_in[shuffled] = np.arange(rows) - np.searchsorted(step, step)
        half = random.permutation(step[-1] + 1) * 2 // (step[-1] + 1)
        position = np.empty(rows, np.int64)
        position[np.lexsort((random.random(rows), half[step], dealt_in))] = np.arange(first, last)
        return self._rows_at(epoch, position + lane * self.lane_rows)


def epoch_rows(order: Order, epoch: int) -> Ints:
    """``(steps, global_batch)``: the rows of every step of an epoch, by their number in the corpus."""
    first_of_group = np.cumsum(order.group_rows) - order.group_rows
    steps = order.steps_per_epoch
    lanes: list[list[Ints]] = [[] for _ in range(order.lanes)]
    for item in order.items(range(order.lanes), epoch * steps, (epoch + 1) * steps):
        groups, places = order.pool(epoch, item.lane, item.pool)
        lanes[item.lane].append(first_of_group[groups] + places)
    rows = np.stack([np.concatenate(pools).reshape(steps, order.rows_per_step) for pools in lanes], axis=1)
    return rows.reshape(steps, order.global_batch)


def permuted_rows(rows: int, global_batch: int, seed: int) -> Ints:
    """``(steps, global_batch)`` of a true random permutation of all rows."""
    steps = rows // global_batch
    shuffled: Ints = np.random.default_rng(seed).permutation(rows)
    return shuffled[: steps * global_batch].reshape(steps, global_batch)


def patient_counts(patient: Ints, batches: Ints) -> Ints:
    """Rows that each patient has in each batch where it has any, over all batches."""
    step = np.arange(len(batches))[:, None]
    _, counts = np.unique(step * (patient.max() + 1) + patient[batches], return_counts=True)
    return counts


def patient_pairs(patient: Ints, batches: Ints) -> float:
    """Pairs of two rows of one patient in a batch, on the mean over batches."""
    counts = patient_counts(patient, batches)
    return float((counts * (counts - 1)).sum() / 2 / len(batches))


def expected_patient_pairs(patient: Ints, global_batch: int) -> float:
    """Pairs in a batch of a true random permutation: all pairs, each with probability b (b - 1) / (n (n - 1))."""
    counts = np.bincount(patient).astype(float)
    rows = len(patient)
    pairs = (counts * (counts - 1)).sum() / 2
    return float(pairs * global_batch * (global_batch - 1) / (rows * (rows - 1)))


def rows_with_own_patient(patient: Ints, batches: Ints) -> float:
    """Share of rows that meet another row of their patient in their batch."""
    counts = patient_counts(patient, batches)
    return float(counts[counts > 1].sum() / batches.size)


def source_chi_square(source: Ints, batches: Ints) -> npt.NDArray[np.float64]:
    """``(steps,)`` chi-square of the sources in each batch over its degrees of freedom: 1 on the mean if random."""
    kinds = int(source.max()) + 1
    share = np.bincount(source, minlength=kinds) / len(source)
    counts = np.stack([np.bincount(batch, minlength=kinds) for batch in source[batches]])
    expected = share * batches.shape[1]
    return ((counts - expected) ** 2 / expected).sum(axis=1) / (kinds - 1)


def position_distance(rows: int, batches: Ints) -> npt.NDArray[np.float64]:
    """``(steps,)`` Kolmogorov-Smirnov distance of the rows' positions in the corpus from a uniform distribution."""
    ranks = np.arange(1, batches.shape[1] + 1) / batches.shape[1]
    places = np.sort(batches, axis=1) / rows
    above, below = ranks - places, places - (ranks - ranks[0])
    return np.maximum(above, below).max(axis=1)


def neighbours(batches: Ints, distance: int = GROUP_ROWS) -> float:
    """Share of rows that have another row of the batch within `distance` rows of theirs in the corpus."""
    gaps = np.diff(np.sort(batches, axis=1), axis=1) < distance
    edge = np.zeros((len(batches), 1), bool)
    return float((np.hstack([gaps, edge]) | np.hstack([edge, gaps])).mean())


def rows_read_per_row(order: Order, epoch: int = 0, pools: int = 200) -> float:
    """Rows in the row groups that pools touch, by rows that they take of them."""
    random = np.random.default_rng(0)
    most = order.lane_rows // order.pool_rows
    read = used = 0
    for lane in range(order.lanes):
        for pool in random.integers(1, max(2, most), max(1, pools // order.lanes)):
            groups, _ = order.pool(epoch, lane, int(pool))
            read += int(order.group_rows[np.unique(groups)].sum())
            used += len(groups)
    return read / used


@dataclass(frozen=True)
class Scheme:
    """A way to order, with what it differs in from the default."""

    kind: type[Order] = Order
    shuffle_rows: int = SHUFFLE_ROWS
    group_rows: int = GROUP_ROWS
    permuted_in: int = 1


SCHEMES = {
    "default (shuffle_rows 16,384)": Scheme(),
    "shuffle_rows 32,768": Scheme(shuffle_rows=32768),
    "shuffle_rows 65,536": Scheme(shuffle_rows=65536),
    "shuffle_rows 131,072": Scheme(shuffle_rows=131072),
    "row groups of 32": Scheme(group_rows=32),
    "dealt": Scheme(DealtOrder),
    "dealt, shuffle_rows 32,768": Scheme(DealtOrder, 32768),
    "dealt, shuffle_rows 65,536": Scheme(DealtOrder, 65536),
    "packing permutes shards": Scheme(permuted_in=SHARD_ROWS),
    "packing permutes shards, shuffle_rows 65,536": Scheme(shuffle_rows=65536, permuted_in=SHARD_ROWS),
}


def figures(layout: Layout, batches: Ints) -> list[str]:
    """The columns of the table on shuffling that a true permutation has, too."""
    pairs = patient_pairs(layout.patient, batches)
    mimic = (layout.source[batches] == 0).mean(axis=1)
    return [
        f"{pairs:.2f}",
        f"{pairs / expected_patient_pairs(layout.patient, batches.shape[1]):.1f}",
        f"{100 * rows_with_own_patient(layout.patient, batches):.2f}",
        f"{source_chi_square(layout.source, batches).mean():.2f}",
        f"{100 * mimic.std():.2f}",
        f"{position_distance(len(layout.source), batches).mean():.4f}",
        f"{100 * neighbours(batches):.1f}",
    ]


def scheme_figures(scheme: Scheme) -> list[str]:
    """A row of the table on shuffling."""
    layout = make_layout(group_rows=scheme.group_rows).in_shards_of(scheme.permuted_in)
    order = scheme.kind(layout.group_rows, seed=0, **{**DEFAULTS, "shuffle_rows": scheme.shuffle_rows})
    return [*figures(layout, epoch_rows(order, 0)), f"{rows_read_per_row(order):.2f}"]


def print_shuffle() -> None:
    """How batches of one epoch differ from those of a true random permutation."""
    layout = make_layout()
    expected = expected_patient_pairs(layout.patient, GLOBAL_BATCH)
    print(
        f"One epoch of {len(layout.source):,} rows, {LANES} lanes, batches of {GLOBAL_BATCH:,}, seed 0\n"
        f"same-patient pairs a batch | by the {expected:.2f} expected of a true permutation | % of rows with another "
        "of their patient in the batch |\nchi2/df of sources | SD of MIMIC's % | KS of positions in the corpus | "
        f"% of rows with another within {GROUP_ROWS} rows | rows read by rows used"
    )
    permuted = permuted_rows(len(layout.source), GLOBAL_BATCH, seed=0)
    print_row("true permutation", [*figures(layout, permuted), ""])
    for name, scheme in SCHEMES.items():
        print_row(name, scheme_figures(scheme))


def print_row(name: str, values: Sequence[str]) -> None:
    """A line of a table, at once: a table takes minutes."""
    print(f"{name:46}", *(f"{value:>9}" for value in values), flush=True)


def waiting_rows(order: Order, lanes: Sequence[int]) -> tuple[int, float, int]:
    """What one worker that serves `lanes` holds when it assembles a step, and its pauses in reading.

    Returns:
        Most rows, mean rows, and the most steps on end on which it starts no pool.
    """
    steps = min(order.steps_per_epoch, 20 * order.pool_rows // order.rows_per_step)
    read = np.zeros(steps, np.int64)
    for item in order.items(lanes, 0, steps):
        first, last = order._pool_bounds(item.lane, item.pool)
        read[item.step] += last - first
    held = np.cumsum(read) - np.arange(steps) * len(lanes) * order.rows_per_step
    quiet = np.diff(np.flatnonzero(read)).max() - 1
    return int(held.max()), float(held.mean()), int(quiet)


def print_waiting() -> None:
    """Rows that a worker holds, with its lanes in a row and with every W-th lane."""
    order = Order(make_layout().group_rows, seed=0, **DEFAULTS)
    print(
        "Rows that one of W workers holds (the worst of them), default order\n"
        "lanes in a row, as today: most, mean, steps on end without reading | every W-th lane: the same"
    )
    for workers in (1, 2, 4, 8, 64):
        found = []
        for lanes_of in (
            order.lanes_of,
            lambda rank, world_size: range(rank, order.lanes, world_size),
        ):
            worst = np.max([waiting_rows(order, lanes_of(rank, workers)) for rank in range(workers)], axis=0)
            found += [f"{value:,.0f}" for value in worst]
        print_row(f"W = {workers}", found)


def measure_planning(rows: int) -> list[float]:
    """Milliseconds of steps of planning, in this process, and its largest memory in MiB."""
    took = []

    def timed(action: Callable[[], object]) -> None:
        begin = time.perf_counter()
        action()
        took.append(1000 * (time.perf_counter() - begin))

    group_rows = np.full(-(-rows // GROUP_ROWS), GROUP_ROWS)
    group_rows[-1] -= len(group_rows) * GROUP_ROWS - rows
    orders: list[Order] = []
    timed(lambda: orders.append(Order(group_rows, seed=0, **DEFAULTS)))
    (order,) = orders
    late = order.steps_per_epoch * 9 // 10
    lanes = order.lanes_of(0, 1)
    timed(lambda: order.rows(0))
    timed(lambda: order.rows(late))
    timed(lambda: order.rows(7 * order.steps_per_epoch + late))
    timed(lambda: next(order.items(lanes, late, 10**12)))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return [*took, memory]


def print_planning() -> None:
    """Time and memory of planning, each size in a process of its own."""
    print(
        "Milliseconds of: making the order | its first step | a step at 90 % of that epoch | one at 90 % of epoch 7 | "
        "first pool to read from there on, one worker\nand most memory of the process in MiB"
    )
    for rows in (1_300_000, 13_000_000, 1_000_000_000):
        command = [sys.executable, "-m", "tests.benchmarks.order", "--measure", str(rows)]
        runs = [subprocess.run(command, check=True, capture_output=True, text=True) for _ in range(3)]
        median = np.median([json.loads(run.stdout) for run in runs], axis=0)
        print_row(f"{rows:,} rows", [*(f"{value:.2f}" for value in median[:-1]), f"{median[-1]:.0f}"])


PARTS: dict[str, Callable[[], None]] = {
    "--plan": print_planning,
    "--shuffle": print_shuffle,
    "--waiting": print_waiting,
}


def main(arguments: list[str]) -> None:
    """Print the tables asked for, or all; ``--measure ROWS`` prints one measurement as JSON."""
    if arguments[:1] == ["--measure"]:
        print(json.dumps(measure_planning(int(arguments[1]))))
        return
    for name in arguments or PARTS:
        PARTS[name]()
        print()


if __name__ == "__main__":
    main(sys.argv[1:])
