"""Pack many real, varied ECGs and watch the memory: `python -m tests.packing.scale --records 200000`.

The records are made from real ones, each a random one of them, shifted in a circle and scaled, and written as a WFDB
folder of format 16 at its own rate.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from ecgdist.corpus import Corpus
from ecgdist.errors import RecordRefused
from ecgdist.record import Recording
from ecgdist.sample import sample_folder
from ecgdist.sources import open_source

_FOLDER = 1000
"""Records in one subfolder."""
DRIVER_MB = 700
WORKER_MB = 700
"""What neither the driver nor a worker goes beyond, in 10^6 bytes of resident memory, up to 200,000 records."""


def real_recordings(sources: Sequence[str]) -> list[Recording]:
    """Every readable recording of twelve leads and at most a minute in sources written as KIND=URI."""
    found = []
    for text in sources:
        kind, _, uri = text.partition("=")
        source = open_source(kind, uri)
        for each in source.read_many(source.list_records()):
            if isinstance(each, RecordRefused) or len(each.leads) != 12 or np.isnan(each.signal_uv).any():
                continue
            if each.signal_uv.shape[1] <= 60 * each.rate_hz:
                found.append(each)
    return found


def make_folder(path: Path, recordings: Sequence[Recording], records: int, seed: int) -> None:
    """Write `records` of varied ECGs below `path`, as WFDB records of format 16."""
    draw = random.Random(seed)
    for number in range(records):
        recording = draw.choice(recordings)
        shift = draw.randrange(recording.signal_uv.shape[1])
        signal_uv = np.roll(recording.signal_uv, shift, axis=1) * draw.uniform(0.7, 1.4)
        name, folder = f"{number:07d}", path / f"{number // _FOLDER:04d}"
        if number % _FOLDER == 0:
            folder.mkdir(parents=True)
        samples = np.clip(np.rint(signal_uv), -32000, 32000).astype("<i2")
        (folder / f"{name}.dat").write_bytes(np.ascontiguousarray(samples.T).tobytes())
        lines = [f"{name} {len(samples)} {recording.rate_hz:g} {samples.shape[1]}"]
        for lead, row in zip(recording.leads, samples, strict=True):
            checksum = int(np.sum(row, dtype=np.int16))
            lines.append(f"{name}.dat 16 1000(0)/mV 16 0 {row[0]} {checksum} 0 {lead}")
        age = f"#Age: {draw.randint(18, 100)}"
        (folder / f"{name}.hea").write_text("\n".join([*lines, age, "#Dx: 426783006", ""]))


@dataclass
class Memory:
    """Resident memory of a process and of the Ray workers below it, in 10^6 bytes, in the course of time."""

    driver_mb: list[float] = field(default_factory=list)
    largest_worker_mb: list[float] = field(default_factory=list)
    all_mb: list[float] = field(default_factory=list)

    def sample(self, process: psutil.Process) -> None:
        """Look once."""
        try:
            driver = process.memory_info().rss
            below = [(child.name(), child.memory_info().rss) for child in process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        self.driver_mb.append(driver / 1e6)
        self.largest_worker_mb.append(max([rss for name, rss in below if "_build" in name] or [0]) / 1e6)
        self.all_mb.append((driver + sum(rss for _, rss in below)) / 1e6)


def largest(values: Sequence[float], part: int, of: int) -> float:
    """The largest of one of `of` equal parts of the time, from part 0 on."""
    return max(values[part * len(values) // of : (part + 1) * len(values) // of])


def pack_watched(source: Path, out: Path, *more: str) -> tuple[float, Memory]:
    """Run `ecgdist pack` on a folder; the seconds that it took, and its memory."""
    command = [sys.executable, "-m", "ecgdist.cli", "pack", f"wfdb={source}", "--out", str(out), *more]
    begin, memory = time.monotonic(), Memory()
    process = subprocess.Popen(command)
    while process.poll() is None:
        memory.sample(psutil.Process(process.pid))
        time.sleep(0.5)
    if process.returncode:
        raise RuntimeError(f"packing ended with status {process.returncode}")
    return time.monotonic() - begin, memory


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--folder", type=Path, default=Path("scale"), help="where source and corpus are made")
    parser.add_argument("--real", nargs="+", default=[f"ptbxl={sample_folder()}"], metavar="KIND=URI")
    arguments = parser.parse_args()
    source, out = arguments.folder / "source", arguments.folder / "corpus"
    if not source.exists():
        recordings = real_recordings(arguments.real)
        begin = time.monotonic()
        make_folder(source, recordings, arguments.records, seed=0)
        print(
            f"made {arguments.records:,} records from {len(recordings):,} in {time.monotonic() - begin:,.0f} s"
        )
    seconds, memory = pack_watched(source, out, "--set", "max_refused_share=0.01")
    manifest = Corpus(out).manifest
    (facts,) = manifest.sources.values()
    shard_bytes = sum(shard.bytes for shard in manifest.shards)
    print(
        f"{facts.listed:,} listed, {facts.packed:,} packed, {facts.refused:,} refused; {manifest.rows:,} rows"
    )
    print(f"{seconds:,.0f} s on {os.cpu_count()} cores: {facts.packed / seconds:,.0f} ECG/s")
    print(f"shards {shard_bytes / 1e9:.2f} GB, {shard_bytes / manifest.rows / 1e3:.1f} kB a row")
    for name, values in (
        ("driver", memory.driver_mb),
        ("largest worker", memory.largest_worker_mb),
        ("all processes", memory.all_mb),
    ):
        quarters = ", ".join(f"{largest(values, part, 4):,.0f}" for part in range(4))
        print(f"resident memory of {name}, most in each quarter of the time: {quarters} MB")


if __name__ == "__main__":
    main()
