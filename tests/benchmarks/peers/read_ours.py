"""This package's stream: the ordered batches of one rank, read by Ray Data, as a training worker takes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ecgdist.corpus import Corpus
from ecgdist.raytools import ray_session
from ecgdist.streaming.batches import rank_batches, read_ahead
from ecgdist.streaming.execution import StreamLimits, pool_tables
from ecgdist.streaming.order import Order
from ecgdist.streaming.pool import PoolReader
from ecgdist.streaming.selection import select_rows
from tests.benchmarks.peers import harness

LANES = 16
SHUFFLE_ROWS = 4096


def read(job: dict[str, Any]) -> harness.Batches:
    corpus = Corpus(job["where"])
    selection, _ = select_rows(corpus)
    order = Order(
        selection.group_rows, seed=0, lanes=LANES, global_batch=job["batch"], shuffle_rows=SHUFFLE_ROWS
    )
    reader = PoolReader(corpus.location, corpus.corpus_id, order, selection)
    steps = job["epochs"] * order.steps_per_epoch
    batches = rank_batches(
        order, 0, 1, 0, steps, corpus.num_samples,
        lambda items: pool_tables(items, reader.read, StreamLimits()),
    )  # fmt: skip
    for batch in read_ahead(batches):
        numbers = np.array([int(name.partition("#")[0].rpartition("r")[2]) for name in batch.row_ids])
        yield numbers, torch.from_numpy(batch.signal_uv)


if __name__ == "__main__":
    with ray_session(num_cpus=4):
        harness.main(read)
