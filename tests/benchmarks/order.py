"""The order of samples: time and memory of its planning, and how well it shuffles beside a true permutation.

``python -m tests.benchmarks.order`` takes two minutes, prints its tables and writes its section of ``RESULTS.md``.

The corpus that is shuffled is made, in numbers alone: rows and patients as in MIMIC-IV-ECG, CODE-15%, IKEM,
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
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ecgdist.streaming.order import Order
from tests.benchmarks.results import cell, table, write_section

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

REPEATS = 5


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


class SpreadOrder(Order):
    """A proposal: the ends of pools of neighbouring lanes, which one worker serves, lie apart, not in a row."""

    def _first_pool_rows(self, lane: int) -> int:
        # Multiples of the golden ratio are spread evenly however many neighbours are taken.
        return self.pool_rows - lane * 618_034 % 1_000_000 * self.pool_rows // 1_000_000


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
    statistic: npt.NDArray[np.float64] = ((counts - expected) ** 2 / expected).sum(axis=1) / (kinds - 1)
    return statistic


def position_distance(rows: int, batches: Ints) -> npt.NDArray[np.float64]:
    """``(steps,)`` Kolmogorov-Smirnov distance of the rows' positions in the corpus from a uniform distribution."""
    ranks = np.arange(1, batches.shape[1] + 1) / batches.shape[1]
    places = np.sort(batches, axis=1) / rows
    above, below = ranks - places, places - (ranks - ranks[0])
    distance: npt.NDArray[np.float64] = np.maximum(above, below).max(axis=1)
    return distance


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
    """What can be said of a true permutation, too: the columns `SHUFFLE_COLUMNS` but the last."""
    pairs, size = patient_pairs(layout.patient, batches), batches.shape[1]
    mimic = (layout.source[batches] == 0).mean(axis=1)
    return [
        f"{pairs:.2f}",
        f"{pairs / expected_patient_pairs(layout.patient, size):.1f}",
        f"{100 * rows_with_own_patient(layout.patient, batches):.2f}",
        f"{size / (1 + 2 * pairs / size):,.0f}",
        f"{source_chi_square(layout.source, batches).mean():.2f}",
        f"{100 * mimic.std():.2f}",
        f"{position_distance(len(layout.source), batches).mean():.4f}",
        f"{100 * neighbours(batches):.1f}",
    ]


SHUFFLE_COLUMNS = (
    "order",
    "same-patient pairs a batch",
    "by those expected of a permutation",
    "% of rows with another of their patient",
    "independent rows",
    "chi2/df of sources",
    "SD of MIMIC's %",
    "KS of positions",
    f"% of rows with another within {GROUP_ROWS}",
    "rows of touched groups by rows used",
)


def shuffle_row(name: str, scheme: Scheme) -> list[str]:
    """One order in the table on shuffling."""
    layout = make_layout(group_rows=scheme.group_rows).in_shards_of(scheme.permuted_in)
    order = scheme.kind(layout.group_rows, seed=0, **{**DEFAULTS, "shuffle_rows": scheme.shuffle_rows})
    return [name, *figures(layout, epoch_rows(order, 0)), f"{rows_read_per_row(order):.2f}"]


def shuffle_paragraphs() -> list[str]:
    """How batches of one epoch differ from those of a true random permutation."""
    layout = make_layout()
    expected = expected_patient_pairs(layout.patient, GLOBAL_BATCH)
    permuted = permuted_rows(len(layout.source), GLOBAL_BATCH, seed=0)
    rows = [["true permutation", *figures(layout, permuted), "-"]]
    rows += [shuffle_row(name, scheme) for name, scheme in SCHEMES.items()]
    return [
        f"### Shuffling\n\nOne epoch of {len(layout.source):,} rows made in numbers: rows and patients of "
        f"{', '.join(SOURCES)}, one source after the other, all ECGs of a patient next to each other (the worst "
        f"case). {LANES} lanes, batches of {GLOBAL_BATCH:,}, seed 0; a true permutation is expected to have "
        f"{expected:.2f} pairs of ECGs of one patient in a batch. *Independent rows*: what a batch averages like if "
        "the gradients of a patient's ECGs are equal, b / (1 + 2 pairs / b).",
        table(SHUFFLE_COLUMNS, rows),
        _SHUFFLE_NOTES,
    ]


