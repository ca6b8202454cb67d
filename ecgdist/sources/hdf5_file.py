"""Numbers out of an HDF5 file that may come from anybody, from a folder or a bucket.

HDF5 can make a reader follow links into other files, load filter plugins, inflate without bound and allocate what
a header declares. So this reader takes only what a data set of ECGs needs: a dataset under its own name (no soft or
external link, no external storage, no virtual dataset), of plain numbers, stored whole or in chunks that are gzip
compressed or not. Anything else is a refusal of the records in the file. It never loads a plugin.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import lru_cache
from io import SEEK_END, SEEK_SET, RawIOBase
from threading import Lock
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ecgdist.errors import ConfigError, RecordRefused
from ecgdist.sources.record_file import open_record_file
from ecgdist.storage import Location

MAX_VALUES = 2**25
"""Most numbers that are read at once: one record of 12 leads and 93 minutes at 500 Hz, 256 MiB as float64."""
_MAX_VECTOR_VALUES = 2**20
_MAX_CHUNK_BYTES = 2**26
_BLOCK_VALUES = 2**23
_BLOCK_ROWS = 32

_GZIP, _SHUFFLE = 1, 2  # numbers of the filters in the HDF5 specification

# What h5py and HDF5 raise on content that they do not understand.
_CONTENT_ERRORS = (OSError, RuntimeError, ValueError, TypeError, LookupError, ArithmeticError)

Numbers = npt.NDArray[Any]

_CLEARING = Lock()


def refused(detail: str) -> RecordRefused:
    """The refusal of a record whose file cannot be read."""
    return RecordRefused("unreadable_signal", detail)


@lru_cache(maxsize=1)
def _h5py() -> Any:
    """The h5py package, with an empty search path for filter plugins: they are code.

    Raises:
        ConfigError: if it is not installed.
    """
    try:
        import h5py
    except ImportError:
        raise ConfigError(
            "reading HDF5 files needs h5py; install it with pip install 'ecgdist[hdf5]'"
        ) from None
    with _CLEARING:  # several threads may read at once
        while h5py.h5pl.size():
            h5py.h5pl.remove(0)
    return h5py


class _File(RawIOBase):
    """What HDF5 reads from: a failure of the storage becomes zeros here and is kept for the caller to raise.

    An error raised inside HDF5 would come out as one of HDF5's own, as if the file were damaged, or not at all.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = file.seek(0, SEEK_END)
        self.failure: Exception | None = None

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        filled = 0
        if self.failure is None and 0 <= self._position < self._size:
            try:
                self._file.seek(self._position)
                filled = self._file.readinto(view[: self._size - self._position])  # type: ignore[attr-defined]
            except Exception as error:  # noqa: BLE001 - raised again by whoever asked HDF5
                self.failure = error
        view[filled:] = bytes(len(view) - filled)
        return len(view)

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        self._position = self._size + offset if whence == SEEK_END else offset
        return self._position

    def tell(self) -> int:
        return self._position


