"""Kill a packing at random moments and start it again: `python -m tests.packing.kills --kills 10`."""

from __future__ import annotations

import argparse
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from ecgdist.sample import sample_folder
from tests.packing.folders import files_of

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "tests.packing.process"]
_DEADLINE_S = 180.0


def descendants(pid: int) -> list[psutil.Process]:
    """The process and all that it has started, Ray's too."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def end(processes: list[psutil.Process]) -> None:
    """Kill processes and wait until they are gone."""
    for process in processes:
        if process.is_running():
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
    psutil.wait_procs(processes, timeout=30)


@contextmanager
def packing_process(source: str, out: Path, log: Path, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that packs; nothing of it is left afterwards."""
    with log.open("wb") as sink:
        process = subprocess.Popen([*COMMAND, source, str(out), *more], stdout=sink, stderr=sink, cwd=ROOT)
    started: list[psutil.Process] = []
    try:
        yield process
    finally:
        started += descendants(process.pid)
        end(started)
        process.wait()


def notes(out: Path) -> set[str]:
    """Numbers of the finished shards."""
    return {path.name.removesuffix(".json") for path in (out / "parts").glob("[0-9]*[0-9].json")}


def stamps(out: Path, shards: set[str]) -> dict[str, tuple[int, int]]:
    """Inode and time of finished shards: a shard that is built again gets others."""
    found = {name: out / f"shards/{name}.parquet" for name in shards}
    return {name: (path.stat().st_ino, path.stat().st_mtime_ns) for name, path in found.items()}


@dataclass
class Broken:
    """A packing that was killed again and again.

    Attributes:
        finished: shards that were finished at each kill.
        kept: inode and time of the shards when they were first seen finished.
        built: shards built by the last call, which was left to end.
    """

    finished: list[int] = field(default_factory=list)
    kept: dict[str, tuple[int, int]] = field(default_factory=dict)
    built: int = 0


def pack_with_kills(source: str, out: Path, per_shard: int, kills: int, seed: int) -> Broken:
    """Pack, and kill the driver with SIGKILL at random moments; every second time, all of Ray with it.

    A moment is a random number of newly finished shards, or none, and a random time after that.
    """
    draw, broken, log = random.Random(seed), Broken(), out.with_suffix(".log")
    for kill in range(kills):
        more = draw.randint(1, 20) if draw.random() < 0.8 else 0
        wait_s = draw.uniform(0.0, 0.2 if more else 8.0)
        with packing_process(source, out, log, "", str(per_shard)) as process:
            _await(process, log, out, len(broken.kept) + more)
            time.sleep(wait_s)
            everything = descendants(process.pid)
            for victim in everything if kill % 2 else everything[:1]:
                try:
                    victim.send_signal(signal.SIGKILL)
                except psutil.NoSuchProcess:
                    continue
            process.wait()
            end(everything)
        if process.returncode != -signal.SIGKILL:
            raise RuntimeError(f"the packing ended before kill {kill + 1}:\n{log.read_text()}")
        broken.kept = stamps(out, notes(out)) | broken.kept
        broken.finished.append(len(broken.kept))
    with packing_process(source, out, log, "", str(per_shard)) as process:
        if process.wait(timeout=_DEADLINE_S):
            raise RuntimeError(log.read_text())
        (built,) = re.findall(r"^built (\d+)$", log.read_text(), re.M)
    broken.built = int(built)
    return broken


def _await(process: subprocess.Popen[bytes], log: Path, out: Path, finished: int) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while len(notes(out)) < finished:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(log.read_text())
        time.sleep(0.005)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    source = f"ptbxl={sample_folder()}"
    with tempfile.TemporaryDirectory() as folder:
        out, unbroken = Path(folder) / "broken", Path(folder) / "unbroken"
        pack_with_kills(source, unbroken, 1, 0, 0)
        broken = pack_with_kills(source, out, 1, arguments.kills, arguments.seed)
        shards = {path.stem for path in (out / "shards").glob("*.parquet")}
        again = {name for name, stamp in stamps(out, set(broken.kept)).items() if stamp != broken.kept[name]}
        print(f"{arguments.kills} kills, {len(shards)} shards; finished at each kill: {broken.finished}")
        print(f"built by the last call: {broken.built}; finished shards built twice: {len(again)}")
        print(f"same corpus, byte for byte: {files_of(out) == files_of(unbroken)}")


if __name__ == "__main__":
    main()
