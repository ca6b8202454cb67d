"""What checkpoints cost training: the time of the same steps with one checkpoint among them and without, in turns.

Run with ``python -m tests.benchmarks.checkpoints``. Two processes (gloo, fp32) train; a block of steps without a
checkpoint and one that begins with a checkpoint are a pair, and who comes first alternates. The time of a block counts
the copy to the local disk, and steps that go on while files are hashed and uploaded. Storage is a local folder, a
SeaweedFS on the same machine (which takes its share of the same cores), and the same behind a proxy that adds latency
to every request.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from ecgdist.models.config import EncoderConfig
from ecgdist.objectives.config import ObjectiveConfig
from ecgdist.objectives.hybrid import PretrainingModule
from ecgdist.pretraining.config import EngineConfig, OptimizerConfig
from ecgdist.pretraining.engine import DeepSpeedEngine
from ecgdist.pretraining.group import Group
from ecgdist.pretraining.step import TrainingStep, micro_batches
from ecgdist.storage import Location
from tests.benchmarks.results import cell, table, write_section
from tests.conftest import seaweedfs
from tests.faulty_s3 import faulty_s3
from tests.pretraining.processes import Processes
from tests.pretraining.resume import state_at, writer_for
from tests.pretraining.runs import GLOBAL_BATCH, ORDER, PREPROCESSING, WEIGHT_DECAY, rank_batch

_WARM_STEPS = 3
_DEFAULT_INTERVAL_S = 900.0
_LATENCY_S = 1.0


@dataclass(frozen=True)
class Pair:
    """A block of steps without a checkpoint and one with it, on rank 0.

    Attributes:
        without_s, with_s: seconds of the two blocks.
        snapshot_s: of which training stood still.
        upload_s: from the end of the copy to the commit.
        in_time: whether the commit came before the end of its block.
    """

    without_s: float
    with_s: float
    snapshot_s: float
    upload_s: float
    in_time: bool


@dataclass(frozen=True)
class Measured:
    """Pairs at one storage, the steps of a block, and the bytes of a checkpoint."""

    pairs: list[Pair]
    steps: int
    checkpoint_bytes: int


def measure(
    environment: dict[str, str], where: str, size: str, zero_stage: int, seconds: float, repeats: int
) -> Measured:
    """Train pairs of blocks; runs in every process of a group."""
    os.environ.update(environment)
    training = _Training(size, zero_stage)
    first = training.block(_WARM_STEPS)
    steps = training.group.from_first(max(4, round(seconds / (training.block(4) / 4))))
    assert first > 0
    pairs = []
    with writer_for(where, training.group, keep_last=1) as writer:
        for repeat in range(repeats):
            blocks = {}
            for saving in (True, False) if repeat % 2 else (False, True):
                training.group.wait()
                began = time.perf_counter()
                if saving:
                    writer.save(
                        training.engine, training.teacher, state_at(repeat + 1, training.group.world_size)
                    )
                    saved = time.perf_counter()
                    committed = None
                for _ in range(steps):
                    training.block(1)
                    if saving and committed is None and not writer.is_busy:
                        committed = time.perf_counter()
                blocks[saving] = time.perf_counter() - began
                if saving:
                    in_time = committed is not None
                    writer.wait()
                    end = committed if committed is not None else time.perf_counter()
                    snapshot_s, upload_s = saved - began, end - saved
                # Neither block shall meet what the one before left to do.
                training.group.wait()
            pairs.append(Pair(blocks[False], blocks[True], snapshot_s, upload_s, in_time))
            if training.group.rank == 0:
                print(f"{size}, {where}, {steps} steps: {pairs[-1]}", flush=True)
    root = Location.of(where) / "checkpoints"
    with tempfile.TemporaryDirectory() as folder:
        size_bytes = 0
        if training.group.rank == 0:
            for number, name in enumerate(root.list_files()):
                (root / name).download(Path(folder) / str(number))
                size_bytes += (Path(folder) / str(number)).stat().st_size
    return Measured(pairs, steps, size_bytes)


class _Training:
    """A student that takes steps on made-up ECGs."""

    def __init__(self, size: str, zero_stage: int) -> None:
        self.group = Group()
        torch.manual_seed(0)
        encoder = EncoderConfig.model_validate({"size": size, "patch_samples": 25})
        module = PretrainingModule(encoder, ObjectiveConfig(), PREPROCESSING.window_samples)
        self.teacher = module.teacher()
        self.engine = DeepSpeedEngine(
            module,
            EngineConfig.model_validate({"zero_stage": zero_stage, "micro_batch": GLOBAL_BATCH}),
            OptimizerConfig(),
            WEIGHT_DECAY,
            micro_batches(ORDER, self.group.world_size, GLOBAL_BATCH),
        )
        self._step = TrainingStep(
            self.engine,
            self.teacher,
            ObjectiveConfig(),
            PREPROCESSING,
            ORDER,
            self.group,
            GLOBAL_BATCH,
            10**6,
            torch.device("cpu"),
        )
        self._done = 0

    def block(self, steps: int) -> float:
        """Seconds of so many steps."""
        began = time.perf_counter()
        for _ in range(steps):
            self._step(rank_batch(self._done, self.group), 1e-4)
            self._done += 1
        return time.perf_counter() - began


@contextmanager
def storages(names: list[str], folder: Path) -> Iterator[dict[str, tuple[dict[str, str], str]]]:
    """Environment and address of each kind of storage."""
    found: dict[str, tuple[dict[str, str], str]] = {}
    with ExitStack() as stack:
        server = None
        if {"s3", "slow"} & set(names):
            (folder / "seaweedfs").mkdir()
            server = stack.enter_context(seaweedfs(folder / "seaweedfs"))
        for name in names:
            if name == "local" or server is None:
                found[name] = ({}, str(folder / "run"))
            elif name == "s3":
                found[name] = (server.environment, "s3://ecg/benchmark/s3")
            else:
                proxy = stack.enter_context(faulty_s3(server.endpoint, one_in=0, latency_s=_LATENCY_S))
                environment = server.environment | {"AWS_ENDPOINT_URL": proxy.endpoint}
                found[name] = (environment, "s3://ecg/benchmark/slow")
        yield found


def main() -> None:
    """Measure, print every pair, and write the section; what is measured so far is written after each storage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=["tiny", "small"])
    parser.add_argument("--stage", type=int, default=1)
    parser.add_argument("--storages", nargs="+", default=["local", "s3", "slow"])
    parser.add_argument("--seconds", type=float, default=20.0, help="Of a block without a checkpoint.")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    # So that `timeout` leaves no server and no process behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    rows: list[list[str]] = []
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as folder, storages(options.storages, Path(folder)) as found:
            for name, (environment, where) in found.items():
                (Path(folder) / f"group-{name}").mkdir()
                answer_s = 300 + 4 * options.repeats * options.seconds
                group = Processes(2, Path(folder) / f"group-{name}", answer_s)
                try:
                    measured = group.run(
                        measure, environment, where, size, options.stage, options.seconds, options.repeats
                    )[0]
                finally:
                    group.close()
                rows.append([size, name, *_cells(measured)])
                write_section("Checkpoints", _command(options), [_about(options), table(_COLUMNS, rows)])


