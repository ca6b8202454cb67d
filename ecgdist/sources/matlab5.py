"""The one thing we need of MATLAB 5 files: a numeric matrix by name.

`scipy.io.loadmat` reads far more than that, and a damaged file can make its compiled code crash the process,
which a packing job cannot count as one refused record. This reader knows numeric matrices only, plain or
compressed, and checks every length; what is compressed may not unpack to more than a limit. Layout: MathWorks,
"MAT-File Format", level 5.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

MAGIC = b"MATLAB 5.0 MAT-file"

MAX_BYTES = 2**28
"""Most bytes of a file, and of a compressed element when it is unpacked, unless the caller knows better."""

_HEADER_BYTES = 128
_MATRIX = 14
_COMPRESSED = 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_NUMERIC_CLASSES = range(6, 16)  # double, single, int8 ... uint64
_COMPLEX = 0x0800


def read_matrix(content: bytes, name: str, max_bytes: int = MAX_BYTES) -> npt.NDArray[Any]:
    """The real numeric matrix `name`, shape (rows, columns), in the number type that it is stored in.

    Args:
        content: the file.
        name: of the variable.
        max_bytes: most bytes of the file, and of a compressed element when it is unpacked.

    Raises:
        ValueError: if the file holds no such matrix or is damaged.
    """
    if not content.startswith(MAGIC) or len(content) < _HEADER_BYTES:
        raise ValueError("not a MATLAB 5 file")
    if len(content) > max_bytes:
        raise ValueError(f"the file has more than {max_bytes} bytes")
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if order is None:
        raise ValueError("the MATLAB 5 header has no byte order")
    for kind, payload in _elements(content[_HEADER_BYTES:], order):
        if kind == _COMPRESSED:
            kind, payload = next(_elements(_decompress(payload, max_bytes), order), (0, b""))
        if kind != _MATRIX:
            continue
        found, values = _matrix(payload, order)
        if found == name:
            return values
    raise ValueError(f"no numeric matrix {name!r} in the file")


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """The (type, content) of consecutive data elements."""
    start = 0
    while start + 8 <= len(data):
        kind, size = struct.unpack_from(order + "II", data, start)
        if kind >> 16:  # a small element: size, type and up to four bytes of content in one tag
            kind, size, content_start, end = kind & 0xFFFF, kind >> 16, start + 4, start + 8
        else:
            content_start = start + 8
            # Content is padded to 8 bytes, unless it is compressed.
            end = content_start + (size if kind == _COMPRESSED else -(-size // 8) * 8)
        if content_start + size > min(end, len(data)):
            raise ValueError("a data element is longer than the file")
        yield kind, data[content_start : content_start + size]
        start = end


def _decompress(payload: bytes, max_bytes: int) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(payload, max_bytes)
    except zlib.error as error:
        raise ValueError(f"a compressed element is damaged: {error}") from error
    if not unpacker.eof:
        state = f"unpacks to more than {max_bytes} bytes" if len(content) == max_bytes else "is cut short"
        raise ValueError(f"a compressed element {state}")
    return content


def _matrix(payload: bytes, order: str) -> tuple[str | None, npt.NDArray[Any]]:
    """Name and values of a matrix element; the name is None if it is not a real numeric one."""
    nothing = None, np.empty((0, 0))
    parts = list(_elements(payload, order))
    if len(parts) < 4 or len(parts[0][1]) < 4:
        return nothing
    (flags,) = struct.unpack_from(order + "I", parts[0][1])
    if flags & 0xFF not in _NUMERIC_CLASSES or flags & _COMPLEX:
        return nothing
    shape = np.frombuffer(parts[1][1], order + "i4")
    kind, numbers = parts[3]
    if kind not in _NUMBERS or len(shape) != 2 or shape.min() < 0:
        return nothing
    values = np.frombuffer(numbers, order + _NUMBERS[kind])
    return parts[2][1].decode("latin-1"), values.reshape(tuple(map(int, shape)), order="F")
