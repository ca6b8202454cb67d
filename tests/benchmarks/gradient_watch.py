"""What looking at every gradient costs a step: `python -m tests.benchmarks.gradient_watch [--size small]`.

One process trains on made-up ECGs, and steps with and without the look take turns. What is measured is processor time,
so that whatever else the machine does counts for little.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import numpy as np
import torch

from ecgdist.models.config import EncoderConfig
from ecgdist.objectives.config import ObjectiveConfig
from ecgdist.objectives.hybrid import PretrainingModule
from ecgdist.preprocessing import Preprocessing
from ecgdist.pretraining.group import Group
from ecgdist.pretraining.nonfinite import GradientWatch
from ecgdist.pretraining.step import TrainingStep
from ecgdist.streaming.batches import RankBatch
from ecgdist.streaming.order import Order
from tests.benchmarks.results import cell, table, write_section
from tests.pretraining.runs import PlainEngine

ROWS = 16


def made_batch(step: int, num_samples: int) -> RankBatch:
    """Noise, of as many patients as rows."""
    random = np.random.default_rng(step)
    signal_uv = random.normal(0, 300, (ROWS, 12, num_samples)).astype(np.int16)
    whole = np.full(ROWS, num_samples, np.int64)
    numbers = np.arange(ROWS)
    names = [f"made-up/{n}#0" for n in numbers]
    return RankBatch(step, numbers, signal_uv, whole, np.ones((ROWS, 12), np.bool_), numbers, names)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", default="small", choices=["tiny", "small", "base"])
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--micro-batch", type=int, default=8)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    preprocessing = Preprocessing()
    module = PretrainingModule(
        EncoderConfig(size=arguments.size), ObjectiveConfig(), preprocessing.window_samples
    )
    order = Order([ROWS * 4], seed=0, lanes=8, global_batch=ROWS, shuffle_rows=ROWS)
    step = TrainingStep(
        PlainEngine(module, 1.0), module.teacher(), ObjectiveConfig(), preprocessing, order, Group(),
        arguments.micro_batch, 10_000, torch.device("cpu"),
    )  # fmt: skip
    look, seconds = GradientWatch._look, {True: [], False: []}
    for number in range(2 * arguments.pairs + 2):
        # Pairs begin with either in turn.
        watched = (number + number // 2) % 2 == 0
        GradientWatch._look = look if watched else lambda self, gradient: None  # type: ignore[method-assign]
        batch = made_batch(number, preprocessing.num_samples)
        began = time.process_time()
        step(batch, 1e-5)
        if number >= 2:
            seconds[watched].append(time.process_time() - began)
    ratios = [a / b for a, b in zip(seconds[True], seconds[False], strict=True)]
    low, high = np.percentile(ratios, [25, 75])
    what = (
        f"`{arguments.size}`, {ROWS} made-up ECGs a step in micro-batches of {arguments.micro_batch}, one process of "
        f"one thread; {len(ratios)} pairs of a step with the look and one without, in turns."
    )
    lines = [
        ["s of a processor a step, with the look", cell(seconds[True], 3)],
        ["without", cell(seconds[False], 3)],
        ["ratio, pair by pair: median (quartiles)", f"{median(ratios):.3f} ({low:.3f} to {high:.3f})"],
    ]
    print(*(": ".join(line) for line in lines), sep="\n")
    options = f"--size {arguments.size} --pairs {arguments.pairs} --micro-batch {arguments.micro_batch}"
    command = f"python -m tests.benchmarks.gradient_watch {options}"
    write_section("Looking at every gradient", command, [what, table(["", ""], lines)])


if __name__ == "__main__":
    main()