class Hdf5Array:
    """A dataset of numbers.

    Attributes:
        shape: as declared; nothing has been read or allocated for it.
        dtype: type of the numbers.
    """

    def __init__(self, owner: Hdf5File, name: str, dataset: Any) -> None:
        self._owner, self._name, self._dataset = owner, name, dataset
        plist = dataset.get_create_plist()
        h5py = _h5py()
        layout = plist.get_layout()
        # Before anything else is asked of it: the shape of a virtual dataset may depend on other files.
        if layout == h5py.h5d.VIRTUAL or plist.get_external_count():
            raise refused(f"the values of {name} lie in other files")
        self.shape: tuple[int, ...] = dataset.shape or ()
        self.dtype = _plain_dtype(name, dataset.get_type())
        self._chunk: tuple[int, ...] | None = plist.get_chunk() if layout == h5py.h5d.CHUNKED else None
        self._filters = _known_filters(name, plist)
        if self._chunk and math.prod(self._chunk) * self.dtype.itemsize > _MAX_CHUNK_BYTES:
            raise refused(f"{name} is stored in chunks of shape {self._chunk}; they may have 64 MiB at most")

    def block_end(self, row: int) -> int:
        """How far, from a row on, to read rows together: some, or all of a chunk, if they are not too large."""
        chunk_rows = self._chunk[0] if self._chunk else 1
        together = max(1, min(max(_BLOCK_ROWS, chunk_rows), _BLOCK_VALUES // math.prod(self.shape[1:])))
        end = row + together
        return max(row + 1, end - end % chunk_rows) if chunk_rows <= together else end

    def read(self, start: int, stop: int) -> Numbers:
        """Rows ``start:stop``, as stored.

        Raises:
            RecordRefused: ``unreadable_signal`` if they are not in the file or too large.
            StorageError: if the storage itself fails.
        """
        if not 0 <= start < stop <= self.shape[0]:
            raise refused(f"{self._name} has {self.shape[0]} rows, not row {stop - 1}")
        if (stop - start) * math.prod(self.shape[1:]) > MAX_VALUES:
            raise refused(f"{self._name} has shape {self.shape}; a record may have 2**25 values at most")
        with self._owner.guarded():
            if self._chunk:
                return self._read_chunks(start, stop)
            if not self._dataset.get_storage_size():
                raise refused(f"{self._name} declares shape {self.shape} and holds no data")
            return self._read_whole(start, stop)

    def _read_whole(self, start: int, stop: int) -> Numbers:
        values = np.empty((stop - start, *self.shape[1:]), self.dtype)
        if (place := self._dataset.get_offset()) is not None:
            # The values lie in the file as they are here, and HDF5 would copy them once more.
            self._owner.read_plain(place + start * values[0].nbytes, values)
            return values
        h5s = _h5py().h5s
        selection = self._dataset.get_space()
        selection.select_hyperslab((start, *(0 for _ in self.shape[1:])), values.shape)
        self._dataset.read(h5s.create_simple(values.shape), selection, values)
        return values

    def _read_chunks(self, start: int, stop: int) -> Numbers:
        """Chunks are decoded here: HDF5 inflates whatever a chunk expands to, far beyond its declared size."""
        assert self._chunk is not None
        values = np.empty((stop - start, *self.shape[1:]), self.dtype)
        starts = [range(start - start % self._chunk[0], stop, self._chunk[0])]
        starts += [range(0, size, step) for size, step in zip(self.shape[1:], self._chunk[1:], strict=True)]
        for corner in itertools.product(*starts):
            chunk = self._decode(corner)
            first = max(corner[0], start)
            inside = [slice(first - corner[0], min(corner[0] + self._chunk[0], stop) - corner[0])]
            target = [slice(first - start, first - start + inside[0].stop - inside[0].start)]
            for at, step, size in zip(corner[1:], self._chunk[1:], self.shape[1:], strict=True):
                inside.append(slice(0, min(step, size - at)))
                target.append(slice(at, min(at + step, size)))
            values[tuple(target)] = chunk[tuple(inside)]
        return values

    def _decode(self, corner: tuple[int, ...]) -> Numbers:
        assert self._chunk is not None
        num_values = math.prod(self._chunk)
        num_bytes = num_values * self.dtype.itemsize
        # Incompressible data grow by less than a thousandth and 64 bytes when they are deflated: h5py refuses a
        # chunk that does not fit, and one that is absent.
        stored = np.empty(num_bytes + num_bytes // 1000 + 64, np.uint8)
        skipped, content = self._dataset.read_direct_chunk(corner, out=stored)
        for index, number in reversed(list(enumerate(self._filters))):
            if skipped >> index & 1:
                continue
            if number == _GZIP:
                inflater = zlib.decompressobj()
                content = inflater.decompress(content, num_bytes)
                if not inflater.eof and inflater.decompress(inflater.unconsumed_tail, 1):
                    raise refused(f"a chunk of {self._name} expands beyond its declared size")
            elif len(content) == num_bytes:
                planes = np.frombuffer(content, np.uint8).reshape(self.dtype.itemsize, num_values)
                content = planes.T.tobytes()
        if len(content) != num_bytes:
            raise refused(f"a chunk of {self._name} has {len(content)} bytes, not {num_bytes}")
        return np.frombuffer(content, self.dtype).reshape(self._chunk)


class Hdf5File:
    """An open file; get one with `open_hdf5`."""

    def __init__(self, file: BinaryIO) -> None:
        self._source = _File(file)
        with self.guarded():
            self._file = _open(self._source)
        self._vectors: dict[str, Numbers] = {}

    def array(self, name: str, dimensions: Sequence[int], kinds: str) -> Hdf5Array:
        """The dataset `name`, a path of names.

        Args:
            name: path of names.
            dimensions: how many it may have.
            kinds: numpy's letters of the accepted types, out of ``"iuf"``.

        Raises:
            RecordRefused: ``unreadable_signal`` if there is none that is safe to read.
            StorageError: if the storage itself fails.
        """
        with self.guarded():
            array = Hdf5Array(self, name, self._dataset(name))
        if len(array.shape) not in dimensions or 0 in array.shape:
            raise refused(f"{name} has shape {array.shape}, which is no array of ECGs")
        if array.dtype.kind not in kinds:
            raise refused(f"{name} holds {array.dtype} values")
        return array

    def vector(self, name: str) -> Numbers:
        """A one-dimensional dataset of whole numbers, read once.

        Raises:
            RecordRefused: ``unreadable_signal`` if there is none that is safe to read.
            StorageError: if the storage itself fails.
        """
        if name not in self._vectors:
            array = self.array(name, (1,), "iu")
            if array.shape[0] > _MAX_VECTOR_VALUES:
                raise refused(f"{name} declares {array.shape[0]} values; no published file has so many")
            self._vectors[name] = array.read(0, array.shape[0])
        return self._vectors[name]

    def read_plain(self, place: int, values: Numbers) -> None:
        """Fill an array with the bytes of the file from `place` on; to be called while `guarded`.

        Raises:
            RecordRefused: ``unreadable_signal`` if the file ends before.
        """
        if self._source.seek(0, SEEK_END) < place + values.nbytes:
            raise refused("the file is shorter than its arrays need")
        self._source.seek(place)
        self._source.readinto(values.reshape(-1).view(np.uint8))

    def _dataset(self, name: str) -> Any:
        h5py = _h5py()
        place = h5py.h5g.open(self._file, b"/")
        for part in name.strip("/").encode().split(b"/"):
            if not isinstance(place, h5py.h5g.GroupID) or not place.links.exists(part):
                raise refused(f"the file holds no dataset {name}")
            if place.links.get_info(part).type != h5py.h5l.TYPE_HARD:
                raise refused(f"{name} is a link to somewhere else, which is not followed")
            place = h5py.h5o.open(place, part)
        if not isinstance(place, h5py.h5d.DatasetID):
            raise refused(f"{name} is not a dataset")
        return place

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Turn what HDF5 raises into a refusal, and raise what the storage failed with, whatever HDF5 made of it."""
        try:
            yield
        except RecordRefused:
            self._raise_failure()
            raise
        except (*_CONTENT_ERRORS, zlib.error) as error:
            self._raise_failure()
            raise refused(f"HDF5 cannot read it: {error}") from error
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._source.failure is not None:
            raise self._source.failure from None


@contextmanager
def open_hdf5(file: Location) -> Iterator[Hdf5File]:
    """An HDF5 file for reading; in object storage only what is read is fetched.

    Raises:
        RecordRefused: ``missing_file`` or ``unsafe_path`` if there is no such file, ``unreadable_signal`` if it is not
            HDF5.
        StorageError: if the storage itself fails.
        ConfigError: if h5py is not installed.
    """
    _h5py()
    with open_record_file(file) as content, closing(Hdf5File(content)) as opened:
        yield opened


def _open(source: _File) -> Any:
    h5py = _h5py()
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    # Closed here and not by the garbage collector: one that a traceback keeps alive until Python has ended makes
    # HDF5 call into it, which is a segmentation fault.
    try:
        access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
        access.set_fileobj_driver(h5py.h5fd.fileobj_driver, source)
        return h5py.h5f.open(f"ecgdist-{id(source)}".encode(), h5py.h5f.ACC_RDONLY, access)
    finally:
        access.close()


def _plain_dtype(name: str, stored: Any) -> np.dtype[Any]:
    """The numpy type that is stored bit for bit: no strings, references, structures or odd-sized numbers."""
    h5py = _h5py()
    dtype = stored.dtype if stored.get_class() in (h5py.h5t.INTEGER, h5py.h5t.FLOAT) else None
    if (
        dtype is None
        or dtype.kind not in "iuf"
        or dtype.itemsize > 8
        or not h5py.h5t.py_create(dtype).equal(stored)
    ):
        raise refused(f"{name} does not hold plain numbers")
    plain: np.dtype[Any] = np.dtype(dtype.str)
    return plain


def _known_filters(name: str, plist: Any) -> list[int]:
    filters = [plist.get_filter(index)[0] for index in range(plist.get_nfilters())]
    if set(filters) - {_GZIP, _SHUFFLE}:
        detail = f"{name} is stored with filters {filters}; rewrite the file with gzip or without compression"
        raise refused(detail)
    return filters
