"""What the arms learn on real ECGs: `ecgdist compare` on PTB-XL folders.

`python -m tests.benchmarks.learning --out FOLDER ptbxl=DIR ...` packs the folders at 100 Hz, leaves folds 7
(validation) and 8 (test) out of pretraining, and compares the arms with three seeds; run again, it goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from ecgdist.compare import CompareConfig, compare
from ecgdist.config import build
from ecgdist.downstream.comparison import COLUMNS
from ecgdist.downstream.pairs import PAIR_COLUMNS, p_note
from ecgdist.packing import PackConfig, pack
from ecgdist.raytools import ray_session
from tests.benchmarks.results import table, write_section

RATE_HZ = 100.0
TASK = "ptbxl-super"
FOLDS = {
    "train": [f"fold{number}" for number in range(1, 7)],
    "validation": ["fold7"],
    "test": ["fold8"],
}
"""Of these folders; the official ones for validation and test are not among them."""


def pretraining(corpus: str, steps: int) -> dict[str, Any]:
    """What all arms share."""
    return {
        "corpus": corpus,
        "steps": steps,
        "log_every_steps": 20,
        "data": {
            "lanes": 8,
            "global_batch": 64,
            "shuffle_rows": 2048,
            "exclude_splits": FOLDS["validation"] + FOLDS["test"],
        },
        "encoder": {"size": "tiny", "patch_samples": 30},
        "engine": {"zero_stage": 0},
        "workers": {"count": 2},
        "checkpoint": {"every_minutes": None},
    }


def main() -> None:
    """Pack, compare, and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", nargs="+", metavar="KIND[:NAME]=URI")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    corpus = str(options.out / "corpus")
    with ray_session(num_cpus=4):
        sources = tuple(options.sources)
        packed = pack(build(PackConfig, {"sources": sources, "out": corpus, "pack": {"rate_hz": RATE_HZ}}))
    config = build(
        CompareConfig,
        {
            "out": str(options.out / "comparison"),
            "task": TASK,
            "folds": FOLDS,
            "seeds": options.seeds,
            "pretrain": pretraining(corpus, options.steps),
        },
    )
    result = compare(config, Console(width=140))
    counts = ", ".join(f"{size.records:,} {split}" for split, size in result.counts.items())
    what = (
        f"{packed.corpus.manifest.rows:,} PTB-XL ECGs at {RATE_HZ:g} Hz, `tiny`, {options.steps} steps of 64, seeds "
        f"{', '.join(map(str, options.seeds))}; linear probe on the superclasses ({counts}; {result.split_note}). "
        f"Means over seeds. {result.method}. Retrieval: how often the other half of an ECG is the nearest of "
        f"{result.retrieval_batch} test patients."
    )
    pairs = table(PAIR_COLUMNS, [pair.cells() for pair in result.differences])
    command = (
        f"python -m tests.benchmarks.learning --steps {options.steps} --out FOLDER ptbxl=DIR ptbxl100=DIR"
    )
    warnings = "\n".join(f"* {warning}" for warning in result.warnings)
    write_section(
        "What the arms learn",
        command,
        [what, table(COLUMNS, result.rows()), pairs, p_note(len(result.differences)), warnings],
    )


if __name__ == "__main__":
    main()
