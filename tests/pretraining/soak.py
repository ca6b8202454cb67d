"""A long run of a tiny model, watched: memory, open files, threads and disk (`python -m tests.pretraining.soak`).

By default 20,000 steps with 2,000 checkpoints. The run is `ecgdist pretrain` itself, in a process of its own, on the
shipped ECGs; every process that it starts is sampled, and a straight line through the last three quarters of the
samples of each long-lived one says what it gains.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from ecgdist.packing import PackConfig, pack
from ecgdist.preprocessing import PackStep
from ecgdist.pretraining.metrics import read_metrics
from ecgdist.sample import sample_folder
from ecgdist.storage import Location

KEEP_LAST = 2
_EVERY_S = 1.0
_SETTLED_SHARE = 0.25
"""Share of a process's life in which it may still grow: imports, caches, pools."""
_LEAST_SAMPLES = 20


@dataclass
class Life:
    """What one process had at each sample.

    Attributes:
        steps: of the run at that time, from its metrics.
    """

    name: str
    steps: list[int] = field(default_factory=list)
    own_mb: list[float] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)

    def settled(self, values: list[float] | list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Steps and values after the first quarter of its life."""
        begin = int(len(values) * _SETTLED_SHARE)
        return np.array(self.steps[begin:], float), np.array(values[begin:], float)

    def slope(self, values: list[float] | list[int]) -> float:
        """Gain per 1,000 steps once it has settled; 0 if the run did no step in that time."""
        steps, found = self.settled(values)
        return 0.0 if np.ptp(steps) == 0 else float(np.polyfit(steps, found, 1)[0] * 1000)


@dataclass(frozen=True)
class Soak:
    """What a watched run showed.

    Attributes:
        steps: that the run had done, as far as its metrics said.
        lives: of the processes that were there for at least half of the samples.
        most_checkpoints: folders below ``checkpoints`` at any sample.
        most_mb: size of the run's folder at any sample.
        scratch_left: what the run left in its folder for temporary files.
    """

    seconds: float
    steps: int
    lives: list[Life]
    most_checkpoints: int
    most_mb: float
    scratch_left: list[str]
    output: str


def soak(folder: Path, steps: int, checkpoints: int, workers: int = 1, most_s: float = math.inf) -> Soak:
    """Pretrain a tiny model, and watch every process of it, for at most so many seconds."""
    corpus = pack(
        PackConfig(
            sources=(f"ptbxl={sample_folder()}",), out=str(folder / "corpus"), pack=PackStep(rate_hz=100.0)
        )
    ).corpus
    run, scratch, log = folder / "run", folder / "scratch", folder / "output.txt"
    scratch.mkdir()
    settings = {
        "steps": steps,
        "checkpoint.every_steps": steps // checkpoints,
        "checkpoint.keep_last": KEEP_LAST,
        "encoder.size": "tiny",
        "encoder.patch_samples": 25,
        "device.window_s": 2.5,
        "device.lowpass_hz": 40,
        "data.lanes": 4,
        "data.global_batch": 8,
        "data.shuffle_rows": 128,
        "log_every_steps": 10,
    }
    program = str(Path(sys.executable).with_name("ecgdist"))
    command = [program, "pretrain", "--corpus", str(corpus.location), "--out", str(run)]
    command += ["--workers", str(workers)]
    for name, value in settings.items():
        command += ["--set", f"{name}={value}"]
    began = time.monotonic()
    lives: dict[int, Life] = {}
    samples, most_checkpoints, most_mb = 0, 0, 0.0
    # Ray's sockets do not fit into a long path.
    environment = psutil.Process().environ() | {"TMPDIR": str(scratch), "RAY_TMPDIR": tempfile.gettempdir()}
    with log.open("w") as output:
        process = psutil.Popen(command, stdout=output, stderr=output, env=environment)
        try:
            while process.poll() is None and time.monotonic() - began < most_s:
                step = _step(run)
                for member in [process, *process.children(recursive=True)]:
                    _sample(member, step, lives)
                samples += 1
                found = _folders(run / "checkpoints")
                most_checkpoints = max(most_checkpoints, found)
                most_mb = max(most_mb, _megabytes(run))
                time.sleep(_EVERY_S)
        finally:
            if process.poll() is None:
                for member in process.children(recursive=True):
                    member.kill()
                process.kill()
    process.wait()
    if process.returncode and time.monotonic() - began < most_s:
        raise RuntimeError(f"the run ended with {process.returncode}: {log.read_text()[-2000:]}")
    long_lived = [life for life in lives.values() if len(life.steps) >= max(_LEAST_SAMPLES, samples // 2)]
    left = sorted(path.name for path in scratch.iterdir() if path.name.startswith("ecgdist-"))
    return Soak(
        time.monotonic() - began, _step(run), long_lived, most_checkpoints, most_mb, left, log.read_text()
    )


def _sample(member: psutil.Process, step: int, lives: dict[int, Life]) -> None:
    try:
        with member.oneshot():
            title = member.cmdline()
            memory = member.memory_info()
            # Pages of the object store count with every process that has ever touched them.
            own = (memory.rss - memory.shared) / 1e6
            files, threads = member.num_fds(), member.num_threads()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return  # it ended between being listed and being asked
    life = lives.setdefault(member.pid, Life(_short(title)))
    life.name = _short(title)
    life.steps.append(step)
    life.own_mb.append(own)
    life.files.append(files)
    life.threads.append(threads)


def _short(title: list[str]) -> str:
    """A Ray worker's title, a module's or a program's name."""
    words = " ".join(title).split()
    if not words:
        return "?"
    if words[0].startswith("ray::"):
        return words[0]
    if "-m" in words[:3]:
        return " ".join(words[words.index("-m") + 1 :][:2])
    scripts = [word for word in words[:4] if word.endswith(".py")]
    return Path((scripts or words)[0]).name


def _step(run: Path) -> int:
    rows = read_metrics(Location.of(str(run)))
    return int(rows[-1]["step"]) if rows else 0


def _folders(path: Path) -> int:
    return len(list(path.iterdir())) if path.exists() else 0


def _megabytes(path: Path) -> float:
    """What the files take; a folder that is pruned meanwhile counts as far as it was still there."""
    total = 0
    # os.walk leaves out a folder that is gone; Path.rglob raises.
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += (Path(folder) / name).stat().st_size
    return total / 1e6


def table(found: Soak) -> Table:
    """The long-lived processes: memory, files and threads at the end, and what they gain."""
    columns = ("process", "samples", "MB", "MB / 1,000 steps", "files", "files / 1,000 steps", "threads")
    shown = Table(*columns)
    for life in sorted(found.lives, key=lambda each: -each.own_mb[-1]):
        shown.add_row(
            life.name,
            str(len(life.steps)),
            f"{life.own_mb[-1]:.0f}",
            f"{life.slope(life.own_mb):+.2f}",
            f"{life.files[-1]} (at most {max(life.files)})",
            f"{life.slope(life.files):+.2f}",
            f"{life.threads[-1]} (at most {max(life.threads)})",
        )
    return shown


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--checkpoints", type=int, default=2_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=math.inf, help="end the run after so many")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = soak(Path(folder), options.steps, options.checkpoints, options.workers, options.minutes * 60)
    console = Console(width=130)
    console.print(table(found))
    every = options.steps // options.checkpoints
    console.print(
        f"{found.steps:,} steps with a checkpoint every {every} in {found.seconds:.0f} s; at most "
        f"{found.most_checkpoints} checkpoint folders, {found.most_mb:.1f} MB in the run's folder; left in "
        f"the temporary folder: {found.scratch_left or 'nothing'}"
    )


if __name__ == "__main__":
    main()
