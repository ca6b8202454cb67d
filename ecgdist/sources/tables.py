"""Tables that come with a data set, read as text: nothing in a cell is run, and a broken table is an error."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from ecgdist.errors import DataError
from ecgdist.storage import Location

Row = dict[str, str | None]


def read_table(table: Location, required: Sequence[str]) -> list[Row]:
    """The rows of a comma-separated table with a header line, in UTF-8 with or without a byte order mark.

    Raises:
        DataError: if it is no such table, or lacks a required column.
        StorageError: if it cannot be read.
    """
    return list(iter_table(table, required))


def iter_table(table: Location, required: Sequence[str]) -> Iterator[Row]:
    """The rows of `read_table` one by one, for a table that is too long to hold as dictionaries.

    Raises:
        DataError: as `read_table`; a defect in a late row is found when the rows before it have been handed out.
        StorageError: if it cannot be read.
    """
    content = io.TextIOWrapper(io.BytesIO(table.read_bytes()), encoding="utf-8-sig", newline="")
    reader = csv.DictReader(content, strict=True)
    try:
        missing = [name for name in required if name not in (reader.fieldnames or ())]
        if missing:
            raise DataError(f"{table} lacks the columns {', '.join(missing)}; use the table as published")
        yield from reader
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} is not a comma-separated table in UTF-8: {error}") from error


def integer(text: str | None) -> int | None:
    """``"15709.0"`` and ``"15709"`` as 15709; None for an empty cell.

    Raises:
        ValueError: for anything else.
    """
    if not text:
        return None
    number = float(text)
    if not number.is_integer():
        raise ValueError(f"{text!r} is not a whole number")
    return int(number)
