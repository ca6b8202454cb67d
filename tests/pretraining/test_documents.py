"""Every byte of a small JSON file is checked: no change of one byte goes by, whether or not it changes a value."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecgdist.errors import DataError
from ecgdist.pretraining.documents import document, parse
from ecgdist.storage import Location

CONTENT = {
    "state": {"step": 4, "settings": {"weight": 0.1, "name": "Åse"}},
    "files": {"a/b": {"bytes": 3}},
    "x": None,
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "file.json").write_bytes(document(CONTENT))
    return tmp_path / "file.json"


def assert_refused(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(DataError):
        parse(Location.of(file))


def test_what_is_written_is_read(file: Path) -> None:
    assert parse(Location.of(file)) == CONTENT


def test_a_changed_byte_is_noticed(file: Path) -> None:
    whole = file.read_bytes()
    for place, value in enumerate(whole):
        for other in {value ^ 1, value ^ 32, value ^ 128, ord(" "), ord("\n"), ord("0")} - {value}:
            assert_refused(file, whole[:place] + bytes([other]) + whole[place + 1 :])


def test_a_byte_too_few_or_too_many_is_noticed(file: Path) -> None:
    whole = file.read_bytes()
    for place in range(len(whole)):
        assert_refused(file, whole[:place] + whole[place + 1 :])
    for place in range(len(whole) + 1):
        for extra in (b" ", b"\n", b"0", b"\0"):
            assert_refused(file, whole[:place] + extra + whole[place:])
    assert_refused(file, b"")


def test_deep_nesting_is_no_crash(file: Path) -> None:
    assert_refused(file, b"[" * 100_000)
