"""The rows of a corpus that a run trains on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ecgdist.corpus import Corpus
from ecgdist.errors import ConfigError

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Selection:
    """Selected rows of every row group.

    Attributes:
        offsets: row offsets inside their group, groups one after the other.
        starts: ``(groups + 1,)``; group g has ``offsets[starts[g] : starts[g + 1]]``.
        left_out: rows left out, by split.
    """

    offsets: Ints
    starts: Ints
    left_out: dict[str, int]

    @property
    def group_rows(self) -> Ints:
        """``(groups,)`` selected rows of each row group."""
        return np.diff(self.starts)

    def row_offsets(self, group: int, places: Ints) -> Ints:
        """Offsets in the row group of the selected rows with these places."""
        offsets: Ints = self.offsets[self.starts[group] + places]
        return offsets


def select_rows(
    corpus: Corpus, exclude_splits: Collection[str] = ()
) -> tuple[Selection, npt.NDArray[np.bool_]]:
    """Select the rows of a corpus that lie in none of `exclude_splits`.

    Returns:
        The selection, and a mask over the rows of the index that is True for selected ones.

    Raises:
        ConfigError: if nothing is left.
    """
    splits = np.array(corpus.index["split"].to_pylist(), dtype=object)
    excluded = set(exclude_splits)
    keep = np.array([split not in excluded for split in splits], dtype=np.bool_)
    if not keep.any():
        raise ConfigError(f"exclude_splits = {sorted(excluded)} leaves no row of {corpus.location}")
    groups = corpus.groups_of_rows[keep]
    counts = np.bincount(groups, minlength=len(corpus.group_rows))
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    offsets = corpus.index["row"].to_numpy()[keep].astype(np.int64)
    left_out = Counter(str(split) for split in splits[~keep])
    return Selection(offsets, starts, dict(sorted(left_out.items()))), keep