def _command(options: argparse.Namespace) -> str:
    words = [
        *("--sizes", *options.sizes, "--stage", options.stage, "--storages", *options.storages),
        *("--seconds", f"{options.seconds:g}", "--repeats", options.repeats),
    ]
    return " ".join(["python -m tests.benchmarks.checkpoints", *map(str, words)])


_COLUMNS = (
    "size",
    "storage",
    "MB",
    "steps of a block",
    "s without",
    "with / without",
    "s that training stands still",
    "s from then to the commit",
    "s that a checkpoint costs",
    "with / without at one in 15 min",
    "at least s between checkpoints for 1.05",
)


def _about(options: argparse.Namespace) -> str:
    return (
        f"Two processes, ZeRO stage {options.stage}, fp32, gloo, made-up ECGs in batches of {GLOBAL_BATCH}: steps far "
        "shorter beside the model's size than in earnest. A pair is a block of steps without a checkpoint and one "
        f"with one, in turns. *slow* is S3 that takes {_LATENCY_S:g} s more for every request; *late* blocks ended "
        "before the commit. SeaweedFS and the proxy take their share of the same cores."
    )


def _cells(measured: Measured) -> list[str]:
    pairs = measured.pairs
    late = sum(not pair.in_time for pair in pairs)
    costs = [pair.with_s - pair.without_s for pair in pairs]
    cost = statistics.median(costs)
    return [
        f"{measured.checkpoint_bytes / 1e6:.0f}",
        str(measured.steps),
        cell([pair.without_s for pair in pairs], 1),
        cell([pair.with_s / pair.without_s for pair in pairs], 3),
        cell([pair.snapshot_s for pair in pairs], 2),
        cell([pair.upload_s for pair in pairs], 1) + (f", {late} late" if late else ""),
        cell(costs, 2),
        f"{1 + cost / _DEFAULT_INTERVAL_S:.4f}",
        f"{max(0.0, cost) / 0.05:.0f}",
    ]


if __name__ == "__main__":
    main()
