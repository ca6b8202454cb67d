"""Data sets that keep many ECGs in the rows of one HDF5 array: rows that are read together."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import numpy.typing as npt

from ecgdist.errors import DataError, RecordRefused
from ecgdist.record import Recording
from ecgdist.sources.base import Listing, Source
from ecgdist.sources.hdf5_file import Hdf5Array, Hdf5File, open_hdf5
from ecgdist.storage import Location

_MOST_TOGETHER = 1024  # rows; `Hdf5Array.block_end` sets the limit in bytes


class Hdf5Rows(Source):
    """Records in rows: listings name a file and a row. Consecutive rows are read at once."""

    def _read(self, listing: Listing) -> Recording:
        with open_hdf5(self.root / listing.key) as file:
            return self._recording(listing, self._block(file, [listing])[0], file)

    def read_many(self, listings: Sequence[Listing]) -> Iterator[Recording | RecordRefused]:
        with _OneFile(self.root) as opened:
            start = 0
            while start < len(listings):
                try:
                    file, block = self._next_block(opened, listings, start)
                except RecordRefused as refused:
                    yield refused
                    start += 1
                    continue
                for values in block:
                    yield self._recording_or_refusal(listings[start], values, file)
                    start += 1

    def _next_block(
        self, opened: _OneFile, listings: Sequence[Listing], start: int
    ) -> tuple[Hdf5File, npt.NDArray[Any]]:
        """The file of a listing, and the values of it and of what follows it there.

        Raises:
            RecordRefused: if the values of this listing cannot be read.
            StorageError: if the storage itself fails.
        """
        first = listings[start]
        if first.refusal is not None:
            raise RecordRefused(*first.refusal)
        file = opened.get(first.key)
        try:
            return file, self._block(file, listings[start : start + _MOST_TOGETHER])
        except RecordRefused:
            # A damaged row must not spoil those before it: they are read one by one.
            return file, self._block(file, [first])

    def _block(self, file: Hdf5File, listings: Sequence[Listing]) -> npt.NDArray[Any]:
        """``(records, ...)``: as many of the listings as lie in consecutive rows, up to a limit."""
        first = listings[0]
        array = self._array(file, first)
        if first.row is None:
            raise RecordRefused("unreadable_signal", f"no row of {first.key} holds this record")
        limit = min(array.block_end(first.row) - first.row, len(listings))
        count = 1
        while count < limit and self._follows(listings[count], first, count):
            count += 1
        return array.read(first.row, first.row + count)

    def _recording_or_refusal(
        self, listing: Listing, values: npt.NDArray[Any], file: Hdf5File
    ) -> Recording | RecordRefused:
        try:
            return self._recording(listing, values, file)
        except RecordRefused as refused:
            return refused

    def _follows(self, listing: Listing, first: Listing, distance: int) -> bool:
        """Whether a record lies that many rows behind the first, in the same array."""
        if listing.refusal is not None or first.row is None:
            return False
        return listing.key == first.key and listing.row == first.row + distance

    @abstractmethod
    def _array(self, file: Hdf5File, listing: Listing) -> Hdf5Array:
        """The array that holds the record in a row, ``(records, samples, leads)``."""

    @abstractmethod
    def _recording(self, listing: Listing, values: npt.NDArray[Any], file: Hdf5File) -> Recording:
        """The record whose stored values are `values`."""


class _OneFile:
    """Keeps the file that was opened last, or why it could not be: a part has thousands of records."""

    def __init__(self, root: Location) -> None:
        self._root, self._stack = root, ExitStack()
        self._key: str | None = None
        self._opened: Hdf5File | RecordRefused

    def __enter__(self) -> _OneFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def get(self, key: str) -> Hdf5File:
        if key != self._key:
            self._stack.close()
            self._key = None
            try:
                self._opened = self._stack.enter_context(open_hdf5(self._root / key))
            except RecordRefused as refused:
                self._opened = refused
            self._key = key
        if isinstance(self._opened, RecordRefused):
            raise RecordRefused(*self._opened.args)
        return self._opened


def required_table(root: Location, name: str, beside: str) -> Location:
    """The table `name` of a folder.

    Raises:
        DataError: if there is none.
    """
    table = root / name
    if not table.is_file():
        raise DataError(f"{root} has no {name}; this layout holds that table and, beside it, {beside}")
    return table