_SHUFFLE_NOTES = """What differs from a true permutation, and what it means:

* Every row is equally likely at every step of an epoch, as in a true permutation (tested). What differs is who
  meets whom.
* A patient's ECGs meet. By default a lane's pool of 256 rows comes from three row groups, and 16 rows of it go to
  each of 16 steps: two rows of one pool meet with probability 1/17, instead of 1/1,282. The contrastive loss takes
  no ECG of the same patient for a negative, so no wrong negatives come of it, and a row loses 0.4 of its 1,023;
  what it costs is variety (*independent rows*).
* Sources clump: the variance of a source's share of a batch is that of fewer rows, by up to 1 + 15 x 5/12 = 7.25
  (Kish's design effect, for 16 rows of a pool of two groups' size that lies anywhere).
* A pool of 256 rows touches three groups of 128: read by itself, it throws a third of them away. Larger pools do not.

Not built, but measured for comparison: *dealt* gives neighbouring rows of a pool to different steps (`DealtOrder`), and
*packing permutes shards* permutes the records inside each shard of 2,048. Neither costs anything in reading or memory.
A larger `shuffle_rows` costs memory and the wait for the first batch, both in proportion."""


def waiting_rows(order: Order, lanes: range) -> tuple[int, float, int]:
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


def waiting_paragraphs() -> list[str]:
    """What a worker holds, with pools that end lane after lane and with such that end spread."""
    group_rows = make_layout().group_rows
    rows = []
    for workers in (1, 2, 3, 4, 8, 64):
        line = [str(workers)]
        for kind in (Order, SpreadOrder):
            order = kind(group_rows, seed=0, **DEFAULTS)
            ranks = [waiting_rows(order, order.lanes_of(rank, workers)) for rank in range(workers)]
            line += [f"{value:,.0f}" for value in np.max(ranks, axis=0)]
        rows.append(line)
    columns = ["workers", "most rows", "mean", "steps on end without reading"]
    return [
        "### Rows that a worker holds\n\nThe worst of the workers, default order; beside it one, not built, whose "
        "pools end spread over the neighbouring lanes that a worker serves (`SpreadOrder`). Reading ahead evens out "
        "pauses as far as `data.stream.object_store_bytes` reaches. A row is 60 kB.",
        table([*columns, *(f"spread: {name}" for name in columns[1:])], rows),
    ]


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


def planning_paragraphs() -> list[str]:
    """Time and memory of planning, each time in a process of its own."""
    rows = []
    for size in (1_300_000, 13_000_000, 1_000_000_000):
        command = [sys.executable, "-m", "tests.benchmarks.order", "--measure", str(size)]
        runs = [subprocess.run(command, check=True, capture_output=True, text=True) for _ in range(REPEATS)]
        *took, memory = zip(*(json.loads(run.stdout) for run in runs), strict=True)
        rows.append([f"{size:,}", *(cell(values, 1) for values in took), cell(memory)])
    columns = (
        "rows",
        "make the order",
        "its first step",
        "a step at 90 % of that epoch",
        "one at 90 % of epoch 7",
        "first pool to read from there on",
        "most MiB of the process",
    )
    return [
        f"### Planning\n\nMilliseconds, and memory of a process that does nothing else; {REPEATS} processes each. "
        "What grows is the permutation of the row groups, made once an epoch and process.",
        table(columns, rows),
    ]


def main(arguments: list[str]) -> None:
    """Measure and write, or, with ``--measure ROWS``, print one measurement of planning as JSON."""
    if arguments[:1] == ["--measure"]:
        print(json.dumps(measure_planning(int(arguments[1]))))
        return
    paragraphs = [*planning_paragraphs(), *shuffle_paragraphs(), *waiting_paragraphs()]
    print("\n\n".join(paragraphs))
    write_section("Order", "python -m tests.benchmarks.order", paragraphs)


if __name__ == "__main__":
    main(sys.argv[1:])
