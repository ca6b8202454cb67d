"""Step time and memory of ZeRO stages 0-3 on two processes: what the default stage is chosen from.

Run with ``python -m tests.benchmarks.zero``. Every measurement has processes of its own; stages take turns,
so that a slow minute of the machine does not fall on one of them. Real ECGs, fp32, gloo.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from ecgdist.models.config import EncoderConfig
from ecgdist.objectives.config import ObjectiveConfig
from ecgdist.objectives.hybrid import PretrainingModule
from ecgdist.pretraining.config import EngineConfig, OptimizerConfig
from ecgdist.pretraining.engine import DeepSpeedEngine
from ecgdist.pretraining.group import Group
from ecgdist.pretraining.step import TrainingStep, micro_batches
from tests.benchmarks.results import cell, table, write_section
from tests.pretraining.parity import batch_of
from tests.pretraining.processes import Processes
from tests.pretraining.runs import GLOBAL_BATCH, ORDER, PREPROCESSING, WEIGHT_DECAY

STAGES = (0, 1, 2, 3)
WARM_STEPS, STEPS = 2, 5
_GIB = 2**30


@dataclass(frozen=True)
class Measured:
    """One rank's seconds of each step, its memory between steps and at most, and the model's parameters."""

    seconds: list[float]
    resident_bytes: int
    peak_bytes: int
    parameters: int


def measure(size: str, zero_stage: int) -> Measured:
    """Train some steps; runs in every process of a group."""
    group = Group()
    torch.manual_seed(0)
    encoder = EncoderConfig.model_validate({"size": size, "patch_samples": 25})
    module = PretrainingModule(encoder, ObjectiveConfig(), PREPROCESSING.window_samples)
    parameters = sum(weight.numel() for weight in module.parameters())
    teacher = module.teacher()
    engine = DeepSpeedEngine(
        module,
        EngineConfig.model_validate({"zero_stage": zero_stage, "micro_batch": 8}),
        OptimizerConfig(),
        WEIGHT_DECAY,
        micro_batches(ORDER, group.world_size, 8),
    )
    step = TrainingStep(
        engine, teacher, ObjectiveConfig(), PREPROCESSING, ORDER, group, 8, 1000, torch.device("cpu")
    )
    seconds = []
    for number in range(WARM_STEPS + STEPS):
        batch = batch_of(number, group)
        began = time.perf_counter()
        step(batch, 1e-4)
        seconds.append(time.perf_counter() - began)
    resident = psutil.Process().memory_full_info().uss
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Measured(seconds[WARM_STEPS:], resident, peak, parameters)


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=["small", "base"])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    lines = []
    for size in options.sizes:
        found: dict[int, list[Measured]] = {stage: [] for stage in STAGES}
        for _ in range(options.repeats):
            for stage in STAGES:
                with tempfile.TemporaryDirectory() as folder:
                    group = Processes(2, Path(folder))
                    try:
                        found[stage].append(group.run(measure, size, stage)[0])
                    finally:
                        group.close()
                print(
                    f"{size}, stage {stage}: {statistics.median(found[stage][-1].seconds):.2f} s", flush=True
                )
        for stage, runs in found.items():
            medians = [statistics.median(run.seconds) for run in runs]
            ratios = [
                own / statistics.median(base.seconds) for own, base in zip(medians, found[0], strict=True)
            ]
            lines.append(
                [
                    f"{size}, {runs[0].parameters / 1e6:.1f} M",
                    str(stage),
                    cell(medians, 2),
                    cell(ratios, 2),
                    f"{max(run.resident_bytes for run in runs) / _GIB:.2f}",
                    f"{max(run.peak_bytes for run in runs) / _GIB:.2f}",
                ]
            )
    columns = ("parameters", "stage", "s a step", "of stage 0", "GiB between steps", "GiB at most")
    what = (
        f"Two processes of one thread, fp32, gloo: {STEPS} steps after {WARM_STEPS}, of {GLOBAL_BATCH} real ECGs of "
        f"{PREPROCESSING.window_samples} samples; memory of the first process, its share of the batch and the whole "
        "teacher with it. The ratio is taken repeat by repeat."
    )
    sizes = " ".join(options.sizes)
    write_section(
        "ZeRO stages",
        f"python -m tests.benchmarks.zero --sizes {sizes} --repeats {options.repeats}",
        [what, table(columns, lines)],
    )


if __name__ == "__main__":
    main()
