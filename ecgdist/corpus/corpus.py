"""Open a corpus and read it."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ecgdist.corpus.codec import decode
from ecgdist.corpus.examples import RefusedExample, refused_examples
from ecgdist.corpus.footer import read_footer
from ecgdist.corpus.manifest import Manifest
from ecgdist.corpus.schema import (
    FACTS_BYTES,
    INDEX,
    fingerprint_array,
    read_plain,
    refuse_bomb,
    shard_schema,
    signal_array,
    signal_bytes,
    signal_column,
    stored_array,
)
from ecgdist.errors import DataError, MissingFileError
from ecgdist.storage import Location, translated

MANIFEST = "manifest.json"
INDEX_FILE = "index.parquet"
REFUSED_FILE = "refused.parquet"
EXAMPLES_FILE = "examples.parquet"

_MAX_OPEN_SHARDS = 128
"""A corpus may have more shards than a process may have open files."""


class Corpus:
    """A packed corpus, opened for reading. Row groups are numbered through all shards, in order.

    Attributes:
        location: the folder.
        manifest: its manifest, checked.
    """

    def __init__(self, where: str | os.PathLike[str] | Location) -> None:
        """Open the corpus at `where`.

        Raises:
            DataError: if the folder has no manifest (packing never finished there) or a changed one.
            StorageError: if it cannot be read.
        """
        self.location = Location.of(where)
        path = self.location / MANIFEST
        if not path.exists():
            raise DataError(
                f"{self.location} is not a corpus: it has no {MANIFEST}; "
                f"make one with `ecgdist pack KIND=DIR --out {self.location}`"
            )
        self.manifest = Manifest.from_bytes(path.read_bytes(), str(path))
        self._group_rows = np.array(
            [rows for s in self.manifest.shards for rows in s.row_groups], dtype=np.int64
        )
        groups_per_shard = [len(shard.row_groups) for shard in self.manifest.shards]
        self._first_group = np.concatenate([[0], np.cumsum(groups_per_shard)]).astype(np.int64)
        self._open_shards: dict[int, pq.ParquetFile] = {}
        self._columns: dict[str, pa.ChunkedArray] = {}

    def reopened(self) -> Corpus:
        """The same corpus with open files of its own: a Parquet file serves one thread at a time."""
        other = copy.copy(self)
        other._open_shards = {}
        return other

    @property
    def corpus_id(self) -> str:
        """Identity of the corpus: a hash of its manifest."""
        return self.manifest.corpus_id

    @property
    def num_samples(self) -> int:
        """Samples of every row's signal."""
        return self.manifest.pack.num_samples

    @property
    def group_rows(self) -> npt.NDArray[np.int64]:
        """``(groups,)`` rows of each row group."""
        return self._group_rows

    @property
    def index(self) -> pa.Table:
        """One row per row of the corpus, without signal, in the order of shards (columns: `schema.INDEX`)."""
        return self.columns(*INDEX.names)

    def columns(self, *names: str) -> pa.Table:
        """Some columns of the index; of a large corpus the whole takes gigabytes. They are kept for the next call.

        Raises:
            DataError: if the index was damaged or changed.
        """
        missing = [name for name in names if name not in self._columns]
        if missing:
            content = self._checked(INDEX_FILE, self.manifest.index_sha256)
            # Its hash is right, but whoever makes a corpus makes its manifest, too.
            with _damage_named(self.location / INDEX_FILE):
                table = read_plain(content, missing)
                found = {n: table[n].cast(INDEX.field(n).type) for n in missing}
            if table.num_rows != self.manifest.rows:
                raise DataError(
                    f"{self.location / INDEX_FILE} has {table.num_rows} rows, "
                    f"its manifest {self.manifest.rows}"
                )
            self._columns.update(found)
        return pa.table({name: self._columns[name] for name in names})

    @property
    def fingerprints(self) -> npt.NDArray[np.uint8]:
        """``(rows, FINGERPRINT_BYTES)`` of the waveforms, see `signals.fingerprint`."""
        return fingerprint_array(self.columns("fingerprint")["fingerprint"])

    @property
    def refused(self) -> pa.Table:
        """The records that packing refused (columns: `schema.REFUSED`)."""
        content = self._checked(REFUSED_FILE, self.manifest.refused_sha256)
        with _damage_named(self.location / REFUSED_FILE):
            return read_plain(content)

    @property
    def refused_examples(self) -> list[RefusedExample]:
        """The beginnings of the first refused recordings of each reason, where there was a signal to keep."""
        sha256 = self.manifest.examples_sha256
        if sha256 is None:
            return []
        content = self._checked(EXAMPLES_FILE, sha256)
        with _damage_named(self.location / EXAMPLES_FILE):
            return refused_examples(read_plain(content))

    @cached_property
    def groups_of_rows(self) -> npt.NDArray[np.int64]:
        """``(rows,)`` number of the row group that each row of the index lies in."""
        places = self.columns("shard", "row_group")
        first = self._first_group[places["shard"].to_numpy()]
        groups: npt.NDArray[np.int64] = first + places["row_group"].to_numpy()
        return groups

    def read_group(
        self, group: int, columns: Sequence[str], rows: npt.NDArray[np.int64] | None = None
    ) -> pa.Table:
        """One row group, or chosen rows of it.

        Args:
            group: its number.
            columns: names out of `schema.shard_schema`; ``signal`` comes decoded, as int16 bytes, 12 x samples.
            rows: rows of the group, in the order in which they are wanted; default all.

        Raises:
            DataError: if it does not have the rows that the manifest says.
            StorageError: if it cannot be read.
        """
        shard = int(np.searchsorted(self._first_group, group, side="right")) - 1
        facts = self.manifest.shards[shard]
        path = self.location / "shards" / facts.name
        place = group - int(self._first_group[shard])
        with (
            translated(str(path)),
            _damage_named(path, f"row group {place}: "),
            self._closing_after_failure(shard),
        ):
            file = self._shard(shard, path)
            found = file.metadata.row_group(place).num_rows if place < file.num_row_groups else 0
            # Before anything is read, so that no file can claim more rows than memory holds.
            if found != self._group_rows[group]:
                raise DataError(
                    f"{path}: row group {place} has {found} rows, its manifest {self._group_rows[group]}"
                )
            # Nearly all the work is in one column, and threads for the others cost more than they give.
            table = file.read_row_group(place, columns=list(columns), use_threads=False)
            if table.num_rows != found:
                raise ValueError(f"{found} rows are announced, {table.num_rows} are there")
            return pa.table({name: self._column(table[name], name, rows) for name in columns})

    def iter_signals(
        self, rows: npt.NDArray[np.int64], batch_rows: int
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int16]]]:
        """Signals of chosen rows of the index, in ascending order of rows.

        Yields:
            ``(b,)`` rows of the index and their ``(b, 12, samples)`` int16 signals in microvolt; b is at most
            `batch_rows`.
        """
        rows = np.sort(np.asarray(rows, dtype=np.int64))
        groups = self.groups_of_rows[rows]
        offsets = self.columns("row")["row"].to_numpy()[rows]
        pending_rows: list[npt.NDArray[np.int64]] = []
        pending: list[npt.NDArray[np.int16]] = []
        for group in np.unique(groups):
            here = groups == group
            table = self.read_group(int(group), ["signal"], offsets[here])
            pending_rows.append(rows[here])
            pending.append(signal_array(table["signal"], self.num_samples))
            while sum(map(len, pending)) >= batch_rows:
                all_rows, all_signals = np.concatenate(pending_rows), np.concatenate(pending)
                yield all_rows[:batch_rows], all_signals[:batch_rows]
                pending_rows, pending = [all_rows[batch_rows:]], [all_signals[batch_rows:]]
        if sum(map(len, pending)):
            yield np.concatenate(pending_rows), np.concatenate(pending)

    def verify(self) -> None:
        """Compare every file with the manifest's hash.

        Raises:
            DataError: naming the first file that differs.
        """
        self._checked(INDEX_FILE, self.manifest.index_sha256)
        self._checked(REFUSED_FILE, self.manifest.refused_sha256)
        if self.manifest.examples_sha256 is not None:
            self._checked(EXAMPLES_FILE, self.manifest.examples_sha256)
        for shard in self.manifest.shards:
            self._checked(f"shards/{shard.name}", shard.sha256)

    def _column(
        self, column: pa.ChunkedArray, name: str, rows: npt.NDArray[np.int64] | None
    ) -> pa.ChunkedArray | pa.Array:
        """A column of a row group as the caller gets it: `rows` of it, signals decoded."""
        if name == "signal":
            return signal_column(decode(stored_array(column, self.num_samples), self.num_samples, rows))
        return column if rows is None else column.take(pa.array(rows))

    @contextmanager
    def _closing_after_failure(self, shard: int) -> Iterator[None]:
        """A second try begins with the file itself: what a reader keeps after a failure is its own affair."""
        try:
            yield
        except OSError:
            self._open_shards.pop(shard, None)
            raise

    def _shard(self, shard: int, path: Location) -> pq.ParquetFile:
        if shard not in self._open_shards:
            if len(self._open_shards) >= _MAX_OPEN_SHARDS:
                self._open_shards.pop(next(iter(self._open_shards))).close(force=True)
            filesystem, name = path.arrow()
            opened = filesystem.open_input_file(name)
            metadata = read_footer(opened, self.manifest.shards[shard])
            file = pq.ParquetFile(opened, metadata=metadata, pre_buffer=True, page_checksum_verification=True)
            # Whoever makes a corpus makes its manifest, too.
            if not file.schema_arrow.equals(shard_schema(self.num_samples)):
                raise ValueError("its columns are not those of a corpus")
            most_bytes = self.manifest.shards[shard].rows * (signal_bytes(self.num_samples) + FACTS_BYTES)
            refuse_bomb(file.metadata, most_bytes)
            self._open_shards[shard] = file
        return self._open_shards[shard]

    def _checked(self, name: str, sha256: str) -> bytes:
        path = self.location / name
        try:
            content = path.read_bytes()
        except MissingFileError as error:
            raise DataError(f"the corpus is not whole: {error}; pack it again") from error
        if hashlib.sha256(content).hexdigest() != sha256:
            raise DataError(
                f"{path} differs from its manifest's sha256: it was damaged or changed; pack the corpus again"
            )
        return content


@contextmanager
def _damage_named(path: Location, part: str = "") -> Iterator[None]:
    """Tell a damaged file, which no second try mends, from storage that fails; `part` is named before the cause."""
    try:
        yield
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        # Arrow's own complaints about content carry no error number; those of a bucket name AWS.
        if isinstance(error, OSError) and (error.errno is not None or "AWS Error" in str(error)):
            raise
        cause = str(error).strip().splitlines()[0]
        raise DataError(f"{path} is damaged ({part}{cause}); pack the corpus again") from error
