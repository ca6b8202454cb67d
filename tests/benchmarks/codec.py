"""What signals cost to store and to read: in several forms, in row groups and in shards of several sizes.

Run with ``python -m tests.benchmarks.codec [KIND=DIR ...]``: the sources named, packed at 250 Hz, or else the shipped
sample at its own 100 Hz. All are written and read in one run, alternately, several times. A cell is median, range,
and the median of the paired ratios to what corpora had before (int16 under zstd 1) or to the size in use. Reading
is of whole row groups in random order from Parquet with page checksums, decoding included: local (in the page
cache) and from SeaweedFS on this machine.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ecgdist.corpus import codec
from ecgdist.corpus.schema import ROWS_PER_GROUP, shard_schema, shard_writer, signal_array, signal_column
from ecgdist.errors import RecordRefused
from ecgdist.packing import PackConfig
from ecgdist.preprocessing import PackStep
from ecgdist.record import NUM_LEADS
from ecgdist.sample import sample_folder
from ecgdist.sources import open_source
from ecgdist.storage import Location
from tests.benchmarks.results import table, write_section
from tests.conftest import seaweedfs

REPEATS = 5
ROWS_READ = 1024
"""The ECGs are repeated up to so many; zstd does not look back far enough to see it."""
GROUP_SIZES = (32, 64, 128, 256, 512)
SHARD_ROWS = (1024, 2048, 4096, 8192)
SHARD_ROWS_IN_USE = PackConfig.model_fields["records_per_shard"].default
OPENINGS = 8
"""So many times a shard is opened in a repeat."""
ROWS_AT_ONCE = 8

Signals = npt.NDArray[np.int16]
Encode = Callable[[Signals], Signals]


@dataclass(frozen=True)
class Form:
    """A way to store signals: what happens to ``(rows, 12, samples)`` int16 before Parquet compresses it."""

    limb: bool = False
    """Limb leads as residuals of Einthoven's and Goldberger's identities."""
    eight_leads: bool = False
    """Drop these residuals, which loses them: what storing eight leads would take."""
    order: int = 0
    """Differences in time, so many times."""
    planes: bool = False
    """High bytes apart from low ones, moved so that the high bytes of small residuals are zero."""

    def encode(self, signals: Signals) -> Signals:
        stored = np.empty(signals.shape, "<i2")
        for start in range(0, len(signals), ROWS_AT_ONCE):
            here = slice(start, start + ROWS_AT_ONCE)
            stored[here] = self._encode_some(signals[here])
        return stored

    def _encode_some(self, signals: Signals) -> Signals:
        residual = signals.copy()
        if self.limb:
            residual[:, 2:6] -= _predicted(signals, signals[:, 2])
        if self.eight_leads:
            residual[:, 2:6] = 0
        for leads in self._leads():
            for _ in range(self.order):
                residual[:, leads, 1:] = np.diff(residual[:, leads], axis=-1)
        if not self.planes:
            return residual
        moved = residual.view(np.uint16) + np.uint16(128)
        planes = np.stack([(moved >> 8).astype(np.uint8), moved.astype(np.uint8)], axis=1)
        return planes.reshape(len(planes), -1).view("<i2").reshape(signals.shape)

    def decode(self, stored: Signals) -> Signals:
        if self == Form():
            return stored
        signals = np.empty_like(stored)
        for start in range(0, len(stored), ROWS_AT_ONCE):
            here = slice(start, start + ROWS_AT_ONCE)
            signals[here] = self._decode_some(stored[here])
        return signals

    def _decode_some(self, stored: Signals) -> Signals:
        if self.planes:
            planes = stored.reshape(len(stored), -1).view(np.uint8).reshape(len(stored), 2, *stored.shape[1:])
            residual = planes[:, 0].astype(np.int32)
            residual <<= 8
            residual += planes[:, 1]
            residual -= 128
        else:
            residual = stored.astype(np.int32)
        for leads in self._leads():
            for _ in range(self.order):
                np.add.accumulate(residual[:, leads], axis=-1, out=residual[:, leads])
        signals = residual.astype(np.int16)
        if self.limb:
            signals[:, 2] += signals[:, 1] - signals[:, 0]
            signals[:, 3:6] += _predicted(signals, signals[:, 2])[:, 1:]
        return signals

    def _leads(self) -> tuple[slice, ...]:
        return (slice(0, 2), slice(6, 12)) if self.limb else (slice(None),)


@dataclass(frozen=True)
class Stored(Form):
    """The form that corpora have: `ecgdist.corpus.codec` itself."""

    def encode(self, signals: Signals) -> Signals:
        return codec.encode(signals).view("<i2").reshape(signals.shape)

    def decode(self, stored: Signals) -> Signals:
        return codec.decode(stored.reshape(len(stored), -1).view(np.uint8), stored.shape[2])


PLAIN = ("int16", Form(), "zstd", 1)
KEPT = (codec.CODEC, Stored(), "zstd", 1)
CANDIDATES: tuple[tuple[str, Form, str, int | None], ...] = (
    ("int16", Form(), "none", None),
    ("int16", Form(), "lz4", None),
    PLAIN,
    ("int16", Form(), "zstd", 3),
    ("delta", Form(order=1), "zstd", 1),
    ("delta, planes", Form(order=1, planes=True), "zstd", 1),
    ("limb, delta", Form(limb=True, order=1), "zstd", 1),
    ("limb, second delta, planes", Form(limb=True, order=2, planes=True), "zstd", 1),
    ("8 leads, delta, planes (loses)", Form(limb=True, eight_leads=True, order=1, planes=True), "zstd", 1),
    (codec.CODEC, Stored(), "lz4", None),
    KEPT,
    (codec.CODEC, Stored(), "zstd", 3),
)


def _predicted(signals: Signals, iii: Signals) -> Signals:
    """III, aVR, aVL and aVF as the other limb leads have them: ``(rows, 4, samples)``."""
    i, ii = signals[:, 0], signals[:, 1]
    return np.stack([ii - i, -((i + ii) >> 1), (i - iii) >> 1, (ii + iii) >> 1], axis=1)


def packed(sources: Sequence[str], rate_hz: float) -> Signals:
    """All segments of all records of the sources."""
    pack = PackStep(rate_hz=rate_hz)
    segments = []
    for text in sources:
        kind, _, folder = text.partition("=")
        source = open_source(kind, Location.of(folder))
        for recording in source.read_many(source.list_records()):
            if isinstance(recording, RecordRefused):
                continue
            try:
                segments += [segment.signal_uv for segment in pack.segments(recording)]
            except RecordRefused:
                continue
    return np.stack(segments)


def rows_that_keep_the_identities(signals: Signals) -> float:
    """Share of rows whose limb leads differ nowhere by more than 1 µV from what I and II give."""
    i, ii, iii, avr, avl, avf = signals[:, :6].astype(np.int32).swapaxes(0, 1)
    twice = np.stack([2 * (iii - ii + i), 2 * avr + i + ii, 2 * avl - 2 * i + ii, 2 * avf - 2 * ii + i])
    return float((np.abs(twice).max(axis=(0, 2)) <= 2).mean())


def write(stored: Signals, path: Path, compression: str, level: int | None, group_rows: int) -> None:
    """Stored rows as a shard's signal column, with the settings of `schema.shard_writer`."""
    pq.write_table(
        pa.table({"signal": signal_column(stored)}),
        path,
        row_group_size=group_rows,
        compression=compression,
        compression_level=level,
        use_dictionary=False,
        write_statistics=False,
        store_schema=False,
        write_page_checksum=True,
    )


