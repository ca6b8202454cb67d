"""The stream by itself: a resume, a step that computes, memory, and several consumers."""

from __future__ import annotations

import argparse
import os
import statistics
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import psutil
import ray
import torch
from ray._private import internal_api

from ecgdist.corpus import Corpus
from ecgdist.raytools import ray_session
from ecgdist.streaming.batches import RankBatch, rank_batches, read_ahead
from ecgdist.streaming.execution import StreamLimits, pool_tables
from ecgdist.streaming.order import Order
from ecgdist.streaming.pool import PoolReader
from ecgdist.streaming.selection import select_rows
from tests.benchmarks.peers import data
from tests.benchmarks.results import cell, table, write_section

COMMAND = "python -m tests.benchmarks.stream --part"
LANES = 16
BATCH = 128
SHUFFLE_ROWS = 4096
STEP_S = 0.1
"""Seconds of computing in a step: 1,280 ECG/s, more than any model of ours trains at on a GPU's share of cores."""
STORE_BYTES = 80_000_000
LIMIT_BYTES = 30_000_000
CONSUMERS = (1, 2, 4)


class Stream:
    """The benchmark's corpus and its order."""

    def __init__(self, folder: Path, limits: StreamLimits | None = None) -> None:
        self.corpus = Corpus(folder)
        selection, _ = select_rows(self.corpus)
        self.order = Order(
            selection.group_rows, seed=0, lanes=LANES, global_batch=BATCH, shuffle_rows=SHUFFLE_ROWS
        )
        self.reader = PoolReader(self.corpus.location, self.corpus.corpus_id, self.order, selection)
        self.limits = limits or StreamLimits()

    def batches(
        self, start: int, end: int, rank: int = 0, ranks: int = 1
    ) -> Generator[RankBatch, None, None]:
        return read_ahead(
            rank_batches(
                self.order, rank, ranks, start, end, self.corpus.num_samples,
                lambda items: pool_tables(items, self.reader.read, self.limits),
            )
        )  # fmt: skip


def _folder() -> Path:
    folders, _ = data.folders(sides=("ours",))
    return folders["ours"]


