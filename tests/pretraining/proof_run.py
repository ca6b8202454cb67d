"""The run that the proof breaks: `ecgdist pretrain` in a process of its own, on the ECGs that ship with the package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml
from safetensors.numpy import load_file

from ecgdist.pretraining.checkpoint import CHECKPOINT, STUDENT, TEACHER, CheckpointStore
from ecgdist.pretraining.metrics import read_metrics
from ecgdist.sample import sample_folder
from ecgdist.storage import Location
from tests.packing.kills import descendants, end
from tests.pretraining.recorded import History, Watch
from tests.pretraining.runs import Arrays

ROOT = Path(__file__).parents[2]
GLOBAL_BATCH, WORKERS = 32, 2
SPEEDS = {"ecg_per_s", "waiting_share", "seconds_per_step"}
"""Metrics that differ from run to run."""
_SILENT_S = 420.0
"""Longest time without a step."""


def command(*words: str) -> list[str]:
    """`ecgdist` with this interpreter."""
    return [sys.executable, "-m", "ecgdist.cli", *words]


def pack_sample(corpus: Path) -> None:
    """The 353 shipped ECGs at 100 Hz, in 15 shards."""
    words = ("--set", "pack.rate_hz=100", "--set", "records_per_shard=24")
    subprocess.run(
        command("pack", f"ptbxl={sample_folder()}", "--out", str(corpus), *words),
        check=True, cwd=ROOT, capture_output=True, env=_environment({}),
    )  # fmt: skip


def _environment(more: dict[str, str]) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | more


@dataclass
class ProofRun:
    """A run in a folder of its own, with its recording beside it.

    Attributes:
        folder: holds ``run``, ``rows`` (the recording) and ``log``, what the drivers said.
        out: the run's own folder, if it is not ``run``.
        environment: more variables for the drivers.
        starts: how often a driver was started.
    """

    folder: Path
    corpus: str
    steps: int
    out: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    starts: int = 0

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.out = self.out or str(self.folder / "run")
        self.watch = Watch(self.folder / "rows")
        self.log = self.folder / "log"
        self._values: dict[str, Any] = {
            "corpus": self.corpus,
            "out": self.out,
            "steps": self.steps,
            "log_every_steps": 1,
            "data": {
                "lanes": 4,
                "global_batch": GLOBAL_BATCH,
                "shuffle_rows": 64,
                "exclude_splits": ["fold8"],
                "record_rows": str(self.watch.folder),
            },
            "encoder": {"size": "tiny"},
            "engine": {"zero_stage": 2, "precision": "fp32"},
            "workers": {"count": WORKERS, "accelerator": "cpu", "max_failures": 1000},
            "checkpoint": {"every_steps": 6},
        }
        self.configure()

    def configure(self, **changes: dict[str, Any]) -> None:
        """Change settings, section by section."""
        for section, values in changes.items():
            self._values[section] = self._values[section] | values
        self.settings.write_text(yaml.safe_dump(self._values))

    @property
    def settings(self) -> Path:
        """The configuration that drivers are started with."""
        return self.folder / "run.yaml"

    @property
    def run(self) -> Location:
        """The run's own folder."""
        return Location.of(self.out)

    @contextmanager
    def driver(self) -> Iterator[subprocess.Popen[bytes]]:
        """Start the run, or go on with it; nothing of what the driver started is left afterwards."""
        self.starts += 1
        with self.log.open("ab") as sink:
            sink.write(f"\n--- start {self.starts}\n".encode())
            sink.flush()
            process = subprocess.Popen(
                command("pretrain", str(self.settings)),
                stdout=sink, stderr=sink, cwd=ROOT, env=_environment(self.environment),
            )  # fmt: skip
        try:
            yield process
        finally:
            end(descendants(process.pid))
            process.wait()

    def finish(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until the driver has ended well."""
        heard = time.monotonic()
        while process.poll() is None:
            if self.watch.look():
                heard = time.monotonic()
            if time.monotonic() - heard > _SILENT_S:
                break
            time.sleep(0.2)
        if process.returncode != 0:
            raise self.failure(process)

    def failure(self, process: subprocess.Popen[bytes]) -> RuntimeError:
        """An error that shows what the drivers said last."""
        state = "hangs" if process.poll() is None else f"ended with {process.returncode}"
        return RuntimeError(f"the driver {state}:\n{self.log.read_text()[-4000:]}")

    @property
    def step(self) -> int:
        """The highest step that was recorded when `watch` last looked; -1 before the first."""
        return max((line.step for line in self.watch.lines), default=-1)

    def training(self) -> list[psutil.Process]:
        """The processes that trained last, if they still run."""
        newest = {line.rank: line.process for line in self.watch.lines}
        return [psutil.Process(pid) for pid in newest.values() if psutil.pid_exists(pid)]

    def unfinished_checkpoints(self) -> list[str]:
        """Checkpoints without their last file, of a run on local disk."""
        root = Path(self.out) / "checkpoints"
        if not root.is_dir():
            return []
        return [path.name for path in root.iterdir() if not (path / CHECKPOINT).exists()]

    def history(self) -> History:
        """What was trained."""
        self.watch.look()
        return History.of(self.watch.lines)

    def weights(self) -> dict[str, Arrays]:
        """Student and teacher of the last checkpoint."""
        store = CheckpointStore(self.run)
        name = store.names()[-1]
        assert name.startswith(f"step-{self.steps:08d}")
        restored = store.fetch(name, self.folder / "fetched", only=(STUDENT, TEACHER))
        return {file: load_file(restored.folder / file) for file in (STUDENT, TEACHER)}

    def metrics(self) -> list[dict[str, Any]]:
        """Rows of the run's metrics, without its speed."""
        return [{k: v for k, v in row.items() if k not in SPEEDS} for row in read_metrics(self.run)]

    def facts(self) -> dict[str, Any]:
        """What ``run.json`` says."""
        content: dict[str, Any] = json.loads((self.run / "run.json").read_bytes())
        return content
