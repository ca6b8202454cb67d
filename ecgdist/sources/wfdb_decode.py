"""WFDB signal files of fixed sample size: from their bytes to digital values, without another library.

Nearly all ECG archives use one of these formats; the rest goes through the `wfdb` package. Layouts: WFDB
manual, signal(5).
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

FORMATS: dict[str, tuple[Fraction | None, int | None]] = {
    "8": (Fraction(1), None),
    "16": (Fraction(2), -(2**15)),
    "24": (Fraction(3), -(2**23)),
    "32": (Fraction(4), -(2**31)),
    "61": (Fraction(2), -(2**15)),
    "80": (Fraction(1), -(2**7)),
    "160": (Fraction(2), -(2**15)),
    "212": (Fraction(3, 2), -(2**11)),
    "310": (Fraction(4, 3), -(2**9)),
    "311": (Fraction(4, 3), -(2**9)),
    "508": (None, -(2**7)),
    "516": (None, -(2**15)),
    "524": (None, -(2**23)),
}
"""Bytes per sample and the value that marks an invalid sample, of every WFDB format. A compressed file (508,
516, 524: FLAC) has no fixed size; differences (8) have no invalid value."""

Digital = npt.NDArray[Any]


def decode(content: bytes, wfdb_format: str, num_values: int) -> Digital:
    """The first `num_values` samples, ``(num_values,)`` integers, of a file in one of the `DECODED` formats.

    Args:
        content: the file from its byte offset on; at least as many bytes as the samples need.
        wfdb_format: the format.
        num_values: how many samples of all leads together.
    """
    return DECODED[wfdb_format](content, num_values)


def _of_type(dtype: str) -> Callable[[bytes, int], Digital]:
    return lambda content, count: np.frombuffer(content, dtype, count)


def _offset_8(content: bytes, count: int) -> Digital:
    return np.frombuffer(content, "u1", count).astype(np.int16) - np.int16(2**7)


def _offset_16(content: bytes, count: int) -> Digital:
    # Flipping the highest bit subtracts 2**15 from an unsigned number and makes it two's complement.
    return (np.frombuffer(content, "<u2", count) ^ np.uint16(2**15)).view(np.int16)


def _packed_12(content: bytes, count: int) -> Digital:
    """Pairs of 12-bit two's complement in three bytes: low byte, both high halves, low byte."""
    triples = _rows_of_3(content, -(-count // 2)).astype(np.int16)
    values = np.empty((len(triples), 2), dtype=np.int16)
    # Put in the upper twelve bits first, so that shifting down extends the sign.
    values[:, 0] = (triples[:, 0] << 4) | (triples[:, 1] << 12)
    values[:, 1] = (triples[:, 2] << 4) | ((triples[:, 1] & 0xF0) << 8)
    values >>= 4
    return values.reshape(-1)[:count]


def _packed_24(content: bytes, count: int) -> Digital:
    """24-bit two's complement, low byte first."""
    values = np.zeros((count, 4), dtype=np.uint8)
    values[:, 1:] = _rows_of_3(content, count)
    return values.view("<i4")[:, 0] >> 8


def _rows_of_3(content: bytes, rows: int) -> npt.NDArray[np.uint8]:
    padded = content[: 3 * rows].ljust(3 * rows, b"\0")
    return np.frombuffer(padded, np.uint8).reshape(-1, 3)


DECODED: dict[str, Callable[[bytes, int], Digital]] = {
    "16": _of_type("<i2"),
    "24": _packed_24,
    "32": _of_type("<i4"),
    "61": _of_type(">i2"),
    "80": _offset_8,
    "160": _offset_16,
    "212": _packed_12,
}
"""The formats that are decoded here."""
