"""The stream beside a torch DataLoader over the same shards, three streaming libraries, and WFDB file by file.

Every side is a program (`tests.benchmarks.peers`) that is started anew for each repeat, with its imports and a Ray
cluster before the clock, and opening its data, starting its workers and everything else on it. All give float32
batches of the same ECGs, and each side's ECGs are compared bit by bit by the part `check`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ecgdist.raytools import ray_session
from ecgdist.storage import Location
from tests.benchmarks.peers import data, harness
from tests.benchmarks.results import cell, table, write_section
from tests.conftest import seaweedfs
from tests.faulty_s3 import faulty_s3

SIDES = {
    "ours": "this stream (Ray Data)",
    "dataloader": "torch DataLoader, same shards",
    "webdataset": "WebDataset",
    "mosaic": "Mosaic Streaming",
    "litdata": "LitData",
    "wfdb": "DataLoader, one WFDB file each",
}
STORAGES = {"local": None, "s3": 0.0, "s3-20ms": 0.02}
"""Latency added to every answer of the S3 server, in seconds."""
BATCH = 128
WORKERS = 2
EPOCHS, TIMED_EPOCHS = 4, 2
"""Read, and timed: our pools hold up to 1.2 epochs of these ECGs, which are read before the first batch."""
VOLUME_MB = 512
"""Of the S3 server, whose 20 volumes hold all layouts at once."""
WFDB_ROWS = 2048
"""As many of its files are read: all would take minutes."""
Samples = dict[str, list[dict[str, Any]]]


class SideError(RuntimeError):
    """A side ended with an error of its own."""


def run(arguments: argparse.Namespace) -> None:
    """Measure the sides on every storage asked for."""
    sides = list(arguments.side or SIDES)
    folders, signals = _data(sides)
    rows = len(signals)
    for storage in arguments.storage or STORAGES:
        here = [side for side in sides if storage == "local" or side != "wfdb"]
        with _where(storage, {side: folders[side] for side in here}) as (places, environment):
            found: Samples = {side: [] for side in here}
            failures: Counter[str] = Counter()
            for repeat in range(1, arguments.repeats + 1):
                for side in here:
                    try:
                        sample = measure(side, places[side], rows, environment)
                    except SideError as error:
                        if side in data.READ_SHARDS:
                            raise
                        # Mosaic Streaming, on S3, does it now and then; a second failure on end is an error.
                        failures[side] += 1
                        print(f"{error}\n{storage} {side} is run again", flush=True)
                        sample = measure(side, places[side], rows, environment)
                    found[side].append(sample)
                    print(f"{storage} {side} {sample['rate']:,.0f} ECG/s", flush=True)
                # After each repeat, so that a run that is stopped leaves what it has measured.
                _write(storage, found, rows, repeat, failures)


def check(arguments: argparse.Namespace) -> None:
    """Compare what every side reads with the ECGs, bit by bit.

    Raises:
        RuntimeError: if a side gives another ECG, or leaves one out that it should have given.
    """
    sides = list(arguments.side or SIDES)
    folders, signals = _data(sides)
    lines = []
    for side in sides:
        job = _job(str(folders[side]), len(signals), 1, 1)
        found = run_side(side, {**job, "hashes": True}, {})
        wrong = [n for n, text in found["hashes"].items() if text != harness.hash_of(signals[int(n)])]
        if wrong:
            raise RuntimeError(f"{side} gives other ECGs: {wrong[:5]}")
        lines.append([SIDES[side], f"{found['rows']:,}", f"{found['missing']:,}"])
    what = (
        f"One epoch of {len(signals):,} ECGs, each compared by SHA-256 of its float32 values. No side gives an ECG "
        f"twice; ours leaves out the last part of a batch of {BATCH}, others in other epochs."
    )
    write_section(
        "All loaders give the same ECGs",
        "python -m tests.benchmarks.stream --part check",
        [what, table(["", "equal ECGs", "not in this epoch"], lines)],
    )


def _data(sides: list[str]) -> tuple[dict[str, Path], data.Signals]:
    with ray_session(num_cpus=4):
        return data.folders(sides=sides)


def measure(side: str, where: str, rows: int, environment: Mapping[str, str]) -> dict[str, Any]:
    """One repeat of one side."""
    job = _job(where, rows, EPOCHS, TIMED_EPOCHS)
    if side == "wfdb":
        job |= {"only": WFDB_ROWS, "rows": WFDB_ROWS, "epochs": 1, "timed_epochs": 1}
    elif side == "litdata" and where.startswith("s3://"):
        job |= {"epochs": TIMED_EPOCHS}  # more would take minutes and are not timed
    return run_side(side, job, environment)


def _job(where: str, rows: int, epochs: int, timed_epochs: int) -> dict[str, Any]:
    return {
        "where": where,
        "rows": rows,
        "epochs": epochs,
        "timed_epochs": timed_epochs,
        "batch": BATCH,
        "workers": WORKERS,
    }


def run_side(side: str, job: dict[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """Start a side, let it read, and give its figures.

    Raises:
        SideError: with the end of what it wrote.
        RuntimeError: if it leaves out more ECGs than an epoch's last part of a batch.
    """
    data.BENCH.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=data.BENCH) as scratch:
        program = (
            ["-m", f"tests.benchmarks.peers.read_{side}"]
            if side in data.READ_SHARDS
            else [str(data.HERE / f"read_{side}.py")]
        )
        command = [str(data.python_of(side)), *program, json.dumps({**job, "cache": f"{scratch}/cache"})]
        log = Path(scratch) / "log"
        with log.open("w") as errors:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=data.HERE.parents[2],
                env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": scratch, **environment},
            )
            lines = _talk(process)
        if process.returncode or not lines:
            raise SideError(f"{side} failed:\n{log.read_text()[-3000:]}")
        found: dict[str, Any] = json.loads(lines[-1])
    if found["missing"] >= job["batch"] * job["epochs"]:
        raise RuntimeError(f"{side} left out {found['missing']} of {job['rows']} ECGs")
    return found


def _talk(process: subprocess.Popen[str]) -> list[str]:
    """Start the clock of a side that is ready, and give what it printed."""
    assert process.stdin is not None
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "ready":
            process.stdin.write("go\n")
            process.stdin.flush()
            break
    lines = [line for line in process.stdout if line.startswith("{")]
    process.wait()
    return lines


@contextmanager
def _where(storage: str, folders: Mapping[str, Path]) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """Where each side finds its data, and the environment variables that it needs for it."""
    if storage == "local":
        yield {side: str(folder) for side, folder in folders.items()}, {}
        return
    latency_s = STORAGES[storage]
    with tempfile.TemporaryDirectory(dir=data.BENCH) as folder, seaweedfs(Path(folder), VOLUME_MB) as server:
        os.environ.update(server.environment)
        for source in set(folders.values()):
            _upload(source, Location.of(f"s3://ecg/{source.name}"))
        places = {side: f"s3://ecg/{source.name}" for side, source in folders.items()}
        if not latency_s:
            yield places, {**server.environment, "S3_ENDPOINT_URL": server.endpoint}
            return
        with faulty_s3(server.endpoint, one_in=0, latency_s=latency_s) as proxy:
            endpoint = {"AWS_ENDPOINT_URL": proxy.endpoint, "S3_ENDPOINT_URL": proxy.endpoint}
            yield places, {**server.environment, **endpoint}


def _upload(folder: Path, target: Location) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            (target / str(path.relative_to(folder))).upload(path)


def _write(storage: str, found: Samples, rows: int, repeats: int, failures: Mapping[str, int]) -> None:
    """The section of a storage."""
    ours = [sample["rate"] for sample in found.get("ours", [])]
    lines = []
    for side, samples in found.items():
        rates = [sample["rate"] for sample in samples]
        ratios = [own / rate for own, rate in zip(ours, rates, strict=True)] if ours else []
        first = cell([sample["first_s"] for sample in samples], 2)
        lines.append([SIDES[side], cell(rates), cell(ratios, 2), first])
    latency_s = STORAGES[storage]
    where = (
        "local files in the page cache"
        if latency_s is None
        else "SeaweedFS on the same machine"
        + (f", {latency_s * 1000:.0f} ms added to every answer by a proxy there" if latency_s else "")
    )
    what = (
        f"{rows:,} ECGs of 12 x 2,500 samples ({EPOCHS} epochs a repeat), float32 batches of {BATCH}, "
        f"{where}; {repeats} repeats, sides in turn, {WORKERS} worker processes for those that have workers. "
        f"ECG/s from the first batch to the end of epoch {TIMED_EPOCHS}; the third column is our rate over theirs in "
        "the same repeat."
    )
    if "litdata" in found and latency_s is not None:
        what += " LitData reads the timed epochs alone."
    if "wfdb" in found:
        what += f" File by file, {WFDB_ROWS:,} of the ECGs are read."
    for side, times in failures.items():
        what += f" {SIDES[side]} ended with an error of its own {times} times, and was run again."
    columns = ["", "ECG/s", "ours / theirs", "s to the first batch"]
    write_section(
        f"Stream beside other loaders: {storage}",
        f"python -m tests.benchmarks.stream --part peers --storage {storage} --repeats {repeats}",
        [what, table(columns, lines)],
    )
