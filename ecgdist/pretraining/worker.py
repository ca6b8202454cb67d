"""What every Ray Train worker runs: the loop over steps, between a restored checkpoint and the last one."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch

from ecgdist.config import build
from ecgdist.errors import ConfigError, DataError, TrainingError
from ecgdist.models.compiling import check_compiler, compile_all
from ecgdist.objectives.hybrid import PretrainingModule
from ecgdist.patience import patiently
from ecgdist.pretraining.checkpoint import CheckpointStore, Restored, load_teacher
from ecgdist.pretraining.collapse import Spread
from ecgdist.pretraining.config import PretrainConfig
from ecgdist.pretraining.console import Mailbox
from ecgdist.pretraining.engine import DeepSpeedEngine, to_universal
from ecgdist.pretraining.flops import Meter, flops_per_ecg, peak_flops
from ecgdist.pretraining.group import Group
from ecgdist.pretraining.metrics import MetricsLog
from ecgdist.pretraining.nonfinite import NotFiniteError, write_suspects
from ecgdist.pretraining.notices import Notices
from ecgdist.pretraining.plan import RunPlan
from ecgdist.pretraining.recorder import Recorder
from ecgdist.pretraining.schedule import learning_rate_at, peak_learning_rate
from ecgdist.pretraining.score import ScoreMean
from ecgdist.pretraining.step import StepResult, TrainingStep, micro_batches
from ecgdist.pretraining.stopping import Cause, Stopped, say_stopped
from ecgdist.pretraining.writer import CheckpointWriter
from ecgdist.scratch import scratch_folder
from ecgdist.storage import Location
from ecgdist.streaming.batches import RankBatch, rank_batches, read_ahead
from ecgdist.streaming.execution import pool_tables
from ecgdist.streaming.pool import PoolReader


def train_worker(job: dict[str, Any]) -> Stopped | None:
    """The function that Ray Train runs in every worker.

    Args:
        job: ``config``, the configuration as plain values; ``mailbox``, the way to the driver's console;
            ``attempt`` and ``lease_token`` of the driver's lease.

    Returns:
        How far training came if it left before the end of the run, None otherwise.
    """
    group = Group()
    mailbox: Mailbox = job["mailbox"]
    if mailbox.is_given_up:
        return None
    try:
        with scratch_folder("resume") as scratch:
            worker = Worker(build(PretrainConfig, job["config"]), group, mailbox, scratch)
        config = worker.plan.config
        run = Location.of(config.out)
        with (
            Notices(run, group) as notices,
            worker.metrics_log() as log,
            CheckpointWriter(run, group, config.checkpoint, job["attempt"], job["lease_token"]) as writer,
        ):
            return worker.run(log, writer, notices)
    except NotFiniteError as error:
        # All ranks are here.
        if group.rank == 0:
            mailbox.give_up(write_suspects(Location.of(job["config"]["out"]), error))
        return None
    except (ConfigError, DataError, TrainingError) as error:
        # Another try would meet it again. Perhaps other ranks did not meet it, and wait for this one: raised, it has
        # Ray Train end all of them, and those that it starts in their place find that they have nothing to do.
        mailbox.give_up(error)
        raise


class Worker:
    """One rank of a run."""

    def __init__(self, config: PretrainConfig, group: Group, mailbox: Mailbox, scratch: Path) -> None:
        """Build student, teacher and engine, and restore the newest checkpoint; all ranks together.

        Storage that is away is waited for: a worker that is started again meanwhile has not failed.
        """
        self.group, self._mailbox = group, mailbox
        self._has_told = self._has_collapsed = False
        self.plan = patiently(partial(RunPlan.of, config), tell=self._tell_waiting)
        store = CheckpointStore(Location.of(config.out))
        restored, warnings = store.restore(scratch, group, self._tell_waiting)
        for warning in warnings:
            self._say(f"WARNING: {warning}")
        self._expected(restored)
        device = ray.train.torch.get_device()
        module = self.plan.build_module().to(device)
        self.teacher = module.teacher(config.engine.compute_dtype)
        if config.engine.compile:
            if device.type == "cpu":
                check_compiler()
            compile_all(module, self.teacher)
        self.engine = self._build_engine(module, restored)
        self.step = 0
        if restored is not None:
            self._load(restored)
        self._meter = self._meter_of(device)
        self._train_step = TrainingStep(
            self.engine,
            self.teacher,
            config.objective,
            self.plan.preprocessing,
            self.plan.order,
            group,
            config.engine.micro_batch,
            self.plan.total_steps,
            device,
            config.augment,
        )

    def metrics_log(self) -> AbstractContextManager[MetricsLog | None]:
        """The run's log, for rank 0; the others have none."""
        if self.group.rank > 0:
            return nullcontext()
        where = Location.of(self.plan.config.out)
        return patiently(partial(MetricsLog, where, self.step), tell=self._tell_waiting)

    def run(self, log: MetricsLog | None, writer: CheckpointWriter, notices: Notices) -> Stopped | None:
        """Train to the last step, or until all ranks agree to stop, reporting and saving on the way."""
        config, plan = self.plan.config, self.plan
        peak = peak_learning_rate(config.optimizer, config.encoder, plan.order.global_batch)
        warmup = config.optimizer.warmup_share
        warmup = config.encoder.shape.warmup_share if warmup is None else warmup
        pace = _Pace(plan.order.global_batch)
        score = ScoreMean(config.checkpoint.keep_best)
        with Recorder(config.data.record_rows, self.group) as recorder, closing(self._batches()) as batches:
            while (batch := pace.next(batches)) is not None:
                learning_rate = learning_rate_at(self.step, plan.total_steps, peak, warmup)
                recorder.add(batch)
                votes = notices.votes(save=self.group.rank == 0 and writer.due_by_time)
                report = (self.step + 1) % config.log_every_steps == 0
                result = self._train_step(batch, learning_rate, votes, look=report)
                self.step += 1
                score.add(result.loss, result.parts)
                last = result.votes.stop or self.step == plan.total_steps
                if log is not None and (last or report):
                    self._report(log, result, learning_rate, pace)
                self._tell_finished(writer)
                if last or result.votes.save or config.checkpoint.due_at(self.step):
                    saved = self._save(writer, log, score.take())
                if last:
                    break
            writer.wait()
            self._tell_finished(writer)
        return None if self.step == plan.total_steps else self._stopped(saved, notices)

    def _build_engine(self, module: PretrainingModule, restored: Restored | None) -> DeepSpeedEngine:
        config = self.plan.config
        weight_decay = config.optimizer.weight_decay
        resized = restored is not None and restored.state.world_size != self.group.world_size
        universal = resized and config.engine.stage > 0
        if restored is not None and universal:
            to_universal(restored.engine_folder)
        return DeepSpeedEngine(
            module,
            config.engine,
            config.optimizer,
            config.encoder.shape.weight_decay if weight_decay is None else weight_decay,
            micro_batches(self.plan.order, self.group.world_size, config.engine.micro_batch)
            * config.objective.student_passes,
            universal=universal,
        )

    def _meter_of(self, device: torch.device) -> Meter | None:
        config = self.plan.config
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
        peak = peak_flops(name, config.engine.precision)
        if peak is None:
            return None
        window = self.plan.preprocessing.window_samples
        step = self.plan.order.global_batch * flops_per_ecg(config.encoder, config.objective, window)
        return Meter(step, self.group.world_size * peak)

    def _expected(self, restored: Restored | None) -> None:
        if restored is not None:
            restored.state.refuse_other_run(self.plan.state(restored.state.step, self.group.world_size))

    def _load(self, restored: Restored) -> None:
        self.engine.load(restored.engine_folder)
        if self.teacher is not None:
            load_teacher(self.teacher, restored)
        self.step = restored.state.step
        before, now = restored.state.world_size, self.group.world_size
        resized = f", with {now} workers instead of {before}" if now != before else ""
        self._say(f"resumed from checkpoint {restored.name} at step {self.step}{resized}")

    def _batches(self) -> Generator[RankBatch, None, None]:
        plan = self.plan
        reader = PoolReader(plan.corpus.location, plan.corpus.corpus_id, plan.order, plan.selection)
        limits = plan.config.data.stream
        return read_ahead(
            rank_batches(
                plan.order,
                self.group.rank,
                self.group.world_size,
                self.step,
                plan.total_steps,
                plan.corpus.num_samples,
                lambda items: pool_tables(items, reader.read, limits),
            )
        )

    def _report(self, log: MetricsLog, result: StepResult, learning_rate: float, pace: _Pace) -> None:
        """Write the values of the step just done, and the speed since the last report."""
        row = {
            "step": self.step,
            "samples": self.step * self.plan.order.global_batch,
            "epoch": self.step / self.plan.order.steps_per_epoch,
            "loss": result.loss,
            **result.parts,
            **result.readings,
            "gradient_norm": result.gradient_norm,
            **({} if result.spread is None else result.spread._asdict()),
            "learning_rate": learning_rate,
            "workers": self.group.world_size,
            **pace.take(),
        }
        if self._meter is not None:
            row["mfu"] = self._meter.share(row["seconds_per_step"])
        log.add(row)
        log.flush_now_and_then()
        self._mailbox.post({"metrics": row})
        self._warn_of_collapse(result.spread)

    def _warn_of_collapse(self, spread: Spread | None) -> None:
        """Say it once, and again only if it was better in between."""
        if spread is None:
            return
        if spread.is_collapsed and not self._has_collapsed:
            self._say(
                f"WARNING: at step {self.step} the embeddings of all records are nearly the same ({spread}): training "
                "has collapsed, or has not begun to tell records apart. If it stays so, begin anew in another --out, "
                "with a lower optimizer.learning_rate or another objective.contrastive.method"
            )
        self._has_collapsed = spread.is_collapsed

    def _stopped(self, checkpoint: str, notices: Notices) -> Stopped:
        notice = notices.of_all()
        stopped = Stopped(
            step=self.step, total_steps=self.plan.total_steps, checkpoint=checkpoint, **notice._asdict()
        )
        if self.group.rank == 0 and notice.cause is Cause.ASKED:
            where = Location.of(self.plan.config.out)
            patiently(partial(say_stopped, where, stopped), tell=self._tell_waiting)
        return stopped

    def _save(self, writer: CheckpointWriter, log: MetricsLog | None, metric: float | None) -> str:
        """Begin a checkpoint, which is written while training goes on, with all rows so far; its name."""
        state = self.plan.state(self.step, self.group.world_size)
        return writer.save(self.engine, self.teacher, state, metric, None if log is None else log.write)

    def _tell_finished(self, writer: CheckpointWriter) -> None:
        for name in writer.poll():
            self._say(f"saved checkpoint {name}")
        for warning in writer.warnings():
            self._say(f"WARNING: {warning}")

    def _tell_waiting(self, error: BaseException | None) -> None:
        if not self._has_told:
            self._has_told = True
            self._say(f"WARNING: workers wait for storage: {error}")

    def _say(self, text: str) -> None:
        if self.group.rank == 0:
            self._mailbox.post({"text": text})


class _Pace:
    """Speed since the last report, and the share of time that the loop waited for data."""

    def __init__(self, rows_per_step: int) -> None:
        self._rows = rows_per_step
        self._began = time.perf_counter()
        self._steps = 0
        self._waited = 0.0

    def next(self, batches: Iterator[RankBatch]) -> RankBatch | None:
        """The next batch, or None at the end; the time it takes is waiting."""
        asked = time.perf_counter()
        batch = next(batches, None)
        self._waited += time.perf_counter() - asked
        self._steps += batch is not None
        return batch

    def take(self) -> dict[str, float]:
        """The figures since the last call."""
        now = time.perf_counter()
        seconds = now - self._began
        values = {
            "ecg_per_s": self._rows * self._steps / seconds,
            "waiting_share": self._waited / seconds,
            "seconds_per_step": seconds / self._steps,
        }
        self._began, self._steps, self._waited = now, 0, 0.0
        return values
