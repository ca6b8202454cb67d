"""What the arms cost: forward and backward of each, beside each other, and against a student that encodes all tokens.

`python -m tests.benchmarks.arms [--repeats 7]` on one thread in this process: whole steps of 32 shipped ECGs, with
views, keys and the optimizer, at `small` in float32.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from ecgdist.models.config import EncoderConfig
from ecgdist.models.encoders import build_encoder
from ecgdist.pretraining.flops import flops_per_ecg
from ecgdist.pretraining.step import TrainingStep
from ecgdist.streaming.batches import RankBatch
from tests.benchmarks.augment import NOTHING, PRE, ROWS, SIZE, real_batch, training_step
from tests.benchmarks.results import cell, table, write_section
from tests.pretraining.runs import ARMS, METHODS

OBJECTIVES = ARMS | METHODS


def main() -> None:
    """Measure all sides in turns, and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    batch = real_batch()
    # Two adjacent windows of 9 s do not fit into 10 s.
    arms = {name: one for name, one in OBJECTIVES.items() if not one.contrastive.kind.adjacent}
    steps: dict[str, Callable[[], object]] = {
        name: _step(training_step(one, NOTHING), batch) for name, one in arms.items()
    }
    masked, whole = _encoding(0.75), _encoding(0.0)
    calls = steps | {"masked encoder": masked, "whole encoder": whole}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for repeat in range(options.repeats):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - began)
        print(
            f"repeat {repeat + 1}: " + ", ".join(f"{n} {v[-1]:.2f}" for n, v in seconds.items()), flush=True
        )
    _write(seconds, list(steps), options.repeats)


def _step(step: TrainingStep, batch: RankBatch) -> Callable[[], object]:
    return lambda: step(batch, 1e-4)


def _encoding(ratio: float) -> Callable[[], None]:
    """Forward and backward of the encoder alone, with so many of its tokens left out."""
    torch.manual_seed(0)
    encoder = build_encoder(EncoderConfig(size=SIZE))
    signal = torch.randn(ROWS, 12, PRE.window_samples)
    valid, leads = torch.full((ROWS,), PRE.window_samples), torch.ones(ROWS, 12, dtype=torch.bool)
    count = encoder.num_tokens(PRE.window_samples)
    kept = torch.rand(ROWS, count).argsort(dim=1)[:, : max(1, int(count * (1 - ratio)))].sort(dim=1).values

    def run() -> None:
        encoder.zero_grad()
        encoder(signal, valid, leads, kept).square().sum().backward()

    return run


def _write(seconds: dict[str, list[float]], arms: list[str], repeats: int) -> None:
    config = EncoderConfig(size=SIZE)
    rows = [
        [
            name,
            cell([1000 * value for value in seconds[name]]),
            cell(_ratio(seconds[name], seconds["HL"]), 2),
            _gflops(config, name),
        ]
        for name in arms
    ]
    both = [gl + cl for gl, cl in zip(seconds["GL"], seconds["CL"], strict=True)]
    ratios = [
        [
            "encoder: all tokens / a quarter of them",
            cell(_ratio(seconds["whole encoder"], seconds["masked encoder"]), 2),
        ],
        ["HL step / (GL step + CL step)", cell(_ratio(seconds["HL"], both), 2)],
    ]
    what = (
        f"Whole steps of {ROWS} shipped ECGs, one process of one thread, `{SIZE}`, float32; GFLOP of an ECG by "
        "`ecgdist/pretraining/flops.py`."
    )
    write_section(
        "Arms",
        f"python -m tests.benchmarks.arms --repeats {repeats}",
        [
            what,
            table(("arm", "ms a step", "of an HL step", "GFLOP an ECG"), rows),
            table(("", "ratio, repeat by repeat"), ratios),
        ],
    )


def _gflops(config: EncoderConfig, name: str) -> str:
    return f"{flops_per_ecg(config, OBJECTIVES[name], PRE.window_samples) / 1e9:.2f}"


def _ratio(ours: list[float], theirs: list[float]) -> list[float]:
    return [one / other for one, other in zip(ours, theirs, strict=True)]


if __name__ == "__main__":
    main()
