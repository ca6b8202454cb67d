"""The rows of a corpus that a run trains on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ecgdist.corpus import Corpus
from ecgdist.corpus.leaks import rows_with_linked
from ecgdist.errors import ConfigError

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Selection:
    """Selected rows of every row group.

    Attributes:
        offsets: row offsets inside their group, groups one after the other.
        starts: ``(groups + 1,)``; group g has ``offsets[starts[g] : starts[g + 1]]``.
        left_out: rows left out, by split.
        linked: rows left out beside them, because they are of a patient or waveform of those.
    """

    offsets: npt.NDArray[np.unsignedinteger[Any]]
    starts: Ints
    left_out: dict[str, int]
    linked: int = 0

    @property
    def group_rows(self) -> Ints:
        """``(groups,)`` selected rows of each row group."""
        return np.diff(self.starts)

    def row_offsets(self, group: int, places: Ints) -> Ints:
        """Offsets in the row group of the selected rows with these places."""
        offsets: Ints = self.offsets[self.starts[group] + places].astype(np.int64)
        return offsets


def select_rows(
    corpus: Corpus, exclude_splits: Collection[str] = (), exclude_linked: bool = True
) -> tuple[Selection, npt.NDArray[np.bool_]]:
    """Select the rows of a corpus that lie in none of `exclude_splits`.

    Args:
        corpus: the corpus.
        exclude_splits: splits that are left to evaluation.
        exclude_linked: leave out the other rows of their patients and waveforms, too.

    Returns:
        The selection, and a mask over the rows of the index that is True for selected ones.

    Raises:
        ConfigError: if nothing is left.
    """
    split = corpus.columns("split")["split"]
    excluded = pc.is_in(split, value_set=pa.array(sorted(set(exclude_splits)), pa.string())).to_numpy()
    keep = ~(rows_with_linked(corpus, excluded) if exclude_linked else excluded)
    if not keep.any():
        raise ConfigError(
            f"exclude_splits = {sorted(set(exclude_splits))} leaves no row of {corpus.location}"
        )
    counted = pc.value_counts(split.filter(pa.array(excluded))).to_pylist()
    left_out = {str(item["values"]): item["counts"] for item in counted}
    linked = int((~keep & ~excluded).sum())
    return selection_of(corpus, keep, dict(sorted(left_out.items())), linked), keep


def selection_of(
    corpus: Corpus,
    keep: npt.NDArray[np.bool_],
    left_out: Mapping[str, int] | None = None,
    linked: int = 0,
) -> Selection:
    """The rows of a corpus for which a mask over the rows of its index is True, of which there is one.

    Args:
        corpus: the corpus.
        keep: ``(rows,)``.
        left_out: rows left out, by split.
        linked: rows left out beside them.
    """
    counts = np.bincount(corpus.groups_of_rows[keep], minlength=len(corpus.group_rows))
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    offsets = corpus.columns("row")["row"].to_numpy()[keep]
    # A row group has a few hundred rows, a corpus has millions, and the selection travels to every read task.
    offsets = offsets.astype(np.min_scalar_type(int(offsets.max())))
    return Selection(offsets, starts, dict(left_out or {}), linked)
