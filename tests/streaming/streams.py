"""What the tests of streaming share: an order over the sample corpus, and the loop that Ray must equal."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ecgdist.corpus import Corpus
from ecgdist.streaming.batches import RankBatch, rank_batches
from ecgdist.streaming.order import Order, PoolItem
from ecgdist.streaming.pool import PoolReader
from ecgdist.streaming.selection import Selection, select_rows

Tables = Callable[[Iterator[PoolItem]], Generator[pa.Table, None, None]]


@dataclass(frozen=True)
class Stream:
    """A corpus, the rows of it that are trained on, their order and its reader."""

    corpus: Corpus
    selection: Selection
    order: Order

    @classmethod
    def of(cls, corpus: Corpus, exclude_splits: tuple[str, ...] = (), **settings: int) -> Stream:
        selection, _ = select_rows(corpus, exclude_splits)
        values = {"seed": 5, "lanes": 4, "global_batch": 24, "shuffle_rows": 80, **settings}
        return cls(corpus, selection, Order(selection.group_rows, **values))

    @property
    def reader(self) -> PoolReader:
        return PoolReader(self.corpus.location, self.corpus.corpus_id, self.order, self.selection)

    def plain(self, items: Iterator[PoolItem]) -> Generator[pa.Table, None, None]:
        """The tables of the items, read one after the other in this process."""
        yield from map(self.reader.read_alone, items)

    def rank(
        self, rank: int, world_size: int, start: int, end: int, tables: Tables | None = None
    ) -> Generator[RankBatch, None, None]:
        samples = self.corpus.num_samples
        return rank_batches(self.order, rank, world_size, start, end, samples, tables or self.plain)

    def index_rows(self, groups: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Rows of the index that rows of the order are."""
        first = np.concatenate([[0], np.cumsum(self.corpus.group_rows)])
        offsets = [self.selection.row_offsets(int(g), p) for g, p in zip(groups, places, strict=True)]
        return first[groups] + np.array(offsets)

    def expected_ids(self, step: int) -> list[str]:
        """Names of the rows of a global batch, straight from the order and the index."""
        return row_ids(self.corpus, self.index_rows(*self.order.rows(step)))


def row_ids(corpus: Corpus, rows: np.ndarray) -> list[str]:
    facts = corpus.index.take(rows).to_pylist()
    return [f"{fact['source']}/{fact['record_id']}#{fact['segment']}" for fact in facts]


def global_batches(ranks: list[list[RankBatch]]) -> list[list[str]]:
    """The global batches that the ranks' parts make up."""
    batches = []
    for parts in zip(*ranks, strict=True):
        assert len({part.step for part in parts}) == 1
        assert np.concatenate([part.positions for part in parts]).tolist() == list(
            range(sum(len(part.row_ids) for part in parts))
        )
        batches.append([row_id for part in parts for row_id in part.row_ids])
    return batches
