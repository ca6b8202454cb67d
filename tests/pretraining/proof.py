"""Break a run again and again, and compare it with an unbroken one: `python -m tests.pretraining.proof --kills 20`.

Killed with SIGKILL at random moments: training processes (``--kills`` times, some of them while a checkpoint is
written); and, ``--others`` times each, a node's raylet, the driver, and the whole cluster with the driver. With
``--write`` the figures go into `tests/pretraining/PROOF.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

import numpy as np

from tests.pretraining.breaking import (
    Breaker,
    Kill,
    kill_clusters,
    kill_drivers,
    kill_nodes,
    kill_workers,
)
from tests.pretraining.proof_run import GLOBAL_BATCH, WORKERS, ProofRun, pack_sample
from tests.pretraining.recorded import Line
from tests.ray_nodes import ray_nodes

MODES = {
    "worker": "a training process",
    "node": "the raylet of one of two nodes",
    "driver": "the driver; same command again",
    "cluster": "all nodes and the driver; started again",
}
RESULTS = Path(__file__).with_name("PROOF.md")
_PACKAGES = ("torch", "ray", "deepspeed", "pyarrow", "numpy")
_LEAST_STEPS = 4
"""Steps without a kill from which a speed is reckoned."""


@dataclass(frozen=True)
class Recovery:
    """What followed a kill.

    Attributes:
        first_batch_s: from the kill to the first batch that any rank trains on again.
        progress_s: from the kill to the first step that had not been begun before.
    """

    first_batch_s: float
    progress_s: float


@dataclass(frozen=True)
class Verdict:
    """A broken run beside the unbroken one.

    Attributes:
        steps: of the run.
        kills: in order.
        recoveries: of the kills that were followed by a batch before the next one.
        steps_per_s: in each stretch between kills.
        replayed: rank-steps that were trained twice or more.
        changed: replayed steps that used other rows the second time.
        same_batches: whether every global batch is the unbroken run's.
        same_weights: whether student and teacher are equal to the last bit.
        same_metrics: whether all rows of the metrics are equal, speed apart.
    """

    mode: str
    steps: int
    kills: list[Kill]
    recoveries: list[Recovery]
    steps_per_s: list[float]
    seconds: float
    replayed: int
    changed: int
    lost: int
    doubled: int
    same_batches: bool
    same_weights: bool
    same_metrics: bool

    @property
    def holds(self) -> bool:
        """Whether the run is the unbroken one."""
        same = self.same_batches and self.same_weights and self.same_metrics
        return same and self.changed == self.lost == self.doubled == 0


def unbroken_run(folder: Path, steps: int) -> ProofRun:
    """Pack the ECGs and train without a kill."""
    corpus = folder / "corpus"
    if not (corpus / "manifest.json").exists():
        pack_sample(corpus)
    run = ProofRun(folder / "unbroken", str(corpus), steps)
    if not (folder / "unbroken/run/model/config.json").exists():
        with run.driver() as driver:
            run.finish(driver)
    run.watch.look()
    return run


def break_run(mode: str, unbroken: ProofRun, folder: Path, kills: int, seed: int, saving: int) -> Verdict:
    """The same run, broken."""
    began = time.monotonic()
    run = ProofRun(folder, unbroken.corpus, unbroken.steps)
    if mode in ("node", "cluster"):
        with ray_nodes() as nodes:
            run.environment |= nodes.environment
            # Each of the two nodes has room for one worker and what reads for it.
            run.configure(workers={"cpus_each": 1.5})
            breaker = Breaker(run, kills, seed, saving)
            done = (kill_nodes if mode == "node" else kill_clusters)(run, breaker, nodes)
    else:
        breaker = Breaker(run, kills, seed, saving)
        done = (kill_workers if mode == "worker" else kill_drivers)(run, breaker)
    return compare(mode, unbroken, run, done, time.monotonic() - began)


def compare(mode: str, unbroken: ProofRun, run: ProofRun, kills: list[Kill], seconds: float) -> Verdict:
    """A finished broken run beside the unbroken one."""
    expected, history = unbroken.history(), run.history()
    wanted, found = unbroken.weights(), run.weights()
    return Verdict(
        mode,
        run.steps,
        kills,
        recoveries(run.watch.lines, kills),
        speeds(run.watch.lines, kills),
        seconds,
        history.replayed,
        len(history.changed),
        history.lost(run.steps, GLOBAL_BATCH),
        history.doubled(unbroken.facts()["steps_per_epoch"]),
        history.batches == expected.batches,
        all(
            found[file].keys() == wanted[file].keys()
            and all(np.array_equal(found[file][name], wanted[file][name]) for name in wanted[file])
            for file in wanted
        ),
        run.metrics() == unbroken.metrics(),
    )


def recoveries(lines: list[Line], kills: list[Kill]) -> list[Recovery]:
    """How soon each kill was overcome; one that came while the one before was not is counted with that one."""
    found = []
    for kill in kills:
        files = {line.file for line in lines if line.time_s <= kill.time_s}
        later = [line for line in lines if line.time_s > kill.time_s and line.file not in files]
        until = min((k.time_s for k in kills if k.time_s > kill.time_s), default=float("inf"))
        if not later or later[0].time_s > until:
            continue
        progress = next((line.time_s for line in later if line.step > kill.step), later[-1].time_s)
        found.append(Recovery(later[0].time_s - kill.time_s, progress - kill.time_s))
    return found


def speeds(lines: list[Line], kills: list[Kill]) -> list[float]:
    """Steps per second of every process of rank 0 that did some; its first step is not counted."""
    found = []
    for file in sorted({line.file for line in lines if line.rank == 0}):
        times = [line.time_s for line in lines if line.file == file][1:]
        if len(times) > _LEAST_STEPS:
            found.append((len(times) - 1) / (times[-1] - times[0]))
    return found


def spread(values: list[float], unit: str = "s") -> str:
    """Median, least and most."""
    if not values:
        return "-"
    return f"{median(values):.1f} ({min(values):.1f} to {max(values):.1f}) {unit}"


def report(unbroken: ProofRun, verdicts: list[Verdict], command: str) -> str:
    """The figures as a page of Markdown."""
    facts = unbroken.facts()
    epochs = unbroken.steps / facts["steps_per_epoch"]
    versions = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    lines = [
        "# Proof run",
        "",
        f"Written by `{command}`; SIGKILL throughout.",
        f"{WORKERS} workers on CPU (gloo, fp32, ZeRO stage 2, `tiny`), {unbroken.steps} steps of {GLOBAL_BATCH} "
        f"({epochs:.1f} epochs of the shipped ECGs), a checkpoint every 6 steps. {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, {versions}. The machine did other work at the same time.",
        f"Unbroken: {spread(speeds(unbroken.watch.lines, []), 'steps/s')}.",
        "",
        "| killed | steps | kills | while saving | rank-steps replayed, steps changed by it | lost, doubled rows "
        "| batches, weights, metrics equal | kill to first batch | kill to new step | steps/s between kills |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for v in verdicts:
        equal = ", ".join(
            "yes" if same else "NO" for same in (v.same_batches, v.same_weights, v.same_metrics)
        )
        saving = sum(kill.moment == "saving" for kill in v.kills)
        lines.append(
            f"| {MODES[v.mode]} | {v.steps} | {len(v.kills)} | {saving} | {v.replayed}, {v.changed} "
            f"| {v.lost}, {v.doubled} | {equal} | {spread([r.first_batch_s for r in v.recoveries])} "
            f"| {spread([r.progress_s for r in v.recoveries])} | {spread(v.steps_per_s, '')} |"
        )
    return "\n".join(
        [
            *lines,
            "",
            "Median (least to most). While saving: a checkpoint was being written. Equal: every global batch by row "
            "ids; student and teacher to the last bit; every row of `metrics.jsonl` apart from its speed.",
            "",
        ]
    )


def load(path: Path) -> Verdict:
    """A verdict that an earlier call left in its folder."""
    values = json.loads(path.read_text())
    values["kills"] = [Kill(**kill) for kill in values["kills"]]
    values["recoveries"] = [Recovery(**recovery) for recovery in values["recoveries"]]
    return Verdict(**values)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20, help="of training processes")
    parser.add_argument("--others", type=int, default=3, help="of raylets, drivers and clusters, each")
    parser.add_argument("--saving", type=int, default=4, help="of the kills, while a checkpoint is written")
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument(
        "--folder", type=Path, help="for the corpus and the runs; what is done there already is kept"
    )
    parser.add_argument("--write", action="store_true", help=f"write the figures into {RESULTS.name}")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="proof-"))
    unbroken = unbroken_run(folder, arguments.steps)
    for mode in arguments.modes:
        many = mode == "worker"
        kills, saving = (arguments.kills, arguments.saving) if many else (arguments.others, 1)
        verdict = break_run(mode, unbroken, folder / mode, kills, arguments.seed, saving)
        (folder / f"{mode}.json").write_text(json.dumps(asdict(verdict), indent=1))
        print(mode, "holds" if verdict.holds else f"DOES NOT HOLD: {verdict}", flush=True)
    verdicts = [load(path) for mode in MODES if (path := folder / f"{mode}.json").exists()]
    words = [
        f"--{name} {getattr(arguments, name)}" for name in ("kills", "others", "saving", "steps", "seed")
    ]
    page = report(unbroken, verdicts, " ".join(["python -m tests.pretraining.proof", *words]))
    print(page)
    if arguments.write:
        RESULTS.write_text(page)
    if not all(verdict.holds for verdict in verdicts):
        raise SystemExit("a broken run differs from the unbroken one")


if __name__ == "__main__":
    main()