def read_per_second(where: Location, decode: Encode, samples: int, groups: npt.NDArray[np.int64]) -> float:
    """ECGs per second of one process that opens a file and reads row groups in the given order."""
    filesystem, name = where.arrow()
    rows = 0
    began = time.perf_counter()
    file = pq.ParquetFile(filesystem.open_input_file(name), pre_buffer=True, page_checksum_verification=True)
    for group in groups:
        column = file.read_row_group(int(group), use_threads=False)["signal"]
        rows += len(decode(signal_array(column, samples)))
    return rows / (time.perf_counter() - began)


def measure_forms(signals: Signals, folder: Path, bucket: Location) -> list[dict[str, list[float]]]:
    """For each candidate: bytes per ECG, and ECG/s of writing and of reading, one value per repeat."""
    samples = signals.shape[2]
    many = np.resize(signals, (ROWS_READ, NUM_LEADS, samples))
    groups = np.random.default_rng(0).permutation(ROWS_READ // ROWS_PER_GROUP)
    found: list[dict[str, list[float]]] = [
        {"bytes": [], "write": [], "local": [], "s3": []} for _ in CANDIDATES
    ]
    for repeat in range(REPEATS):
        for number, (_, form, compression, level) in enumerate(CANDIDATES):
            path = folder / f"{number}.parquet"
            began = time.perf_counter()
            write(form.encode(many), path, compression, level, ROWS_PER_GROUP)
            found[number]["write"].append(ROWS_READ / (time.perf_counter() - began))
            found[number]["bytes"].append(path.stat().st_size / ROWS_READ)
            if repeat == 0:
                (bucket / path.name).upload(str(path))
                _require_whole(form, many, path)
            for place, where in (("local", Location.of(path)), ("s3", bucket / path.name)):
                found[number][place].append(read_per_second(where, form.decode, samples, groups))
    return found


def measure_groups(signals: Signals, folder: Path, bucket: Location) -> dict[int, dict[str, list[float]]]:
    """The kept form in row groups of several sizes: bytes per ECG and reading ECG/s."""
    _, form, compression, level = KEPT
    samples = signals.shape[2]
    stored = form.encode(np.resize(signals, (ROWS_READ, NUM_LEADS, samples)))
    found: dict[int, dict[str, list[float]]] = {}
    for size in GROUP_SIZES:
        path = folder / f"groups-{size}.parquet"
        write(stored, path, compression, level, size)
        (bucket / path.name).upload(str(path))
        found[size] = {"bytes": [path.stat().st_size / ROWS_READ], "local": [], "s3": []}
    for _ in range(REPEATS):
        for size in GROUP_SIZES:
            path = folder / f"groups-{size}.parquet"
            groups = np.random.default_rng(0).permutation(ROWS_READ // size)
            for place, where in (("local", Location.of(path)), ("s3", bucket / path.name)):
                found[size][place].append(read_per_second(where, form.decode, samples, groups))
    return found


def measure_shards(signals: Signals, folder: Path, bucket: Location) -> dict[int, dict[str, list[float]]]:
    """Shards with all their columns, opened anew for each row group, as by a worker that meets them at random."""
    samples = signals.shape[2]
    stored = codec.encode(np.resize(signals, (ROWS_PER_GROUP, NUM_LEADS, samples)))
    schema = shard_schema(samples)
    columns = {field.name: pa.nulls(ROWS_PER_GROUP, field.type) for field in schema}
    columns["signal"] = signal_column(stored.view("<i2").reshape(-1, NUM_LEADS, samples))
    found: dict[int, dict[str, list[float]]] = {}
    for rows in SHARD_ROWS:
        path = folder / f"shard-{rows}.parquet"
        with shard_writer(path, samples) as writer:
            for _ in range(rows // ROWS_PER_GROUP):
                writer.write_table(pa.table(columns, schema=schema))
        (bucket / path.name).upload(str(path))
        found[rows] = {"bytes": [path.stat().st_size / rows], "local": [], "s3": []}
    for _ in range(REPEATS):
        for rows in SHARD_ROWS:
            path = folder / f"shard-{rows}.parquet"
            groups = np.random.default_rng(0).integers(0, rows // ROWS_PER_GROUP, OPENINGS)
            for place, where in (("local", Location.of(path)), ("s3", bucket / path.name)):
                rates = [
                    read_per_second(where, Stored().decode, samples, groups[i : i + 1])
                    for i in range(OPENINGS)
                ]
                found[rows][place].append(statistics.harmonic_mean(rates))
    return found


def _require_whole(form: Form, signals: Signals, path: Path) -> None:
    """A form that gives other signals back measures nothing."""
    read = form.decode(signal_array(pq.read_table(path)["signal"], signals.shape[2]))
    if not form.eight_leads and not np.array_equal(read, signals):
        raise RuntimeError(f"{form} does not give back what it stored")


def main() -> None:
    """Measure, print the tables and write them down."""
    sources, rate_hz = (sys.argv[1:], 250.0) if sys.argv[1:] else ([f"ptbxl={sample_folder()}"], 100.0)
    signals = packed(sources, rate_hz)
    paragraphs = [
        f"{len(signals)} ECGs of {signals.shape[2]} samples at {rate_hz:g} Hz; limb leads keep the identities to "
        f"1 µV throughout in {rows_that_keep_the_identities(signals):.0%} of them. ECG/s of one process: median "
        f"(range) of {REPEATS}, and as a share of int16 under zstd 1 or of the size in use. Whole row groups are read "
        "in random order, decoding included; S3 is SeaweedFS on the same machine."
    ]
    with tempfile.TemporaryDirectory() as temporary, seaweedfs(Path(temporary)) as server:
        os.environ.update(server.environment)
        bucket = Location.of("s3://ecg/codec")
        paragraphs.append(_forms_table(measure_forms(signals, Path(temporary), bucket)))
        groups = measure_groups(signals, Path(temporary), bucket)
        paragraphs += ["### Rows of a row group", _sizes_table(ROWS_PER_GROUP, groups)]
        shards = measure_shards(signals, Path(temporary), bucket)
        paragraphs += [
            "### Rows of a shard that is opened for one row group",
            _sizes_table(SHARD_ROWS_IN_USE, shards),
        ]
    print("\n\n".join(paragraphs))
    # Without the folders, which mean nothing on other machines.
    words = [f"{text.partition('=')[0]}=DIR" for text in sys.argv[1:]]
    write_section("Codec", " ".join(["python -m tests.benchmarks.codec", *words]), paragraphs)


def _forms_table(found: list[dict[str, list[float]]]) -> str:
    rows = []
    plain = found[CANDIDATES.index(PLAIN)]
    for (name, _, compression, level), values in zip(CANDIDATES, found, strict=True):
        cells = (_cell(values[what], plain[what]) for what in ("write", "local", "s3"))
        size = values["bytes"][0]
        share = f"{size / plain['bytes'][0]:.2f}"
        rows.append([f"{name}, {compression} {level or ''}".strip(), f"{size / 1e3:.2f}", share, *cells])
    return table(["form", "kB/ECG", "of int16", "write", "read local", "read S3"], rows)


def _sizes_table(present: int, found: Mapping[int, Mapping[str, list[float]]]) -> str:
    rows = []
    now = found[present]
    for size, values in found.items():
        per_ecg = values["bytes"][0]
        cells = (_cell(values[place], now[place]) for place in ("local", "s3"))
        rows.append([f"{size:,}", f"{size * per_ecg / 1e6:,.1f}", f"{per_ecg / 1e3:.2f}", *cells])
    return table(["rows", "MB", "kB/ECG", "read local", "read S3"], rows)


def _cell(values: Sequence[float], base: Sequence[float]) -> str:
    shares = [value / other for value, other in zip(values, base, strict=True)]
    return (
        f"{statistics.median(values):,.0f} ({min(values):,.0f}-{max(values):,.0f}) "
        f"{statistics.median(shares):.2f}"
    )


if __name__ == "__main__":
    main()
