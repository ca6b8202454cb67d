"""WFDB records, MATLAB files and tables made to do harm: each is refused by name, in little memory.

Each record is a real one with one thing changed.
"""

from __future__ import annotations

import os
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import soundfile

from ecgdist.errors import DataError, RecordRefused
from ecgdist.sources import open_source
from ecgdist.sources.matlab5 import read_matrix
from ecgdist.sources.tables import read_table
from ecgdist.sources.wfdb_record import read_wfdb
from ecgdist.storage import Location

GEORGIA = Path(__file__).parents[1] / "data" / "wfdb" / "georgia" / "E07500"
HEADER = GEORGIA.with_suffix(".hea").read_text(encoding="utf-8")
SIGNAL = GEORGIA.with_suffix(".mat").read_bytes()

MEMORY_BYTES = 64 * 2**20
"""What reading any of these may take: the real record takes 1 MiB."""

Damage = Callable[[Path], None]


@contextmanager
def little_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MEMORY_BYTES
    finally:
        tracemalloc.stop()


def header(text: str | bytes) -> Damage:
    content = text.encode() if isinstance(text, str) else text
    return lambda folder: void(folder.joinpath("a.hea").write_bytes(content))


def changed(old: str, new: str) -> Damage:
    """The real header with a part exchanged."""
    assert old in HEADER
    return header(HEADER.replace(old, new))


def void(_: object) -> None:
    """Drop a result."""


def signal(content: bytes) -> Damage:
    return lambda folder: void(folder.joinpath("E07500.mat").write_bytes(content))


def link_to_device(folder: Path) -> None:
    (folder / "E07500.mat").unlink()
    (folder / "E07500.mat").symlink_to("/dev/zero")


def header_is_a_pipe(folder: Path) -> None:
    (folder / "a.hea").unlink()
    os.mkfifo(folder / "a.hea")


def element(kind: int, payload: bytes) -> bytes:
    """A data element of a MATLAB 5 file."""
    padding = b"" if kind == 15 else bytes(-len(payload) % 8)
    return struct.pack("<II", kind, len(payload)) + payload + padding


def matlab_5(*elements: bytes) -> bytes:
    return b"MATLAB 5.0 MAT-file".ljust(124, b" ") + b"\x00\x01IM" + b"".join(elements)


def matrix(dimensions: tuple[int, ...], numbers: bytes, kind: int = 3, flags: int = 10) -> bytes:
    """An element that says it is the variable `val`, of 16-bit integers unless told otherwise."""
    shape = struct.pack(f"<{len(dimensions)}i", *dimensions)
    parts = ((6, struct.pack("<II", flags, 0)), (5, shape), (1, b"val"), (kind, numbers))
    return element(14, b"".join(element(*part) for part in parts))


