"""Splits: train, validation and test, with every patient and every waveform in one of them only."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from ecgdist.config import Config
from ecgdist.corpus.candidates import Pairs
from ecgdist.corpus.duplicates import linked
from ecgdist.errors import DataError

SPLITS = ("train", "validation", "test")
"""In the order in which they give way: a row that is also in a later one is dropped from the earlier one."""

NO_SPLIT = -1

OnConflict = Literal["refuse", "drop"]
"""What is done about a patient or waveform in two splits. ``drop`` takes its rows out of all but the last split
that it is in, so that validation and test stay whole against training, and test against both."""

_NAMED = 10
"""Conflicts that an error names."""
_LINES_AT_ONCE = 2**16

Ints = npt.NDArray[np.int64]


class SeededSplit(Config):
    """A split drawn by chance, whole patients at a time."""

    train: float = Field(default=0.8, gt=0, lt=1)
    """Share of the rows."""
    validation: float = Field(default=0.1, gt=0, lt=1)
    """Share of the rows; the rest is the test split."""
    seed: int = Field(default=0, ge=0)
    """Another seed gives another split."""

    @model_validator(mode="after")
    def _leaves_a_test_split(self) -> Self:
        if self.train + self.validation >= 1:
            raise ValueError("train and validation leave nothing to test on; they must add up to less than 1")
        return self


@dataclass(frozen=True)
class Assignment:
    """Who is in which split.

    Attributes:
        split: ``(rows,)`` place in `SPLITS`, or `NO_SPLIT`.
        dropped: ``(rows,)``, True for a row that was taken out of its split because of a conflict.
    """

    split: Ints
    dropped: npt.NDArray[np.bool_]


def groups_of(patient_key: pa.ChunkedArray, waveforms: Pairs) -> Ints:
    """``(rows,)`` group numbers: rows of one patient or one waveform, directly or by a chain, are in one group."""
    return linked(len(patient_key), patient_links(patient_key), waveforms)


def patient_links(patient_key: pa.ChunkedArray) -> Pairs:
    """Each row of a patient with the patient's first."""
    codes = codes_of(patient_key)
    rows = np.arange(len(codes))
    first = np.zeros(int(codes.max(initial=-1)) + 1, dtype=np.int64)
    first[codes[::-1]] = rows[::-1]  # backwards, so that the first of each is the one that stays
    later = rows != first[codes]
    return Pairs(first[codes[later]], rows[later])


def codes_of(values: pa.ChunkedArray) -> Ints:
    """``(rows,)`` a number for each distinct string."""
    encoded = values.combine_chunks().dictionary_encode()
    codes: Ints = encoded.indices.to_numpy().astype(np.int64)
    return codes


def official_split(
    folds: pa.ChunkedArray,
    of_fold: Mapping[str, str],
    groups: Ints,
    names: pa.ChunkedArray,
    on_conflict: OnConflict = "refuse",
) -> Assignment:
    """The split that the source publishes, as folds.

    Args:
        folds: ``(rows,)`` fold of each row.
        of_fold: the split (`SPLITS`) that each fold is in; rows of other folds are in none.
        groups: ``(rows,)`` from `groups_of`.
        names: ``(rows,)`` what to call a row in an error.
        on_conflict: see `OnConflict`.

    Raises:
        DataError: if rows of one group are in two splits and `on_conflict` is ``refuse``.
    """
    known = pa.array(list(of_fold), pa.string())
    place = pc.index_in(folds, value_set=known).fill_null(len(of_fold)).to_numpy()
    split = np.array([SPLITS.index(s) for s in of_fold.values()] + [NO_SPLIT], dtype=np.int64)[place]
    return without_conflicts(split, groups, names, on_conflict)