def resume(arguments: argparse.Namespace) -> None:
    """Time to the first batch at 90 % of an epoch and at its start, in turn."""
    starts: dict[str, list[float]] = {"at the start": [], "at 90 % of the epoch": []}
    with ray_session(num_cpus=4):
        stream = Stream(_folder())
        per_epoch = stream.order.steps_per_epoch
        places = dict(zip(starts, (0, per_epoch * 9 // 10), strict=True))
        _first_batch_s(stream, 0)  # the first of all starts the processes
        for _ in range(arguments.repeats):
            for name, step in places.items():
                starts[name].append(_first_batch_s(stream, step))
    ratios = [late / early for early, late in zip(*starts.values(), strict=True)]
    lines = [[name, cell(values, 2)] for name, values in starts.items()]
    lines.append(["ratio, repeat by repeat", cell(ratios, 2)])
    what = f"Seconds to the first batch of a stream, {per_epoch} steps of {BATCH} an epoch; Ray is running."
    write_section(
        "Resume", f"{COMMAND} resume --repeats {arguments.repeats}", [what, table(["", "s"], lines)]
    )


def _first_batch_s(stream: Stream, step: int) -> float:
    began = time.perf_counter()
    with closing(stream.batches(step, 100 * stream.order.steps_per_epoch)) as batches:
        next(batches)
        return time.perf_counter() - began


def waiting(arguments: argparse.Namespace) -> None:
    """The share of a computing loop that waits for batches, and what the stream takes from its computing."""
    shares, slowdowns = [], []
    with ray_session(num_cpus=4):
        stream = Stream(_folder())
        torch.set_num_threads(1)
        products = _products_for(STEP_S)
        for _ in range(arguments.repeats):
            alone = _computing_s(40, products)
            waited = computed = 0.0
            with closing(stream.batches(0, 60)) as batches:
                for number in range(60):
                    asked = time.perf_counter()
                    next(batches)
                    got = time.perf_counter()
                    _compute(products)
                    if number >= 20:  # after the start
                        waited += got - asked
                        computed += time.perf_counter() - got
            shares.append(100 * waited / (waited + computed))
            slowdowns.append(computed / alone)
    lines = [
        ["waiting, % of the loop", cell(shares, 2)],
        ["time of the same computing, with the stream / without", cell(slowdowns, 2)],
    ]
    what = (
        f"A loop that takes a batch of {BATCH} and multiplies matrices for {STEP_S * 1000:.0f} ms on one thread: "
        f"40 steps after the first 20."
    )
    write_section(
        "Waiting", f"{COMMAND} waiting --repeats {arguments.repeats}", [what, table(["", ""], lines)]
    )


def _products_for(seconds: float) -> int:
    _computing_s(1, 20)
    return max(1, round(20 * seconds / min(_computing_s(1, 20) for _ in range(5))))


def _computing_s(steps: int, products: int) -> float:
    began = time.perf_counter()
    for _ in range(steps):
        _compute(products)
    return time.perf_counter() - began


def _compute(products: int) -> None:
    matrix = torch.full((256, 256), 1 / 256)
    for _ in range(products):
        matrix = matrix @ matrix


def memory(arguments: argparse.Namespace) -> None:
    """Peaks of memory and of the object store while a corpus ten times the store's size goes through."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with ray_session(num_cpus=4):
        folder = _folder()
    ray.init(
        address="local",
        num_cpus=4,
        object_store_memory=STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
    )
    try:
        stream = Stream(folder, StreamLimits(object_store_bytes=LIMIT_BYTES))
        corpus_bytes = len(stream.corpus.index) * 24 * stream.corpus.num_samples
        with _peaks() as peaks:
            rows = sum(len(batch.row_ids) for batch in stream.batches(0, stream.order.steps_per_epoch))
        store = _store()
    finally:
        ray.shutdown()
    megabytes = [
        ("signals of the corpus", corpus_bytes),
        ("object store", STORE_BYTES),
        ("allowed to the stream in it", LIMIT_BYTES),
        ("peak in the object store", peaks["store"]),
        ("spilled to disk", store.spilled_bytes_total),
        ("peak RSS of the consumer", peaks["consumer"]),
        ("peak RSS of the read tasks' processes", peaks["readers"]),
    ]
    lines = [[name, f"{count / 1e6:,.0f}"] for name, count in megabytes]
    what = f"{rows:,} ECGs through a small object store, one consumer. RSS counts shared memory in both processes."
    write_section("Memory", f"{COMMAND} memory", [what, table(["", "MB"], lines)])


def _store() -> ray.core.generated.node_manager_pb2.ObjectStoreStats:
    (node,) = ray.nodes()
    where = node["NodeManagerAddress"], node["NodeManagerPort"]
    return internal_api.node_stats(*where, include_memory_info=False).store_stats


@contextmanager
def _peaks() -> Iterator[dict[str, int]]:
    """The most bytes seen while the block runs."""
    peaks = {"store": 0, "consumer": 0, "readers": 0}
    over = threading.Event()
    me = psutil.Process()

    def watch() -> None:
        while not over.wait(0.1):
            readers = 0
            for process in me.children(recursive=True):
                try:
                    if process.cmdline() and process.cmdline()[0].startswith("ray::"):
                        readers += process.memory_info().rss
                except psutil.Error:
                    continue
            seen = {
                "consumer": me.memory_info().rss,
                "readers": readers,
                "store": _store().object_store_bytes_used,
            }
            for name, value in seen.items():
                peaks[name] = max(peaks[name], int(value))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peaks
    finally:
        over.set()
        thread.join()


def consumers(arguments: argparse.Namespace) -> None:
    """ECG/s of 1, 2 and 4 ranks together."""
    found: dict[int, list[float]] = {count: [] for count in CONSUMERS}
    with ray_session(num_cpus=3 * max(CONSUMERS)):
        folder = _folder()
        for _ in range(arguments.repeats):
            for count in CONSUMERS:
                spans = ray.get([_consume.remote(folder, rank, count) for rank in range(count)])
                rows = sum(span[0] for span in spans)
                found[count].append(
                    rows / (max(s[2] for s in spans) - statistics.median(s[1] for s in spans))
                )
    lines = [[str(count), cell(rates)] for count, rates in found.items()]
    what = (
        f"Two epochs, each rank a process of its own that makes float32 batches; {BATCH} rows a global batch."
    )
    write_section(
        "Consumers",
        f"{COMMAND} consumers --repeats {arguments.repeats}",
        [what, table(["consumers", "ECG/s together"], lines)],
    )


@ray.remote(num_cpus=1)
def _consume(folder: Path, rank: int, ranks: int) -> tuple[int, float, float]:
    """Rows after the first batch, and when that and the last came."""
    stream = Stream(folder)
    batches = stream.batches(0, 2 * stream.order.steps_per_epoch, rank, ranks)
    next(batches)
    began = time.time()
    rows = 0
    for batch in batches:
        rows += len(batch.signal_uv.astype(np.float32))
    return rows, began, time.time()
