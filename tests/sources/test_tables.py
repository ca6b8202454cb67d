"""Tables of a data set: read row by row, and a broken one is an error that names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecgdist.errors import DataError
from ecgdist.sources.tables import iter_table, read_table
from ecgdist.storage import Location


def table(folder: Path, content: bytes) -> Location:
    (folder / "t.csv").write_bytes(content)
    return Location.of(folder / "t.csv")


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_rows_by_column_with_quoted_commas_and_lines(tmp_path: Path, mark: bytes, newline: bytes) -> None:
    content = mark + newline.join([b"a,b", b'1,"x, y"', b'2,"two', b'lines"', b""])
    rows = read_table(table(tmp_path, content), ["b", "a"])
    assert rows == [{"a": "1", "b": "x, y"}, {"a": "2", "b": f"two{newline.decode()}lines"}]


def test_rows_come_one_by_one_and_a_late_defect_is_an_error(tmp_path: Path) -> None:
    rows = iter_table(table(tmp_path, b"a\n" + b"1\n" * 100_000 + b"\xff\n"), ["a"])
    assert next(rows) == {"a": "1"}
    with pytest.raises(DataError, match="is not a comma-separated table in UTF-8"):
        list(rows)


def test_a_cell_without_end_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a comma-separated table"):
        read_table(table(tmp_path, b"a\n" + b"x" * 200_000), ["a"])


def test_missing_columns_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lacks the columns b, c; use the table as published"):
        read_table(table(tmp_path, b"a\n1\n"), ["a", "b", "c"])
