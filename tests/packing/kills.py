"""Kill a packing at random moments and start it again: `python -m tests.packing.kills --kills 10`.

With ``--records 200000 --folder big`` on that many records, made by `tests.packing.scale` in ``big/source``.
"""

from __future__ import annotations

import argparse
import math
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from ecgdist.sample import sample_folder
from ecgdist.storage import Location
from tests.packing.builds import Builds
from tests.packing.folders import files_of
from tests.packing.scale import make_folder, real_recordings

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "tests.packing.process"]
VICTIMS = ("nothing", "a worker", "the raylet", "all of Ray")
"""What is killed besides the driver."""
_DEADLINE_S = 180.0
"""Longest time without a finished shard."""
_START_S = 8.0
"""About the time that a call needs to start."""
_LAST_SHARE = 0.9
"""Of the shards are finished at the last kill, at most."""
_PER_SHARD = 2048


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
def packing_process(
    source: str, out: Path | Location, log: Path, *more: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that packs; nothing of it is left afterwards."""
    with log.open("wb") as sink:
        process = subprocess.Popen([*COMMAND, source, str(out), *more], stdout=sink, stderr=sink, cwd=ROOT)
    try:
        yield process
    finally:
        end(descendants(process.pid))
        process.wait()


def finished(out: Path) -> set[str]:
    """Numbers of the finished shards: those whose file has its name."""
    return {path.stem for path in (out / "shards").glob("*.parquet")}


def stamps(out: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of the finished shards: a shard that is built again gets others."""
    found = {name: (out / f"shards/{name}.parquet").stat() for name in finished(out)}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in found.items()}


@dataclass(frozen=True)
class Kill:
    """One kill.

    Attributes:
        victims: what was killed besides the driver.
        after_s: seconds after the start of the call.
        finished: shards that were finished.
    """

    victims: str
    after_s: float
    finished: int


@dataclass
class Broken:
    """A packing that was killed again and again.

    Attributes:
        kills: in order.
        kept: inode and time of the shards when they were first seen finished.
    """

    kills: list[Kill] = field(default_factory=list)
    kept: dict[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """A packing to be killed.

    Attributes:
        source: as KIND=URI.
        shards: how many it makes.
        pause_s: about the time in which a few shards are finished.
        options: of `tests.packing.process`.
    """

    source: str
    shards: int
    pause_s: float
    options: tuple[str, ...]

    def packing(self, out: Path) -> AbstractContextManager[subprocess.Popen[bytes]]:
        """A process that packs to `out`."""
        return packing_process(self.source, out, log_of(out), *self.options, "--record-builds")


def log_of(out: Path) -> Path:
    """What the last call said."""
    return out.with_name(f"{out.name}.log")


def pack_whole(job: Job, out: Path) -> None:
    """Pack, or go on with a packing, without a kill."""
    with job.packing(out) as process:
        if process.wait():
            raise RuntimeError(log_of(out).read_text())


def pack_with_kills(job: Job, out: Path, kills: int, seed: int) -> Broken:
    """Pack, and kill the driver with SIGKILL at random moments, with a worker, the raylet or all of Ray, or alone.

    The moments are spread over the whole job: a random one in each of `kills` equal parts of its shards, but when at
    least one more is finished than at the kill before, and then after a random time. One in five is instead while a
    call starts.
    """
    draw, broken = random.Random(seed), Broken()
    for kill in range(kills):
        share = _LAST_SHARE * draw.uniform(kill, kill + 1) / kills
        starting = draw.random() < 0.2
        wanted = 0 if starting else max(len(broken.kept) + 1, round(share * job.shards))
        wait_s = draw.uniform(0.0, _START_S if starting else job.pause_s)
        victims = draw.choice(VICTIMS)
        with job.packing(out) as process:
            begin = time.monotonic()
            _await(process, out, wanted)
            time.sleep(wait_s)
            everything = descendants(process.pid)
            after_s = time.monotonic() - begin
            _kill(_chosen(everything, victims, draw))
            process.wait()
            end(everything)
        if process.returncode != -signal.SIGKILL:
            raise RuntimeError(f"the packing ended before a kill:\n{log_of(out).read_text()}")
        broken.kept = stamps(out) | broken.kept
        broken.kills.append(Kill(victims, after_s, len(broken.kept)))
    pack_whole(job, out)
    return broken


def _chosen(everything: list[psutil.Process], victims: str, draw: random.Random) -> list[psutil.Process]:
    """The driver and its fellow victims, in random order."""
    driver, *below = everything or [None]
    wanted = {"nothing": (), "a worker": ("ray::_build",), "the raylet": ("raylet",)}.get(victims)
    fellows = [process for process in below if wanted is None or _name(process) in wanted]
    if victims == "a worker":
        fellows = fellows[:1]
    chosen = [process for process in (driver, *fellows) if process]
    draw.shuffle(chosen)
    return chosen


def _name(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.NoSuchProcess:
        return ""


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue


def _await(process: subprocess.Popen[bytes], out: Path, wanted: int) -> None:
    """Wait until so many shards are finished."""
    seen, deadline = 0, time.monotonic() + _DEADLINE_S
    while (number := len(finished(out))) < wanted:
        if number > seen:
            seen, deadline = number, time.monotonic() + _DEADLINE_S
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(log_of(out).read_text())
        time.sleep(0.005)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--records", type=int, help="of a made folder; default the shipped ECGs, one a shard")
    parser.add_argument(
        "--folder", type=Path, default=Path("scale"), help="where it and the corpora are made"
    )
    arguments = parser.parse_args()
    if arguments.records is None:
        with tempfile.TemporaryDirectory() as folder:
            compare(sample_job(), Path(folder), arguments.kills, arguments.seed)
        return
    source = arguments.folder / "source"
    if not source.exists():
        make_folder(source, real_recordings([f"ptbxl={sample_folder()}"]), arguments.records, seed=0)
    options = ("--per-shard", str(_PER_SHARD), "--rate-hz", "250")
    job = Job(f"wfdb={source}", math.ceil(arguments.records / _PER_SHARD), 8.0, options)
    compare(job, arguments.folder, arguments.kills, arguments.seed)


def sample_job() -> Job:
    """The shipped ECGs, one a shard."""
    return Job(f"ptbxl={sample_folder()}", 353, 0.1, ("--per-shard", "1"))


def compare(job: Job, folder: Path, kills: int, seed: int) -> None:
    """Pack with and without kills, and print what came of it."""
    out, unbroken = folder / "broken", folder / "unbroken"
    broken = pack_with_kills(job, out, kills, seed)
    for number, kill in enumerate(broken.kills, start=1):
        print(
            f"kill {number}: driver and {kill.victims}, {kill.after_s:.1f} s after its start, "
            f"{kill.finished} of {job.shards} shards finished"
        )
    builds, now = Builds.of(out), stamps(out)
    changed = [name for name, stamp in broken.kept.items() if now.get(name) != stamp]
    print(
        f"{kills} kills, {len(now)} shards, {builds.begun.total()} builds begun, {builds.ended.total()} ended"
    )
    print(f"finished shards begun again: {len(builds.again)}; their files changed: {len(changed)}")
    print(f"shards built to the end more than once: {sum(count > 1 for count in builds.ended.values())}")
    if not unbroken.exists():
        pack_whole(job, unbroken)
    print(f"same corpus, byte for byte: {files_of(out) == files_of(unbroken)} ({len(files_of(out))} files)")


if __name__ == "__main__":
    main()
