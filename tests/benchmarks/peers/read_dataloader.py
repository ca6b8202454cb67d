"""A torch DataLoader over the shards of a corpus, as a careful user would write it.

Whole row groups in random order, a fixed share of them for each worker, read ahead by two threads; the rows of
some groups are mixed, and leave the worker as whole int16 batches.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ecgdist.corpus import Corpus
from ecgdist.corpus.schema import signal_array
from tests.benchmarks.peers import harness

THREADS = 2
GROUPS_MIXED = 4
Part = tuple[torch.Tensor, torch.Tensor]


class RowGroups(IterableDataset[Part]):
    """Batches of one worker's row groups, epoch after epoch without a pause."""

    def __init__(self, where: str, batch: int, epochs: int) -> None:
        self.where, self.batch, self.epochs = where, batch, epochs

    def __iter__(self) -> Iterator[Part]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        corpus = Corpus(self.where)
        threads = [corpus.reopened() for _ in range(THREADS)]
        random = np.random.default_rng(0)
        groups: list[int] = []
        for _ in range(self.epochs):
            groups += random.permutation(len(corpus.group_rows))[number::workers].tolist()
        mix = np.random.default_rng(number)
        numbers, signals, pool = [], [], []
        for part in self._read(threads, groups):
            pool.append(part)
            if len(pool) == GROUPS_MIXED:
                yield from self._batches(pool, mix)
        yield from self._batches(pool, mix, last=True)
        del numbers, signals

    def _read(self, corpora: list[Corpus], groups: list[int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Row groups in order, some of them ahead."""
        idle = list(corpora)

        def read(group: int) -> tuple[np.ndarray, np.ndarray]:
            corpus = idle.pop()
            table = corpus.read_group(group, ("signal", "record_id"))
            idle.append(corpus)
            numbers = [int(name.rpartition("r")[2]) for name in table["record_id"].to_pylist()]
            return np.array(numbers), signal_array(table["signal"], corpus.num_samples)

        with ThreadPoolExecutor(len(corpora)) as executor:
            coming = deque(executor.submit(read, group) for group in groups[: 2 * len(corpora)])
            for group in [*groups[2 * len(corpora) :], *[-1] * len(coming)]:
                part = coming.popleft().result()
                if group >= 0:
                    coming.append(executor.submit(read, group))
                yield part

    def _batches(self, pool: list[Any], mix: np.random.Generator, last: bool = False) -> Iterator[Part]:
        """Whole batches of the rows of a pool; what is left stays in it."""
        if not pool:
            return
        numbers = np.concatenate([part[0] for part in pool])
        starts = np.cumsum([0, *(len(part[0]) for part in pool)])
        order = mix.permutation(len(numbers))
        whole = len(order) if last else len(order) // self.batch * self.batch
        for start in range(0, whole, self.batch):
            rows = order[start : start + self.batch]
            signal_uv = np.empty((len(rows), *harness.SHAPE), np.int16)
            for place, part in enumerate(pool):
                here = (rows >= starts[place]) & (rows < starts[place + 1])
                signal_uv[here] = part[1][rows[here] - starts[place]]
            yield torch.from_numpy(numbers[rows]), torch.from_numpy(signal_uv)
        left = [
            (part[0][rows], part[1][rows])
            for place, part in enumerate(pool)
            if len(
                rows := order[whole:][np.isin(order[whole:], np.arange(*starts[place : place + 2]))]
                - starts[place]
            )
        ]
        pool[:] = left


def read(job: dict[str, Any]) -> harness.Batches:
    dataset = RowGroups(job["where"], job["batch"], job["epochs"])
    yield from DataLoader(dataset, batch_size=None, num_workers=job["workers"], prefetch_factor=4)


if __name__ == "__main__":
    harness.main(read)