def without_conflicts(
    split: Ints, groups: Ints, names: pa.ChunkedArray, on_conflict: OnConflict
) -> Assignment:
    """An assignment in which no group is in two splits.

    Raises:
        DataError: if one is and `on_conflict` is ``refuse``; names the first of them.
    """
    latest = np.full(int(groups.max(initial=-1)) + 1, NO_SPLIT, dtype=np.int64)
    np.maximum.at(latest, groups, split)
    dropped = (split != NO_SPLIT) & (split != latest[groups])
    if dropped.any() and on_conflict == "refuse":
        raise DataError(_conflicts(split, groups, names, dropped))
    return Assignment(np.where(dropped, NO_SPLIT, split), dropped)


def seeded_split(patient_key: pa.ChunkedArray, groups: Ints, settings: SeededSplit) -> Assignment:
    """A split drawn by chance, group by group, with shares of rows that are off by less than one group each.

    It depends on the patients' keys and the seed, not on the order of rows.
    """
    drawn = _drawn(patient_key, settings.seed)
    lowest = np.full(int(groups.max(initial=-1)) + 1, np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(lowest, groups, drawn)
    order = np.argsort(lowest)
    sizes = np.bincount(groups, minlength=len(lowest))[order]
    # The middle of a group decides, so that shares are right on average.
    middle = (np.cumsum(sizes) - sizes / 2) / max(len(groups), 1)
    of_group = np.empty(len(order), dtype=np.int64)
    of_group[order] = np.searchsorted([settings.train, settings.train + settings.validation], middle)
    return Assignment(of_group[groups], np.zeros(len(groups), dtype=np.bool_))


def digest(split: Ints, source: pa.ChunkedArray, record_id: pa.ChunkedArray, segment: pa.ChunkedArray) -> str:
    """SHA-256 over the sorted lines ``source record_id segment split`` of all rows in a split."""
    used = pa.array(split != NO_SPLIT)
    names = pa.array(SPLITS).take(pa.array(split[split != NO_SPLIT]))
    columns = [source.filter(used), record_id.filter(used), segment.filter(used).cast(pa.string())]
    lines = pc.binary_join_element_wise(*(c.combine_chunks() for c in columns), names, "\t")
    lines = lines.take(pc.sort_indices(lines))
    hashed = hashlib.sha256()
    for start in range(0, len(lines), _LINES_AT_ONCE):
        part = lines.slice(start, _LINES_AT_ONCE).to_pylist()
        hashed.update("".join(f"{line}\n" for line in part).encode())
    return hashed.hexdigest()


def _drawn(patient_key: pa.ChunkedArray, seed: int) -> npt.NDArray[np.uint64]:
    """``(rows,)`` a number for each patient and seed, spread evenly (SplitMix64's finaliser, Steele et al. 2014).

    A key is a keyed hash, so its first 64 bits already look like chance; the seed's hash is mixed in.
    """
    # One after the other in Arrow's buffer, without a Python string for each.
    starts = pc.utf8_slice_codeunits(patient_key.combine_chunks(), 0, 16).buffers()[2]
    digits = starts.to_pybytes()[: 16 * len(patient_key)].decode()
    keys = np.frombuffer(bytes.fromhex(digits), dtype=">u8").astype(np.uint64)
    salt = int.from_bytes(hashlib.sha256(f"split {seed}".encode()).digest()[:8], "big")
    mixed = keys ^ np.uint64(salt)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _conflicts(split: Ints, groups: Ints, names: pa.ChunkedArray, dropped: npt.NDArray[np.bool_]) -> str:
    torn = np.unique(groups[dropped])
    shown = []
    for group in torn[:_NAMED]:
        rows = np.flatnonzero((groups == group) & (split != NO_SPLIT))
        shown.append(", ".join(f"{names[int(r)].as_py()} ({SPLITS[split[r]]})" for r in rows[:_NAMED]))
    more = f"; and {len(torn) - _NAMED} more" if len(torn) > _NAMED else ""
    return (
        f"{len(torn)} patients or waveforms are in more than one split: {'; '.join(shown)}{more}. "
        "Set on_conflict=drop to take them out of training (or validation), or name other folds"
    )
