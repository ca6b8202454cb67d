"""A folder of your own ``.npy`` files with a ``records.csv``; see `ecgdist.sources.own_table`.

The header is checked before anything is allocated, and only the record's part of a file is read. Arrays of Python
objects, which numpy keeps as pickles, are refused.
"""

from __future__ import annotations

import math
from io import SEEK_END, BytesIO
from typing import Any, BinaryIO, ClassVar

import numpy as np
import numpy.lib.format as npy
import numpy.typing as npt

from ecgdist.errors import RecordRefused
from ecgdist.record import Recording
from ecgdist.sources.base import Listing, Source
from ecgdist.sources.hdf5_file import MAX_VALUES, refused
from ecgdist.sources.own_table import list_own, own_recording
from ecgdist.sources.record_file import open_record_file

_MAX_HEADER_BYTES = 10_000
# Versions of the format, with the bytes that hold the length of the header.
_VERSIONS = {(1, 0): (2, npy.read_array_header_1_0), (2, 0): (4, npy.read_array_header_2_0)}


class NpyFolder(Source):
    """One record per row of the table."""

    kind: ClassVar[str] = "npy"
    dataset: ClassVar[str] = "npy"
    licence: ClassVar[str] = "as stated by the owner of the files"
    citation: ClassVar[str] = (
        "the one that comes with the files; for the format: Harris CR et al. Array programming with NumPy. Nature "
        "585, 357-362 (2020). https://doi.org/10.1038/s41586-020-2649-2"
    )

    def list_records(self) -> list[Listing]:
        return list_own(self.root)

    def _read(self, listing: Listing) -> Recording:
        with open_record_file(self.root / listing.key) as content:
            values = _record(content, listing.row)
        return own_recording(self.kind, listing, values)


def _record(content: BinaryIO, row: int | None) -> npt.NDArray[Any]:
    """The two-dimensional array of one record."""
    shape, fortran, dtype, offset = _header(content)
    if len(shape) != (2 if row is None else 3) or 0 in shape:
        wanted = "(leads, samples)" if row is None else "(records, leads, samples)"
        raise refused(f"the array has shape {shape}, not {wanted}")
    if row is not None and row >= shape[0]:
        raise refused(f"the array has {shape[0]} records, not record {row}")
    # With the first index running fastest, a record is spread over the whole array.
    whole = row is None or fortran
    num_values = math.prod(shape if whole else shape[1:])
    if num_values > MAX_VALUES:
        raise refused(f"the array has shape {shape}; 2**25 values at most are read at once")
    start = offset if whole or row is None else offset + row * num_values * dtype.itemsize
    num_bytes = num_values * dtype.itemsize
    if content.seek(0, SEEK_END) < start + num_bytes:
        raise RecordRefused("truncated_signal", f"the file is shorter than its shape {shape} needs")
    content.seek(start)
    values = np.frombuffer(content.read(num_bytes), dtype)
    if not whole:
        return values.reshape(shape[1:])
    array = values.reshape(shape, order="F" if fortran else "C")
    return array if row is None else array[row]


def _header(content: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, order, type and the place of the first value."""
    start = content.read(npy.MAGIC_LEN + 4)
    try:
        length_bytes, read_header = _VERSIONS[npy.read_magic(BytesIO(start))]
        length = int.from_bytes(start[npy.MAGIC_LEN : npy.MAGIC_LEN + length_bytes], "little")
        if length > _MAX_HEADER_BYTES:
            raise ValueError(f"its header has {length} bytes")
        offset = npy.MAGIC_LEN + length_bytes + length
        content.seek(npy.MAGIC_LEN)
        header = BytesIO(content.read(length_bytes + length))
        shape, fortran, dtype = read_header(header, _MAX_HEADER_BYTES)
    except (ValueError, TypeError, LookupError, SyntaxError, RecursionError, MemoryError) as error:
        raise refused("the file does not start with the header of a .npy array") from error
    if dtype.kind not in "iuf" or dtype.itemsize > 8 or min(shape, default=0) < 0:
        raise refused(f"the array holds {dtype} values in shape {shape}, not plain numbers")
    return shape, fortran, dtype, offset
