"""Our decoder against the `wfdb` package, which is how others read the same files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import wfdb

from ecgdist.sources.wfdb_decode import DECODED, FORMATS, decode
from ecgdist.sources.wfdb_record import read_wfdb
from ecgdist.storage import Location
from tests.signals.real_ecgs import signals_uv

DATA = Path(__file__).parents[1] / "data"
READABLE = [
    "ptb-xl/records500/00000/00001_hr",
    "ptb-xl/records500/00000/00002_hr",
    "wfdb/cpsc_2018/A0064",
    "wfdb/georgia/E07500",
    "wfdb/mitdb/100",
    "wfdb/ptbdb/s0010_re",
]

LOWEST, HIGHEST = -127, 127
"""Values that every format can hold, and none marks as invalid."""


def packed_12(values: np.ndarray) -> bytes:
    """Format 212 written value by value, after the manual's words."""
    content = bytearray()
    for first, second in zip(values[::2], [*values[1::2], *[0] * (len(values) % 2)], strict=True):
        first, second = int(first) & 0xFFF, int(second) & 0xFFF
        content += bytes([first & 0xFF, (first >> 8) | (second >> 8 << 4), second & 0xFF])
    return bytes(content[: -(-len(values) * 3 // 2)])


def packed_24(values: np.ndarray) -> bytes:
    return b"".join(int(value).to_bytes(3, "little", signed=True) for value in values)


WRITERS = {
    "16": lambda values: values.astype("<i2").tobytes(),
    "24": packed_24,
    "32": lambda values: values.astype("<i4").tobytes(),
    "61": lambda values: values.astype(">i2").tobytes(),
    "80": lambda values: (values + 128).astype("u1").tobytes(),
    "160": lambda values: (values.astype(int) + 2**15).astype("<u2").tobytes(),
    "212": packed_12,
}


@pytest.mark.parametrize("name", READABLE)
def test_real_files_give_the_digital_values_that_wfdb_reads(name: str) -> None:
    header = wfdb.rdrecord(str(DATA / name), physical=False)
    gain, baseline = np.array(header.adc_gain)[:, None], np.array(header.baseline)[:, None]
    signal_uv = read_wfdb(Location.of(DATA), name).signal_uv
    digital = signal_uv * gain / 1000 + baseline
    np.testing.assert_allclose(digital, header.d_signal.T, rtol=0, atol=1e-6)
    expected_uv = (header.d_signal.T.astype(np.float64) - baseline) * (1000 / gain)
    np.testing.assert_array_equal(signal_uv, expected_uv)


@pytest.mark.parametrize("wfdb_format", DECODED)
def test_every_value_of_a_format_is_read_as_written(wfdb_format: str) -> None:
    lowest = FORMATS[wfdb_format][1]
    assert lowest is not None
    ends = np.array([lowest, lowest + 1, -1, 0, 1, -lowest - 1])
    values = np.concatenate([ends, np.random.default_rng(0).integers(lowest, -lowest, 1000)])
    for count in (len(values), len(values) - 1, 1, 0):
        content = WRITERS[wfdb_format](values[:count]) + b"more"
        np.testing.assert_array_equal(decode(content, wfdb_format, count), values[:count])


@pytest.mark.parametrize("num_samples", [1000, 999])
@pytest.mark.parametrize("wfdb_format", DECODED)
def test_every_format_gives_the_samples_that_wfdb_gives(
    tmp_path: Path, wfdb_format: str, num_samples: int
) -> None:
    values = np.clip(np.rint(signals_uv(1)[0, :3, :num_samples] / 10), LOWEST, HIGHEST)
    content = bytes(8) + WRITERS[wfdb_format](values.T.reshape(-1).astype(np.int64))
    (tmp_path / "a.dat").write_bytes(content)
    lines = [f"a.dat {wfdb_format}+8 100(3)/mV 16 0 0 0 0 {lead}" for lead in ("I", "II", "III")]
    (tmp_path / "a.hea").write_text("\n".join([f"a 3 100 {num_samples}", *lines]))
    expected = wfdb.rdrecord(str(tmp_path / "a"), physical=False).d_signal.T
    read_uv = read_wfdb(Location.of(tmp_path), "a").signal_uv
    np.testing.assert_array_equal(read_uv, (expected.astype(np.float64) - 3) * 10)


def test_without_a_number_of_samples_all_whole_frames_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_bytes(WRITERS["212"](np.arange(200)) + b"\1")
    (tmp_path / "a.hea").write_text("a 2 100\na.dat 212\na.dat 212\n")
    signal_uv = read_wfdb(Location.of(tmp_path), "a").signal_uv
    np.testing.assert_array_equal(signal_uv, np.arange(200).reshape(100, 2).T * 5.0)
