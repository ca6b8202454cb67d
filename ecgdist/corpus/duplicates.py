"""Rows of one corpus that hold the same waveform, under whatever name, patient, gain or rate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ecgdist.corpus.candidates import Pairs
from ecgdist.corpus.confirm import Floats, correlations
from ecgdist.corpus.copies import Prints, find_copies_within
from ecgdist.corpus.corpus import Corpus

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Duplicates:
    """What `find_duplicates` found.

    Attributes:
        pairs: confirmed pairs of rows, enough to link all rows of a group.
        correlation: ``(pairs,)``.
        group: ``(rows of the corpus,)`` number of the group that each row belongs to; most are alone in theirs.
        candidates: pairs whose fingerprints were near, confirmed or not.
        open: rows that were compared with some only of the many that are partly like them, and are alone so far.
    """

    pairs: Pairs
    correlation: Floats
    group: Ints
    candidates: int
    open: int = 0

    @property
    def groups(self) -> list[Ints]:
        """The rows of each group of two or more, in the order of their first rows."""
        sizes = np.bincount(self.group, minlength=1)
        repeated = np.flatnonzero(sizes[self.group] > 1)
        # Stable, so that rows stay in order inside their group.
        repeated = repeated[np.argsort(self.group[repeated], kind="stable")]
        cuts = np.flatnonzero(np.diff(self.group[repeated])) + 1
        return sorted(np.split(repeated, cuts), key=lambda rows: int(rows[0])) if len(repeated) else []


def find_duplicates(corpus: Corpus, rows: npt.NDArray[np.bool_] | None = None) -> Duplicates:
    """Groups of rows with one waveform: near by fingerprint, and confirmed by the correlation of their signals.

    Args:
        corpus: the corpus.
        rows: ``(rows of the corpus,)``, True for those to compare; default all.

    Raises:
        DataError, StorageError: if the corpus cannot be read.
    """
    chosen = np.arange(corpus.manifest.rows) if rows is None else np.flatnonzero(rows)

    def confirm(pairs: Pairs) -> Floats:
        return correlations(corpus, corpus, pairs)

    found = find_copies_within(Prints(chosen, corpus.fingerprints[chosen]), confirm)
    group = linked(corpus.manifest.rows, found.pairs)
    return Duplicates(found.pairs, found.likeness, group, len(found.candidates), len(found.open))


def linked(num_rows: int, *links: Pairs) -> Ints:
    """``(num_rows,)`` group numbers: rows are in one group if a chain of links leads from one to the other."""
    first = np.concatenate([np.zeros(0, dtype=np.int64), *(pairs.first for pairs in links)])
    second = np.concatenate([np.zeros(0, dtype=np.int64), *(pairs.second for pairs in links)])
    graph = coo_array((np.ones(len(first), dtype=np.int8), (first, second)), shape=(num_rows, num_rows))
    groups: Ints = connected_components(graph, directed=False)[1].astype(np.int64)
    return groups
