"""Counting columns of an index, millions of rows at a time, without a Python object per row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Codes:
    """A column as numbers of its distinct values.

    Attributes:
        names: the values, sorted; a null has the name that `encode` was given for it, last.
        codes: ``(entries,)`` place in `names` of each entry.
    """

    names: tuple[str, ...]
    codes: Ints

    def counts(self) -> dict[str, int]:
        """Entries of each name."""
        return dict(zip(self.names, np.bincount(self.codes, minlength=len(self.names)).tolist(), strict=True))

    def take(self, rows: npt.NDArray[np.bool_] | Ints) -> Codes:
        """Some of the entries."""
        return Codes(self.names, self.codes[rows])


def encode(column: pa.ChunkedArray, null: str) -> Codes:
    """A column of strings as `Codes`."""
    encoded = column.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.unify_dictionaries().combine_chunks()
    values = encoded.dictionary.to_pylist()
    order = sorted(range(len(values)), key=lambda place: values[place])
    places = np.empty(len(values) + 1, dtype=np.int64)
    places[order] = np.arange(len(values))
    places[-1] = len(values)
    codes = places[encoded.indices.fill_null(len(values)).to_numpy(zero_copy_only=False)]
    return Codes((*(values[place] for place in order), *((null,) if encoded.null_count else ())), codes)


def encode_ids(column: pa.ChunkedArray) -> Ints:
    """``(entries,)`` a number for each distinct value of a column of many; the values are not kept."""
    encoded = column.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.unify_dictionaries().combine_chunks()
    ids: Ints = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return ids


def encode_numbers(values: npt.NDArray[np.floating]) -> Codes:
    """A column of few distinct numbers as `Codes`, smallest first."""
    distinct, codes = np.unique(values, return_inverse=True)
    return Codes(tuple(f"{value:g}" for value in distinct.tolist()), codes.astype(np.int64))


def encode_lists(column: pa.ChunkedArray) -> tuple[Codes, Ints]:
    """A column of lists of strings: their entries as `Codes`, and the row that each entry belongs to."""
    lists = column.combine_chunks()
    if isinstance(lists, pa.ChunkedArray):
        lists = pa.concat_arrays(lists.chunks) if lists.num_chunks else lists.type.empty_array()
    rows = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False).astype(np.int64)
    return encode(pa.chunked_array([pc.list_flatten(lists)]), null=""), rows


def cross(rows: Codes, columns: Codes) -> dict[str, dict[str, int]]:
    """Entries by the names of both: ``cross(source, label)["ptbxl"]["scp:NORM"]``; names without any are left out."""
    width = len(columns.names)
    flat = np.bincount(rows.codes * width + columns.codes, minlength=len(rows.names) * width)
    table = flat.reshape(len(rows.names), width)
    return {
        name: {other: int(count) for other, count in zip(columns.names, line, strict=True) if count}
        for name, line in zip(rows.names, table.tolist(), strict=True)
        if any(line)
    }


def by_frequency(counts: dict[str, int]) -> dict[str, int]:
    """Most frequent first, then by name; what does not occur is left out."""
    return dict(sorted(((n, c) for n, c in counts.items() if c), key=lambda item: (-item[1], item[0])))


def binned(values: npt.NDArray[np.floating] | Ints, edges: Sequence[float]) -> Ints:
    """``(values,)`` number of the bin ``edges[i] <= value < edges[i + 1]`` that each value lies in."""
    return np.searchsorted(np.asarray(edges), values, side="right").astype(np.int64) - 1
