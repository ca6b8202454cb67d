"""Training on one GPU: speed, MFU and memory by size, precision, ZeRO stage and compiling.

`python -m tests.benchmarks.gpu [--repeats 5]` trains whole steps of the shipped ECGs, preprocessing and teacher with
them, under DeepSpeed in one process. Every setting has a process of its own.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ecgdist.models.compiling import compile_all
from ecgdist.models.config import EncoderConfig
from ecgdist.objectives.hybrid import PretrainingModule
from ecgdist.preprocessing import Preprocessing
from ecgdist.pretraining.config import EngineConfig, OptimizerConfig
from ecgdist.pretraining.engine import DeepSpeedEngine
from ecgdist.pretraining.flops import Meter, flops_per_ecg, peak_flops
from ecgdist.pretraining.group import Group
from ecgdist.pretraining.step import TrainingStep, micro_batches
from ecgdist.streaming.batches import RankBatch
from ecgdist.streaming.order import Order
from tests.benchmarks.results import cell, table, write_section
from tests.pretraining.processes import Processes
from tests.pretraining.runs import OBJECTIVES
from tests.signals.real_ecgs import recordings

ROWS, ECGS, WARM_STEPS = 1024, 64, 3
PRE = Preprocessing()
_GIB = 2**30


@dataclass(frozen=True)
class Setting:
    """What is measured."""

    size: str
    precision: str = "bf16"
    stage: int = 1
    compile: bool = False
    recompute: bool = False
    arm: str = "HL"
    micro_batch: int = ROWS

    @property
    def cells(self) -> list[str]:
        """How a line of the table begins."""
        yes = {True: "yes", False: ""}
        return [
            self.size, self.arm, self.precision, str(self.stage), f"{self.micro_batch:,}",
            yes[self.compile], yes[self.recompute],
        ]  # fmt: skip


SETTINGS = (
    Setting("small", "fp32", 0),
    Setting("small", stage=0),
    Setting("small"),
    Setting("small", stage=2),
    Setting("small", stage=3),
    Setting("small", compile=True),
    Setting("small", micro_batch=64),
    Setting("small", recompute=True),
    Setting("small", arm="GL"),
    Setting("small", arm="CL"),
    Setting("base", "fp32", 0),
    Setting("base", stage=0),
    Setting("base"),
    Setting("base", compile=True),
    Setting("base", compile=True, recompute=True),
    Setting("large"),
    Setting("large", compile=True),
)


@dataclass(frozen=True)
class Measured:
    """Seconds of steps, the share of the peak that each reached, and the most memory."""

    seconds: list[float]
    mfu: list[float]
    peak_bytes: int
    first_s: float


def measure(setting: Setting, repeats: int) -> Measured:
    """Train; runs in a process of its own."""
    device = torch.device("cuda")
    objective = OBJECTIVES[setting.arm]
    encoder = EncoderConfig.model_validate(
        {"size": setting.size, "activation_checkpointing": setting.recompute}
    )
    config = EngineConfig.model_validate(
        {"zero_stage": setting.stage, "precision": setting.precision, "micro_batch": setting.micro_batch}
    )
    torch.manual_seed(0)
    module = PretrainingModule(encoder, objective, PRE.window_samples).to(device)
    teacher = module.teacher(config.compute_dtype)
    if setting.compile:
        compile_all(module, teacher)
    order = Order([4 * ROWS], seed=0, lanes=8, global_batch=ROWS, shuffle_rows=ROWS)
    times = micro_batches(order, 1, setting.micro_batch) * objective.student_passes
    engine = DeepSpeedEngine(module, config, OptimizerConfig(), 0.05, times)
    step = TrainingStep(engine, teacher, objective, PRE, order, Group(), setting.micro_batch, 10_000, device)
    batch, seconds = _batch(), []
    for _ in range(WARM_STEPS + repeats):
        began = time.perf_counter()
        step(batch, 1e-4)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    flops = flops_per_ecg(encoder, objective, PRE.window_samples) * ROWS
    peak = peak_flops(torch.cuda.get_device_name(device), setting.precision)
    meter = None if peak is None else Meter(flops, peak)
    measured = seconds[WARM_STEPS:]
    return Measured(
        measured,
        [] if meter is None else [meter.share(one) for one in measured],
        torch.cuda.max_memory_allocated(),
        seconds[0],
    )


def _batch() -> RankBatch:
    """The first shipped ECGs, again and again, as if of as many patients."""
    segments = [PRE.pack_recording(recording)[0] for recording in recordings(ECGS)]
    numbers = np.arange(ROWS)
    chosen = [segments[number % ECGS] for number in numbers]
    return RankBatch(
        0,
        numbers,
        np.stack([segment.signal_uv for segment in chosen]),
        np.array([segment.valid_samples for segment in chosen]),
        np.stack([segment.lead_mask for segment in chosen]),
        numbers,
        [f"ptbxl/{number}#0" for number in numbers],
    )


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    rows = []
    for setting in SETTINGS:
        with tempfile.TemporaryDirectory() as folder:
            group = Processes(1, Path(folder))
            try:
                found: Measured = group.run(measure, setting, options.repeats)[0]
            finally:
                group.close()
        print(setting, f"{statistics.median(found.seconds):.4f} s", flush=True)
        rows.append(
            [
                *setting.cells,
                cell([1000 * one for one in found.seconds]),
                f"{ROWS / statistics.median(found.seconds):,.0f}",
                cell([100 * one for one in found.mfu], 1),
                f"{found.peak_bytes / _GIB:.1f}",
                f"{found.first_s:.0f}",
            ]
        )
        _write(rows, options.repeats)


def _write(rows: list[list[str]], repeats: int) -> None:
    columns = (
        "size", "arm", "precision", "ZeRO", "micro-batch", "compiled", "recomputes", "ms a step", "ECG/s",
        "MFU, %", "GiB at most", "s of the first step",
    )  # fmt: skip
    what = (
        f"{torch.cuda.get_device_name()}, one process; whole steps of {ROWS:,} real ECGs of 12 x 2,500 samples from "
        f"host memory, windows of {PRE.window_samples}: filtering, cutting, scaling, teacher, student, optimizer. "
        f"{repeats} steps after {WARM_STEPS}. MFU: `ecgdist/pretraining/flops.py`, of the peak in that precision."
    )
    write_section(
        "Training on one GPU",
        f"python -m tests.benchmarks.gpu --repeats {repeats}",
        [what, table(columns, rows)],
    )


if __name__ == "__main__":
    main()
