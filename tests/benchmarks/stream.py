"""How fast batches come: the ordered stream through Ray Data, beside a plain loop over the same pools.

Run with ``make bench``. Both sides read the same rows in the same order in one run, alternately, several
times; the table shows median and range. The corpus is the shipped sample, in the page cache: this measures
us, not a disk.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from ecgdist.corpus import Corpus
from ecgdist.packing import PackConfig, pack
from ecgdist.raytools import ray_session
from ecgdist.sample import sample_folder
from ecgdist.streaming.batches import rank_batches
from ecgdist.streaming.execution import StreamLimits, pool_tables
from ecgdist.streaming.order import Order, PoolItem
from ecgdist.streaming.pool import PoolReader
from ecgdist.streaming.selection import select_rows

REPEATS = 5
STEPS = 400
GLOBAL_BATCH = 64

Tables = Callable[[Iterator[PoolItem]], Iterator[pa.Table]]


def ecg_per_second(reader: PoolReader, tables: Tables, num_samples: int) -> float:
    """ECGs per second of one worker, from the first batch to the last."""
    batches = rank_batches(reader.order, 0, 1, 0, STEPS, num_samples, tables)
    next(batches)
    began = time.perf_counter()
    rows = sum(len(batch.row_ids) for batch in batches)
    return rows / (time.perf_counter() - began)


def measure(folder: Path) -> dict[str, list[float]]:
    """Both sides, alternately."""
    corpus = pack(PackConfig(sources=(f"ptbxl={sample_folder()}",), out=str(folder / "corpus"))).corpus
    selection, _ = select_rows(Corpus(corpus.location))
    order = Order(selection.group_rows, seed=0, lanes=8, global_batch=GLOBAL_BATCH, shuffle_rows=512)
    reader = PoolReader(corpus.location, corpus.corpus_id, order, selection)
    sides: dict[str, Tables] = {
        "plain loop, one process": lambda items: (reader.read(item) for item in items),
        "Ray Data": lambda items: pool_tables(items, reader.read, StreamLimits()),
    }
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(REPEATS):
        for name, tables in sides.items():
            found[name].append(ecg_per_second(reader, tables, corpus.num_samples))
    return found


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as temporary, ray_session(num_cpus=4):
        found = measure(Path(temporary))
    table = Table(
        title=f"{STEPS} batches of {GLOBAL_BATCH}, {REPEATS} repeats: ECG/s, and share of the plain loop"
    )
    for column in ("", "median", "range", "share: median", "range"):
        table.add_column(column, justify="right" if column else "left")
    plain = found["plain loop, one process"]
    for name, values in found.items():
        shares = [value / base for value, base in zip(values, plain, strict=True)]
        table.add_row(
            name,
            f"{statistics.median(values):,.0f}",
            f"{min(values):,.0f} to {max(values):,.0f}",
            f"{statistics.median(shares):.2f}",
            f"{min(shares):.2f} to {max(shares):.2f}",
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
