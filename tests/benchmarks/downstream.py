"""Ways to use a model on real ECGs: `ecgdist benchmark` on PTB-XL folders, with 1, 10 and 100 % of the labels.

`python -m tests.benchmarks.downstream --out FOLDER ptbxl=DIR ...` packs the folders at 100 Hz, pretrains a `tiny`
hybrid model without folds 7 (validation) and 8 (test), and compares linear probe, fine-tuning, training from scratch
and the probe on an untrained encoder, with three draws of labels. Run again, it goes on; with `--minutes` it begins no
training after so long, and exits with 75 until all is done.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from rich.console import Console

from ecgdist.benchmark import benchmark
from ecgdist.config import build
from ecgdist.downstream.benchmark.config import BenchmarkConfig
from ecgdist.downstream.benchmark.result import PAIRS, Benchmark
from ecgdist.errors import RunStopped
from ecgdist.packing import PackConfig, pack
from ecgdist.pretraining.config import PretrainConfig
from ecgdist.pretraining.job import pretrain
from ecgdist.pretraining.raytrain import local_cpus
from ecgdist.raytools import ray_session
from tests.benchmarks.learning import FOLDS, RATE_HZ, pretraining
from tests.benchmarks.results import table, write_section

TASKS = ("ptbxl-super", "ptbxl-diagnostic")
STEPS = 100
"""Of each training on labels; batches of at most 64."""


def main() -> None:
    """Pack, pretrain, compare, and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", nargs="+", metavar="KIND[:NAME]=URI")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=400, help="of pretraining")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, help="begin no training after so long")
    options = parser.parse_args()
    began, console = time.monotonic(), Console(width=140)
    corpus, run = str(options.out / "corpus"), str(options.out / "pretraining")
    settings = build(PretrainConfig, pretraining(corpus, options.steps) | {"out": run})
    with ray_session(num_cpus=max(4, local_cpus(settings))):
        packing = {"sources": tuple(options.sources), "out": corpus, "pack": {"rate_hz": RATE_HZ}}
        packed = pack(build(PackConfig, packing))
        pretrain(settings, console)
    left = None
    if options.minutes is not None:
        left = max(1.0, options.minutes - (time.monotonic() - began) / 60) / 60
    try:
        found = benchmark(config(options.out, options.tasks, options.seeds, left), console)
    except RunStopped as stopped:
        print(stopped)
        sys.exit(RunStopped.exit_status)
    _write(found, packed.corpus.manifest.rows, options.steps)


def config(out: Path, tasks: list[str], seeds: list[int], hours: float | None) -> BenchmarkConfig:
    """The benchmark of the pretrained model."""
    values = {
        "model": str(out / "pretraining/model"),
        "corpus": str(out / "corpus"),
        "out": str(out / "benchmark"),
        "tasks": tasks,
        "folds": FOLDS,
        "label_seeds": seeds,
        "steps": STEPS,
        "looks": 6,
        "resamples": 2000,
        "concurrent": 2,
        "hours": hours,
    }
    return build(BenchmarkConfig, values)


def _write(found: Benchmark, rows: int, steps: int) -> None:
    settings = found.settings
    what = (
        f"{rows:,} PTB-XL ECGs at {RATE_HZ:g} Hz; a `tiny` encoder, pretrained (HL) for {steps} steps of 64 without "
        f"the folds of validation and test; then {settings['steps']} steps of at most 64 ECGs on the labels of a share "
        f"of the training patients, seeds {', '.join(map(str, settings['label_seeds']))} (patients, initial weights, "
        f"order); the best of {settings['looks']} looks at the validation split. Corpus `{found.corpus_id}`, model "
        f"`{found.model_hash}`."
    )
    paragraphs = [what]
    for task in found.tasks:
        paragraphs += [
            f"### {task.headline}",
            table(task.columns, task.rows()),
            table(PAIRS, task.pairs()),
            f"{task.split_note}; split digest `{task.split_digest}`.",
            "\n".join(f"* {note}" for note in task.notes),
        ]
    tasks, seeds = (" ".join(map(str, settings[name])) for name in ("tasks", "label_seeds"))
    words = f"--steps {steps} --tasks {tasks} --seeds {seeds} --out FOLDER ptbxl=DIR ptbxl100=DIR"
    command = f"python -m tests.benchmarks.downstream {words}"
    write_section("Ways to use a model", command, paragraphs)


if __name__ == "__main__":
    main()
