"""Tables that come with a data set, read as text: nothing in a cell is run, and a broken table is an error.

A table is read line by line, and no row of it may be long: what is no table at all fills no memory.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TextIO

from ecgdist.errors import DataError
from ecgdist.storage import Location

MAX_ROW_CHARS = 2**20
"""Longest row. A cell has at most 131,072 characters, which is the limit of `csv`."""

MAX_TABLE_CHARS = 2**29
"""Longest table: three times the largest published one, the machine reports of MIMIC-IV-ECG."""

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
    with table.open() as file:
        lines = _Lines(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""))
        reader = csv.DictReader(lines, strict=True)
        try:
            _check_columns(table, reader.fieldnames or (), required)
            for row in reader:
                # Cells beyond the last column: empty ones come from a comma at the end of a line.
                if any(row.pop(None, ())):
                    raise csv.Error(f"line {reader.line_num} has more cells than there are columns")
                lines.start_row()
                yield row
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{table} is not a comma-separated table in UTF-8: {error}") from error


def _check_columns(table: Location, columns: Sequence[str], required: Sequence[str]) -> None:
    counts = Counter(columns)
    missing = [name for name in required if not counts[name]]
    if missing:
        raise DataError(f"{table} lacks the columns {', '.join(missing)}; use the table as published")
    twice = [name for name in required if counts[name] > 1]
    if twice:
        raise DataError(f"{table} has the columns {', '.join(twice)} twice; use the table as published")


class _Lines:
    """The lines of a text, for `csv`: an error where a row or the text goes beyond its limit, or is no text."""

    def __init__(self, text: TextIO) -> None:
        self._text = text
        self._row_chars = 0
        self._chars = 0

    def start_row(self) -> None:
        """The lines from here on belong to another row."""
        self._row_chars = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._text.readline(MAX_ROW_CHARS + 1)
        if not line:
            raise StopIteration
        self._row_chars += len(line)
        self._chars += len(line)
        if self._row_chars > MAX_ROW_CHARS:
            raise csv.Error(f"a row has more than {MAX_ROW_CHARS} characters")
        if self._chars > MAX_TABLE_CHARS:
            raise csv.Error(f"it has more than {MAX_TABLE_CHARS} characters")
        if "\0" in line:
            raise csv.Error("it holds NUL bytes")
        return line


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