def bomb(size: int) -> bytes:
    """Zeros that are `size` bytes long when they are unpacked."""
    packer, block = zlib.compressobj(9), bytes(2**20)
    return b"".join([packer.compress(block) for _ in range(size // len(block))]) + packer.flush()


def variables(**named: object) -> Damage:
    return lambda folder: scipy.io.savemat(folder / "E07500.mat", named)


def flac(announced: int, num_samples: str) -> Damage:
    """Two leads in FLAC, whose own header announces more samples than it has."""

    def write(folder: Path) -> None:
        file = folder / "a.flac"
        soundfile.write(file, np.zeros((5000, 2), np.int16), 500, subtype="PCM_16")
        content = bytearray(file.read_bytes())
        # The last 36 bits of bytes 18 to 25 of the file are the number of samples.
        (field,) = struct.unpack_from(">Q", content, 18)
        struct.pack_into(">Q", content, 18, field >> 36 << 36 | announced)
        file.write_bytes(content)
        lines = [f"a.flac 516 1000/mV 16 0 0 0 0 {lead}" for lead in ("I", "II")]
        (folder / "a.hea").write_text("\n".join([f"a 2 500 {num_samples}", *lines]))

    return write


def matlab_4(number_type: int) -> Damage:
    return signal(struct.pack("<5i", number_type, *struct.unpack_from("<4i", SIGNAL, 4)) + SIGNAL[20:])


HOSTILE: dict[str, tuple[Damage, str]] = {
    "absolute path": (changed("E07500.mat", "/etc/passwd"), "missing_signal"),
    "path out of the folder": (changed("E07500.mat", "../secret/E07500.mat"), "missing_signal"),
    "parent folder": (changed("E07500.mat", ".."), "missing_signal"),
    "backslash path": (changed("E07500.mat", r"..\secret\E07500.mat"), "missing_signal"),
    "name of 50,000 letters": (changed("E07500.mat", "E" * 50_000), "missing_signal"),
    "standard input": (changed("E07500.mat", "-"), "missing_signal"),
    "link to a device": (link_to_device, "missing_signal"),
    "pipe for a header": (header_is_a_pipe, "missing_header"),
    "samples: 10^12": (changed("500 5000", "500 1000000000000"), "too_long"),
    "samples: more than the file": (changed("500 5000", "500 5000000"), "truncated_signal"),
    "samples: negative": (changed("500 5000", "500 -5000"), "unreadable_header"),
    "samples: a thousand digits": (changed("500 5000", f"500 {'9' * 1000}"), "unreadable_header"),
    "leads: 10^12": (changed("E07500 12", "E07500 1000000000000"), "unreadable_header"),
    "leads: ten thousand digits": (changed("E07500 12", f"E07500 {'9' * 10_000}"), "unreadable_header"),
    "leads: none": (header("a 0 500 5000\n"), "unreadable_header"),
    "samples per frame: 10^12": (changed("16x1+", "16x1000000000000+"), "too_long"),
    "byte offset: 10^17": (changed("+24", f"+{10**17}"), "truncated_signal"),
    "gain: negative": (changed("1000.0(0)/mV", "-1000/mV"), "bad_gain"),
    "gain: NaN": (changed("1000.0(0)/mV", "nan/mV"), "bad_gain"),
    "gain: infinite": (changed("1000.0(0)/mV", "inf/mV"), "bad_gain"),
    "gain: 1e300": (changed("1000.0(0)/mV", "1e300/mV"), "bad_gain"),
    "gain: 1e-300": (changed("1000.0(0)/mV", "1e-300/mV"), "bad_gain"),
    "gain: a thousand digits": (changed("1000.0(0)/mV", f"{'9' * 1000}/mV"), "bad_gain"),
    "baseline: ten thousand digits": (changed("1000.0(0)/mV", f"1000({'9' * 10_000})/mV"), "unreadable_header"),
    "rate: 0 Hz": (changed("500 5000", "0 5000"), "unreadable_header"),
    "rate: 1e9 Hz": (changed("500 5000", "1000000000 5000"), "bad_rate"),
    "rate: a million digits": (changed("500 5000", f"{'9' * 1_000_000}x"), "unreadable_header"),
    "header: 64 MiB": (header(f"{HEADER}#{'x' * 2**26}"), "unreadable_header"),
    "header: NUL bytes": (header(HEADER.encode() + b"\0"), "unreadable_header"),
    "header: not UTF-8": (header(b"\xff\xfe\x80\x81 12 500\n"), "unreadable_header"),
    "header: joins itself": (header("a/3 12 500 15000\na 5000\na 5000\na 5000\n"), "multi_segment"),
    "MATLAB 4: other number type": (matlab_4(0), "unknown_format"),
    "MATLAB 4: high byte first": (matlab_4(1030), "unknown_format"),
    "MATLAB 5: bomb": (signal(matlab_5(element(15, bomb(2**30)))), "unreadable_signal"),
    "MATLAB 5: huge dimensions": (signal(matlab_5(matrix((12, 2**31 - 1), b"\1\0" * 12))), "unreadable_signal"),
    "MATLAB 5: negative dimensions": (signal(matlab_5(matrix((-12, -1), b"\1\0" * 12))), "unreadable_signal"),
    "MATLAB 5: odd number type": (signal(matlab_5(matrix((12, 1), b"\1\0" * 12, kind=99))), "unreadable_signal"),
    "MATLAB 5: odd class": (signal(matlab_5(matrix((12, 1), b"\1\0" * 12, flags=17))), "unreadable_signal"),
    "MATLAB 5: packed twice": (
        signal(matlab_5(element(15, zlib.compress(element(15, zlib.compress(matrix((12, 1), b"\1\0" * 12))))))),
        "unreadable_signal",
    ),
    "MATLAB 5: element beyond the end": (
        signal(matlab_5(struct.pack("<II", 14, 2**32 - 8))),
        "unreadable_signal",
    ),
    "MATLAB 5: cells": (variables(val=np.array([[np.ones(3)]], dtype=object)), "unreadable_signal"),
    "MATLAB 5: structure": (variables(val={"val": np.ones((12, 5000))}), "unreadable_signal"),
    "MATLAB 7.3": (signal(b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n"), "unknown_format"),
    "FLAC: 2^36 samples": (flac(2**36 - 1, ""), "too_long"),
    "FLAC: fewer samples than it says": (flac(3_000_000, "3000000"), "unreadable_signal"),
    "FLAC: fewer samples than the header": (flac(5000, "3000000"), "truncated_signal"),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the real record, and beside it one that no record may be read from."""
    inner, secret = tmp_path / "inner", tmp_path / "secret"
    for each, name in ((inner, "a"), (secret, "E07500")):
        each.mkdir()
        (each / f"{name}.hea").write_text(HEADER, encoding="utf-8")
        (each / "E07500.mat").write_bytes(SIGNAL)
    return inner


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_record_is_refused_by_name_in_little_memory(folder: Path, name: str) -> None:
    damage, reason = HOSTILE[name]
    damage(folder)
    with little_memory(), pytest.raises(RecordRefused) as refused:
        read_wfdb(Location.of(folder), "a")
    assert refused.value.reason == reason
    assert len(refused.value.detail) < 1000


def test_a_hostile_header_does_not_keep_a_folder_from_being_listed(folder: Path) -> None:
    header_is_a_pipe(folder)
    (folder / "stray.dat").write_bytes(b"")
    listed = {each.record_id: each.refusal for each in open_source("wfdb", str(folder)).list_records()}
    assert {"a", "stray"} <= listed.keys()
    assert listed["a"] is None


def test_only_the_bytes_that_a_header_asks_for_are_read(folder: Path) -> None:
    expected = read_wfdb(Location.of(folder), "a").signal_uv
    os.truncate(folder / "E07500.mat", 2**40)  # a hole: nothing is written
    with little_memory():
        np.testing.assert_array_equal(read_wfdb(Location.of(folder), "a").signal_uv, expected)


def test_an_unpacked_matrix_may_be_as_large_as_the_limit_and_no_larger() -> None:
    numbers = np.arange(1200, dtype="<i2")
    packed = matrix((12, 100), numbers.tobytes())
    content = matlab_5(element(15, zlib.compress(packed)))
    np.testing.assert_array_equal(
        read_matrix(content, "val", len(packed) + 1), numbers.reshape(12, 100, order="F")
    )
    with pytest.raises(ValueError, match="unpacks to more than"):
        read_matrix(content, "val", len(packed) - 1)


TABLES: dict[str, tuple[bytes, str]] = {
    "NUL": (b"id,age\n1,5\x006\n", "NUL bytes"),
    "unclosed quote": (b'id,age\n1,"56\n2,57\n', "unexpected end of data"),
    "gigantic cell": (b"id,age\n1," + b"9" * 200_000 + b"\n", "field larger than field limit"),
    "more cells than columns": (b"id,age\n1,56,free text\n", "line 2 has more cells"),
    "a million columns": (b"id,age\n" + b"," * 2**26, "more than 1048576 characters"),
    "one endless row": (b"id,age\n" + b'"\n",' * 2**22, "more than 1048576 characters"),
    "one endless line": (b"id,age" + b"e" * 2**26, "more than 1048576 characters"),
    "not UTF-8": (b"id,age\n1,\xff\xfe\n", "in UTF-8"),
    "text after a quote": (b'id,age\n1,"5"6\n', "expected after"),
    "a column twice": (b"id,age,id\n1,56,2\n", "columns id twice"),
    "empty": (b"", "lacks the columns id, age"),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_hostile_table_is_an_error_that_says_what_is_wrong(tmp_path: Path, name: str) -> None:
    content, message = TABLES[name]
    (tmp_path / "table.csv").write_bytes(content)
    with little_memory(), pytest.raises(DataError, match=message) as error:
        read_table(Location.of(tmp_path / "table.csv"), ("id", "age"))
    assert "table.csv" in str(error.value)
    assert len(str(error.value)) < 1000


def test_a_comma_at_the_end_of_a_line_is_no_harm(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_bytes(b"id,age\n1,56,\n")
    rows = read_table(Location.of(tmp_path / "table.csv"), ("id", "age"))
    assert rows == [{"id": "1", "age": "56"}]
