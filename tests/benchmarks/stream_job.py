"""What the job costs: the same steps by `ecgdist pretrain` and by a bare torchrun loop over batches in memory.

Both have processes of one thread, the same model, engine, configuration and, checked here, the same batches: their
losses agree. What the job adds is Ray Train, the stream, votes, metrics and the console. It is measured with a process
for every core of a machine of two, where Ray's own processes take their time from training, and with one, where a core
is left for them, as on a node with accelerators. Beside both stands what `ecgdist plan` foretells.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import yaml

from ecgdist.config import build
from ecgdist.planning.estimate import Circumstances, estimate_pretraining
from ecgdist.planning.layout import RunLayout
from ecgdist.planning.request import PlanRequest
from ecgdist.pretraining.config import PretrainConfig
from ecgdist.pretraining.engine import DeepSpeedEngine
from ecgdist.pretraining.group import Group
from ecgdist.pretraining.metrics import read_metrics
from ecgdist.pretraining.plan import RunPlan
from ecgdist.pretraining.schedule import learning_rate_at, peak_learning_rate
from ecgdist.pretraining.step import TrainingStep, micro_batches
from ecgdist.raytools import ray_session
from ecgdist.storage import Location
from ecgdist.streaming.batches import RankBatch, rank_batches
from ecgdist.streaming.order import PoolItem
from ecgdist.streaming.pool import PoolReader
from tests.benchmarks.peers import data
from tests.benchmarks.results import cell, table, write_section

SIZE = "small"
WORKERS = (2, 1)
ROWS_PER_WORKER = 16
WARM_STEPS, STEPS = 4, 20
_AGREE = 1e-5


def settings(corpus: Path, out: Path, workers: int) -> dict[str, Any]:
    """The configuration of both sides."""
    return {
        "corpus": str(corpus),
        "out": str(out),
        "steps": WARM_STEPS + STEPS,
        "log_every_steps": 4,
        "data": {"lanes": 8, "global_batch": workers * ROWS_PER_WORKER, "shuffle_rows": 4096},
        "encoder": {"size": SIZE},
        "engine": {"zero_stage": 0, "micro_batch": ROWS_PER_WORKER},
        "workers": {"count": workers},
        "checkpoint": {"every_minutes": None},
    }


@dataclass
class _Found:
    """ECG/s of both sides and of the plan by repeat, and the percentage of its time that the job waited for batches."""

    job: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    planned: list[float] = field(default_factory=list)
    waiting: list[float] = field(default_factory=list)

    def row(self, workers: int) -> list[str]:
        rates = [cell(values, 2) for values in (self.job, self.bare, self.planned)]
        ratios = [
            cell([one / other for one, other in zip(self.job, others, strict=True)], 3)
            for others in (self.bare, self.planned)
        ]
        return [str(workers), *rates, *ratios, cell(self.waiting, 2)]


def job(arguments: argparse.Namespace) -> None:
    """ECG/s of both, in turn, and of a plan that measures a core of this machine just before.

    Raises:
        RuntimeError: if a side fails, or trains otherwise than the other.
    """
    with ray_session(num_cpus=4):
        corpus = data.folders(sides=("ours",))[0]["ours"]
    found = {workers: _Found() for workers in WORKERS}
    for repeat in range(1, arguments.repeats + 1):
        _, given = PlanRequest(measure=True).of(_config(corpus, 1))
        print(f"one core: {given.rate.ecg_per_s:.2f} ECG/s", flush=True)
        for workers, values in found.items():
            with tempfile.TemporaryDirectory() as folder:
                rate, losses, waiting = _ours(settings(corpus, Path(folder) / "run", workers), Path(folder))
                theirs = _torchrun(Path(folder), workers)
            _check(losses, theirs["losses"])
            values.job.append(rate)
            values.bare.append(theirs["rate"])
            values.planned.append(_planned(_config(corpus, workers), given))
            values.waiting.append(100 * waiting)
            print(f"{workers} workers: {rate:.2f} and {theirs['rate']:.2f} ECG/s", flush=True)
        # After each repeat, so that a run that is stopped leaves what it has measured.
        _write(found, repeat)


def _config(corpus: Path, workers: int) -> PretrainConfig:
    return build(PretrainConfig, settings(corpus, Path("run"), workers))


def _planned(config: PretrainConfig, given: Circumstances) -> float:
    """ECG/s of a plan of this run."""
    (found,) = estimate_pretraining(RunLayout.of_corpus(config), given, [config.workers.most]).by_workers
    return found.ecg_per_s


def _write(found: dict[int, _Found], repeats: int) -> None:
    what = (
        f"`{SIZE}`, hybrid, fp32, ZeRO stage 0, processes of one thread, {ROWS_PER_WORKER} ECGs a step for each: ECG/s "
        f"over {STEPS} steps after the first {WARM_STEPS}, sides in turn, ratio repeat by repeat. Both train on the "
        f"same batches; all losses agree to {_AGREE:g}. Where there are as many workers as cores, all that Ray's own "
        "processes do is taken from training; with one, a core is left for them, as on a node with accelerators. "
        "*Plan*: what `ecgdist plan --measure` foretells, which measures one process on the idle machine at the "
        "beginning of a repeat; that workers on one machine share its memory and caches is not in it."
    )
    columns = (
        *("workers", "`ecgdist pretrain`", "torchrun, batches in memory", "plan"),
        *("job / torchrun", "job / plan", "of the job's time, waiting for batches, %"),
    )
    write_section(
        "Our job beside a bare torchrun loop",
        f"python -m tests.benchmarks.stream --part job --repeats {repeats}",
        [what, table(columns, [values.row(workers) for workers, values in found.items()])],
    )


def _check(ours: dict[str, float], theirs: dict[str, float]) -> None:
    for step, loss in ours.items():
        if not np.isclose(loss, theirs[step], rtol=_AGREE, atol=0):
            raise RuntimeError(f"after step {step} the job's loss is {loss}, torchrun's {theirs[step]}")


def _ours(content: dict[str, Any], folder: Path) -> tuple[float, dict[str, float], float]:
    """ECG/s and losses by step of a run, and the share of its time that it waited for batches."""
    config = folder / "run.yaml"
    config.write_text(yaml.safe_dump(content))
    _run([str(Path(sys.executable).with_name("ecgdist")), "pretrain", str(config)])
    rows, every = read_metrics(Location.of(content["out"])), content["log_every_steps"]
    counted = [row for row in rows if row["step"] > WARM_STEPS]
    if every * len(counted) != STEPS:
        raise RuntimeError(f"the run reported the steps {[row['step'] for row in rows]}")
    seconds = sum(row["seconds_per_step"] * every for row in counted)
    waited = sum(row["seconds_per_step"] * every * row["waiting_share"] for row in counted)
    losses = {str(row["step"]): row["loss"] for row in rows}
    return content["data"]["global_batch"] * STEPS / seconds, losses, waited / seconds


def _torchrun(folder: Path, workers: int) -> dict[str, Any]:
    """ECG/s and losses by step of the bare loop, by the configuration that lies in this folder."""
    found = folder / "found.json"
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(workers), "-m", __name__]
    _run([sys.executable, *words, str(folder / "run.yaml"), str(found)])
    content: dict[str, Any] = json.loads(found.read_text())
    return content


def _run(command: list[str]) -> None:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=data.HERE.parents[2],
        env=os.environ | {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"},
    )
    if done.returncode:
        raise RuntimeError(f"{command[:4]} failed:\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}")


def bare_loop(config: PretrainConfig) -> dict[str, Any]:
    """The run of a configuration without Ray, over batches that are read beforehand; in every process of a group."""
    group, plan = Group(), RunPlan.of(config)
    device = torch.device("cpu")
    reader = PoolReader(plan.corpus.location, plan.corpus.corpus_id, plan.order, plan.selection)

    def tables(items: Iterator[PoolItem]) -> Generator[Any, None, None]:
        for item in items:
            yield reader.read_alone(item)

    batches: list[RankBatch] = list(
        rank_batches(
            plan.order, group.rank, group.world_size, 0, plan.total_steps, plan.corpus.num_samples, tables
        )
    )
    module = plan.build_module()
    teacher = module.teacher()
    shape = config.encoder.shape
    parts = micro_batches(plan.order, group.world_size, config.engine.micro_batch)
    engine = DeepSpeedEngine(module, plan.config.engine, config.optimizer, shape.weight_decay, parts)
    step = TrainingStep(
        engine,
        teacher,
        config.objective,
        plan.preprocessing,
        plan.order,
        group,
        config.engine.micro_batch,
        plan.total_steps,
        device,
    )
    peak = peak_learning_rate(config.optimizer, config.encoder, plan.order.global_batch)
    losses, began = {}, 0.0
    for number, batch in enumerate(batches):
        if number == WARM_STEPS:
            began = time.perf_counter()
        result = step(batch, learning_rate_at(number, plan.total_steps, peak, shape.warmup_share))
        losses[str(number + 1)] = result.loss
    return {"rate": plan.order.global_batch * STEPS / (time.perf_counter() - began), "losses": losses}


def main() -> None:
    """What torchrun starts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=Path)
    parser.add_argument("found", type=Path)
    arguments = parser.parse_args()
    dist.init_process_group("gloo")
    if torch.get_num_threads() != 1:
        raise RuntimeError(f"{torch.get_num_threads()} threads; the job's workers have 1")
    found = bare_loop(build(PretrainConfig, yaml.safe_load(arguments.config.read_text())))
    if dist.get_rank() == 0:
        arguments.found.write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
