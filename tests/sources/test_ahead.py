"""Reading a few records at once: in order, bounded, and an error is said at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

import pytest

from ecgdist.errors import RecordRefused, StorageError
from ecgdist.sources import open_source
from ecgdist.sources.ahead import read_ahead
from ecgdist.storage import Location
from tests.sources.made import code15_row, made_code15

DEADLINE_S = 60


def test_results_come_in_order_and_few_are_held() -> None:
    begun: list[int] = []

    def read(number: int) -> int:
        begun.append(number)
        return number * number

    for taken, result in enumerate(read_ahead(read, range(100), 8)):
        assert result == taken * taken
        assert len(begun) <= taken + 8


def test_nothing_to_read() -> None:
    assert list(read_ahead(str, [], 8)) == []


def hanging_but(trouble: Callable[[int], int], released: threading.Event) -> Callable[[int], int]:
    """Reads that do not come back until they are released, but for number 3."""

    def read(number: int) -> int:
        if number == 3:
            return trouble(number)
        released.wait(DEADLINE_S)
        return number

    return read


def test_an_error_does_not_wait_for_what_hangs_before_it() -> None:
    def denied(number: int) -> int:
        raise StorageError(f"{number}: access denied")

    released = threading.Event()
    try:
        with pytest.raises(StorageError, match="3: access denied"):
            next(read_ahead(hanging_but(denied, released), range(100), 8))
    finally:
        released.set()


def test_whoever_stops_waits_for_what_has_begun() -> None:
    done: list[int] = []

    def read(number: int) -> int:
        done.append(number)
        return number

    results = read_ahead(read, range(100), 4)
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    assert len(done) <= 5
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ecgdist-read")]


def test_a_part_that_is_gone_is_asked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exams = list(range(1, 21))
    folder = made_code15(tmp_path / "code15", [code15_row(exam, 0) for exam in exams], {0: exams})
    source = open_source("code15", str(folder))
    listings = source.list_records()
    (folder / "exams_part0.hdf5").unlink()
    opened: list[str] = []
    open_file = Location.open

    def watched(file: Location) -> AbstractContextManager[BinaryIO]:
        opened.append(file.name)
        return open_file(file)

    monkeypatch.setattr(Location, "open", watched)
    found = list(source.read_many(listings))
    assert [each.reason for each in found if isinstance(each, RecordRefused)] == ["missing_file"] * 20
    assert opened == ["exams_part0.hdf5"]
