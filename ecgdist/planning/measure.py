"""The speed of training on this machine: whole steps of the configured model on the ECGs that ship with the package."""

from __future__ import annotations

import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from ecgdist.config import build
from ecgdist.errors import TrainingError
from ecgdist.objectives.hybrid import PretrainingModule
from ecgdist.planning.rates import CPU_CORE, Rate
from ecgdist.preprocessing import Preprocessing
from ecgdist.pretraining.config import PretrainConfig
from ecgdist.sample import sample_folder
from ecgdist.sources import open_source
from ecgdist.streaming.batches import RankBatch
from ecgdist.streaming.order import Order

_WARM_STEPS = 2
_ANSWER_S = 600.0


@dataclass(frozen=True)
class Measurement:
    """Steps of a few processes of this machine that train together.

    Attributes:
        workers: processes, of one thread each.
        rows: ECGs of each worker in a step.
        seconds: of every step that counts, as the slowest worker saw it.
    """

    workers: int
    rows: int
    seconds: tuple[float, ...]

    @property
    def ecg_per_s(self) -> float:
        """Of one worker, by the median step."""
        return self.rows / statistics.median(self.seconds)

    def rate(self) -> Rate:
        """As a plan takes it; of one worker, so that no communication is in it."""
        return Rate(
            kind=CPU_CORE,
            ecg_per_s=self.ecg_per_s,
            basis="measured",
            source=f"measured now: {len(self.seconds)} steps of {self.rows} ECGs, {self.workers} process(es) of one "
            f"thread, {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        )


def measure_training(
    config: PretrainConfig, preprocessing: Preprocessing, workers: int = 1, rows: int = 16, steps: int = 5
) -> Measurement:
    """Train some steps in processes of their own, with DeepSpeed and gloo on the CPU; nothing is kept.

    Args:
        config: whose model, objective, augmentations, precision and ZeRO stage are measured.
        preprocessing: of the run's corpus.
        workers: processes that train together.
        rows: ECGs of each of them in a step.
        steps: that count, after two that do not.

    Raises:
        TrainingError: if a process ends or does not answer.
    """
    context = multiprocessing.get_context("spawn")
    job = (config.model_dump(mode="json"), preprocessing.model_dump(mode="json"), workers, rows, steps)
    with tempfile.TemporaryDirectory(prefix="ecgdist-") as folder:
        pipes = [context.Pipe() for _ in range(workers)]
        processes = [
            context.Process(target=_serve, args=(there, rank, folder, job), daemon=True)
            for rank, (_, there) in enumerate(pipes)
        ]
        try:
            for process, (_, there) in zip(processes, pipes, strict=True):
                process.start()
                there.close()
            answers = [_answer(here) for here, _ in pipes]
        finally:
            for process in processes:
                process.terminate()
                process.join()
    return Measurement(workers, rows, tuple(max(each) for each in zip(*answers, strict=True)))


def _answer(connection: Connection) -> list[float]:
    try:
        if connection.poll(_ANSWER_S):
            found: list[float] = connection.recv()
            return found
    except EOFError:
        pass
    raise TrainingError(
        "a process that measured the speed ended, or gave no answer in ten minutes; its error is above. Give a "
        "known speed with --rate instead"
    )


def _serve(
    connection: Connection, rank: int, folder: str, job: tuple[dict[str, Any], dict[str, Any], int, int, int]
) -> None:
    """Run in a process of its own: DeepSpeed and torch's group are of one process for ever."""
    config, preprocessing, workers, rows, steps = job
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(workers)}
    torch.set_num_threads(1)
    met = (Path(folder) / "store").as_uri()
    dist.init_process_group("gloo", init_method=met, rank=rank, world_size=workers)
    asked = build(PretrainConfig, config), build(Preprocessing, preprocessing)
    connection.send(_steps(*asked, rows, steps))
    dist.destroy_process_group()


def _steps(config: PretrainConfig, preprocessing: Preprocessing, rows: int, steps: int) -> list[float]:
    """Seconds of every step that counts."""
    # Imported here: DeepSpeed takes seconds, and is of no use to the process that waits.
    from ecgdist.pretraining.engine import DeepSpeedEngine
    from ecgdist.pretraining.group import Group
    from ecgdist.pretraining.step import TrainingStep, micro_batches

    group, objective, device = Group(), config.objective, torch.device("cpu")
    torch.manual_seed(config.seed)
    module = PretrainingModule(config.encoder, objective, preprocessing.window_samples)
    teacher = module.teacher(config.engine.compute_dtype)
    total = rows * group.world_size
    order = Order([2 * total], seed=0, lanes=group.world_size, global_batch=total, shuffle_rows=total)
    parts = micro_batches(order, group.world_size, config.engine.micro_batch) * objective.student_passes
    engine = DeepSpeedEngine(module, config.engine, config.optimizer, 0.05, parts)
    step = TrainingStep(
        engine, teacher, objective, preprocessing, order, group, config.engine.micro_batch,
        1000, device, config.augment,
    )  # fmt: skip
    batch, seconds = _batch(preprocessing, order, group.rank, group.world_size), []
    for _ in range(_WARM_STEPS + steps):
        began = time.perf_counter()
        step(batch, 1e-4)
        seconds.append(time.perf_counter() - began)
    return seconds[_WARM_STEPS:]


def _batch(preprocessing: Preprocessing, order: Order, rank: int, workers: int) -> RankBatch:
    """A worker's rows of shipped ECGs, again and again where there are not enough, as if each of another patient."""
    positions = order.positions_of(rank, workers)
    source = open_source("ptbxl", str(sample_folder()))
    listings = source.list_records()
    segments = [
        preprocessing.pack_recording(source.read_record(listings[number % len(listings)]))[0]
        for number in positions
    ]
    return RankBatch(
        0,
        positions,
        np.stack([segment.signal_uv for segment in segments]),
        np.array([segment.valid_samples for segment in segments]),
        np.stack([segment.lead_mask for segment in segments]),
        positions,
        [f"ptbxl/{number}#0" for number in positions],
    )
