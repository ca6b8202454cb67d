"""How fast records are packed, beside the loop that everybody writes.

Run with ``python -m tests.benchmarks.packing``. In one run, alternately, on process pools of one size with BLAS on
one thread each:

* ours: read, leads by name, checks, 250 Hz, measures, int16, fingerprint, lossless coding, Parquet with checksums,
  SHA-256; written to a local folder. The band-pass runs later, in batches on the training device.
* the loop: `wfdb.rdrecord` (a row of `h5py` for HDF5), `scipy.signal.resample_poly` and a zero-phase band-pass
  (`sosfiltfilt`, 0.67 to 40 Hz, order 5) per record. It writes nothing.
* the loop without its filter, which does less than ours in every respect.

The records are the few real ones of ``tests/data`` over and over, as files of their own, in the page cache.
"""

from __future__ import annotations

import os

os.environ.update({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"})  # before numpy comes

import csv
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import h5py
import numpy as np
import wfdb
from scipy.signal import butter, resample_poly, sosfiltfilt

from ecgdist.corpus.codec import encode
from ecgdist.corpus.patients import PatientHasher
from ecgdist.packing.shards import Work, build_shard
from ecgdist.preprocessing import PackStep
from ecgdist.record import Recording
from ecgdist.signals.fingerprint import fingerprints
from ecgdist.signals.resample import resample
from ecgdist.sources import Listing, Source, open_source
from ecgdist.storage import Location
from tests.benchmarks.results import cell, table, write_section

DATA = Path(__file__).parents[1] / "data"
WFDB_16 = [DATA / "ptb-xl/records500/00000" / name for name in ("00001_hr", "00002_hr")]
MATLAB_4 = [
    DATA / name
    for name in (
        "wfdb/georgia/E07500", "wfdb/cpsc_2018/A0064", "challenge2021/ptb-xl/g1/HR00001",
        "challenge2021/ningbo/g1/JS20004",
    )
]  # fmt: skip
RECORDS = 480
REPEATS = 7
PROCESSES = os.cpu_count() or 1
TO_RATE_HZ = 250

Loop = Callable[[Sequence[Listing]], int]


@dataclass(frozen=True)
class Archive:
    """One kind of file: where it is, how ours reads it, and the loop over it, told whether to filter."""

    name: str
    kind: str
    folder: Path
    loop: Callable[[Path, bool, Sequence[Listing]], int]

    @property
    def source(self) -> Source:
        return open_source(self.kind, str(self.folder))


# The archives


def copy_records(folder: Path, originals: Sequence[Path], suffix: str) -> None:
    """`RECORDS` copies of WFDB records, each with a name and files of its own."""
    folder.mkdir()
    for number in range(RECORDS):
        original = originals[number % len(originals)]
        text = original.with_suffix(".hea").read_text(encoding="utf-8")
        (folder / f"r{number:04d}.hea").write_text(text.replace(original.name, f"r{number:04d}"))
        shutil.copyfile(original.with_suffix(suffix), folder / f"r{number:04d}{suffix}")


def copy_exams(folder: Path) -> None:
    """A part of CODE-15% with `RECORDS` exams, not compressed, and its table."""
    folder.mkdir()
    with h5py.File(DATA / "code15" / "exams_part0.hdf5") as part:
        tracings = part["tracings"][: len(part["exam_id"]) - 1]
    with (DATA / "code15" / "exams.csv").open() as table:
        rows = list(csv.DictReader(table))
    with h5py.File(folder / "exams_part0.hdf5", "w") as part:
        exams = tracings[np.arange(RECORDS) % len(tracings)]
        part["tracings"] = np.concatenate([exams, np.zeros_like(exams[:1])])
        part["exam_id"] = np.append(np.arange(1, RECORDS + 1), 0)
    with (folder / "exams.csv").open("w", newline="") as table:
        writer = csv.DictWriter(table, rows[0].keys())
        writer.writeheader()
        for number in range(RECORDS):
            own = {"exam_id": number + 1, "patient_id": number + 1, "trace_file": "exams_part0.hdf5"}
            writer.writerow({**rows[number % len(rows)], **own})


# The loop


@cache
def band() -> np.ndarray:
    return butter(5, (0.67, 40), "bandpass", fs=TO_RATE_HZ, output="sos")


def prepare(signal: np.ndarray, up: int, down: int, filtered: bool) -> None:
    moved = resample_poly(signal, up, down, axis=0)
    if filtered:
        sosfiltfilt(band(), moved, axis=0)


def wfdb_loop(folder: Path, filtered: bool, listings: Sequence[Listing]) -> int:
    for listing in listings:
        record = wfdb.rdrecord(str(folder / listing.key))
        prepare(record.p_signal, 1, 2, filtered)
    return len(listings)


def hdf5_loop(folder: Path, filtered: bool, listings: Sequence[Listing]) -> int:
    with h5py.File(folder / "exams_part0.hdf5") as part:
        for listing in listings:
            prepare(part["tracings"][int(listing.record_id) - 1], 5, 8, filtered)
    return len(listings)


# Ours


def pack_shard(work: Work, listings: Sequence[Listing]) -> int:
    """Build one shard; its number is the process's, since it is thrown away."""
    name = next(iter(work.sources))
    note = build_shard(work, os.getpid(), [(name, listing) for listing in listings])
    return sum(note.packed.values())


def work_of(archive: Archive, out: Path) -> Work:
    hasher = PatientHasher.from_environment()
    sources = {archive.kind: archive.source}
    return Work(Location.of(out), PackStep(), hasher, sources, private=False, relative_dates=False)


# Measuring


def ecg_per_second(pool: multiprocessing.pool.Pool, chunks: Sequence[Sequence[Listing]], loop: Loop) -> float:
    """ECGs per second and core of one pass over all chunks."""
    began = time.perf_counter()
    done = sum(pool.imap_unordered(loop, chunks))
    seconds = time.perf_counter() - began
    assert done == RECORDS, f"{done} of {RECORDS} records were packed"
    return done / seconds / PROCESSES


def measure(archive: Archive, out: Path) -> dict[str, list[float]]:
    """Every side, alternately, in the order of the table."""
    listings = archive.source.list_records()
    # As many chunks as keep all processes busy to the end; of a shard's size they are not, in so short a run.
    chunks = [listings[first : first + 60] for first in range(0, len(listings), 60)]
    sides: dict[str, Loop] = {
        "ours": partial(pack_shard, work_of(archive, out)),
        "loop": partial(archive.loop, archive.folder, True),
        "loop without filter": partial(archive.loop, archive.folder, False),
    }
    found: dict[str, list[float]] = {name: [] for name in sides}
    # Forked before anything starts a thread, so that imports are not measured.
    with multiprocessing.get_context("fork").Pool(PROCESSES) as pool:
        for repeat in range(REPEATS + 1):
            for name, loop in sides.items():
                speed = ecg_per_second(pool, chunks, loop)
                if repeat:  # the first one warms caches and filters up
                    found[name].append(speed)
    return found


def milliseconds_of_steps(archive: Archive, out: Path) -> dict[str, float]:
    """Where the time of ours goes: milliseconds an ECG in one process, the least of `REPEATS`."""
    source, step, work = archive.source, PackStep(), work_of(archive, out)
    listings = source.list_records()[:120]
    recordings = [each for each in source.read_many(listings) if isinstance(each, Recording)]
    segments = [segment for each in recordings for segment in step.segments(each)]
    lengths = np.array([step.num_samples])
    whole = least(lambda: pack_shard(work, listings))
    steps = {
        "read": least(lambda: list(source.read_many(listings))),
        "resample": least(lambda: [resample(r.signal_uv, r.rate_hz, TO_RATE_HZ) for r in recordings]),
        "check, measure, int16": least(lambda: [step.segments(each) for each in recordings]),
        "fingerprint": least(
            lambda: [
                fingerprints(s.signal_uv[None], TO_RATE_HZ, s.lead_mask[None], lengths) for s in segments
            ]
        ),
        "code": least(lambda: [encode(segment.signal_uv[None]) for segment in segments]),
    }
    steps["check, measure, int16"] -= steps["resample"]
    steps["compress, write, hash"] = whole - sum(steps.values())
    return {name: seconds * 1000 / len(listings) for name, seconds in {**steps, "all": whole}.items()}


def least(action: Callable[[], object]) -> float:
    def seconds() -> float:
        began = time.perf_counter()
        action()
        return time.perf_counter() - began

    return min(seconds() for _ in range(REPEATS))


# The tables


def rows_of(archive: Archive, found: dict[str, list[float]]) -> Iterator[list[str]]:
    for name, values in found.items():
        ratios = [ours / value for ours, value in zip(found["ours"], values, strict=True)]
        yield [archive.name, name, cell(values), cell(ratios, 1)]


def main() -> None:
    """Measure, print the tables and write them down."""
    speeds: list[list[str]] = []
    costs: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        copy_records(folder / "wfdb16", WFDB_16, ".dat")
        copy_records(folder / "matlab4", MATLAB_4, ".mat")
        copy_exams(folder / "hdf5")
        archives = (
            Archive("WFDB format 16, 500 Hz", "wfdb", folder / "wfdb16", wfdb_loop),
            Archive("MATLAB 4, 500 Hz", "wfdb", folder / "matlab4", wfdb_loop),
            Archive("HDF5 (CODE-15%), 400 Hz", "code15", folder / "hdf5", hdf5_loop),
        )
        for archive in archives:
            speeds += rows_of(archive, measure(archive, folder / "out"))
            costs[archive.name] = milliseconds_of_steps(archive, folder / "out")
    paragraphs = [
        f"{RECORDS} records, {PROCESSES} processes, {REPEATS} repeats, sides in turn. Ours reads, checks, resamples, "
        "measures, codes, compresses, hashes and writes; the loop reads, resamples and filters, and writes nothing. "
        "The last column is taken repeat by repeat.",
        table(["files", "side", "ECG/s per core", "ours / side"], speeds),
        "Where the time of ours goes: ms an ECG in one process, the least of the repeats.",
        table(
            ["files", *costs[archives[0].name]],
            [[name, *(f"{value:.2f}" for value in steps.values())] for name, steps in costs.items()],
        ),
    ]
    print("\n\n".join(paragraphs))
    write_section("Packing", "python -m tests.benchmarks.packing", paragraphs)


if __name__ == "__main__":
    main()
