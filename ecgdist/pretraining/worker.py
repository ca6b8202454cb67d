"""What every Ray Train worker runs: the loop over steps, between a restored checkpoint and the last one."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch

from ecgdist.errors import ConfigError, DataError, TrainingError
from ecgdist.objectives.teacher import MomentumTeacher
from ecgdist.patience import patiently
from ecgdist.pretraining.checkpoint import CheckpointStore, Restored
from ecgdist.pretraining.config import CheckpointConfig
from ecgdist.pretraining.console import Mailbox
from ecgdist.pretraining.engine import ZeroEngine, to_universal
from ecgdist.pretraining.group import Group
from ecgdist.pretraining.logs import logging_as
from ecgdist.pretraining.metrics import MetricsLog
from ecgdist.pretraining.nonfinite import NotFiniteError, write_suspects
from ecgdist.pretraining.notices import Notices
from ecgdist.pretraining.plan import Plan
from ecgdist.pretraining.recorder import Recorder
from ecgdist.pretraining.stopping import Cause, Stopped, say_stopped
from ecgdist.pretraining.votes import Votes
from ecgdist.pretraining.watch import Watch
from ecgdist.pretraining.writer import CheckpointWriter
from ecgdist.scratch import scratch_folder
from ecgdist.storage import Location
from ecgdist.streaming.batches import RankBatch, rank_batches, read_ahead
from ecgdist.streaming.execution import pool_tables
from ecgdist.streaming.pool import PoolReader

_LOG = logging.getLogger(__name__)


def run_worker(kind: type[Worker], job: dict[str, Any]) -> Stopped | None:
    """What Ray Train runs in every worker.

    Args:
        kind: what is trained.
        job: ``config``, the configuration as plain values; ``mailbox``, the way to the driver's console;
            ``attempt`` and ``lease_token`` of the driver's lease.

    Returns:
        How far training came if it left before the end of the run, None otherwise.
    """
    group = Group()
    with logging_as(job["config"]["out"], group):
        return _run(kind, job, group, job["mailbox"])


def _run(kind: type[Worker], job: dict[str, Any], group: Group, mailbox: Mailbox) -> Stopped | None:
    if mailbox.is_given_up:
        return None
    try:
        with scratch_folder("resume") as scratch:
            worker = kind(job["config"], group, mailbox, scratch)
        config = worker.plan.config
        run = Location.of(config.out)
        with (
            Notices(run, group) as notices,
            worker.metrics_log() as log,
            CheckpointWriter(run, group, worker.checkpoints, job["attempt"], job["lease_token"]) as writer,
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
        _LOG.exception("training ends")
        mailbox.give_up(error)
        raise


@dataclass(frozen=True)
class Done:
    """What a step did, as a report has it.

    Attributes:
        votes: what is agreed to happen after the step.
        row: its values by name.
        warning: what must be said about it, if anything.
    """

    votes: Votes
    row: dict[str, Any]
    warning: str | None = None


class Worker(ABC):
    """One rank of a run; subclasses say what is trained, and how.

    Attributes:
        plan: of the run.
        group: all ranks.
        engine: holds the weights.
        step: steps done.
    """

    plan: Plan
    engine: ZeroEngine[Any]

    def __init__(self, config: Mapping[str, Any], group: Group, mailbox: Mailbox, scratch: Path) -> None:
        """Lay the run out, build what is trained, and restore the newest checkpoint; all ranks together.

        Storage that is away is waited for: a worker that is started again meanwhile has not failed.
        """
        self.group, self._mailbox = group, mailbox
        self._has_told = False
        self.plan = patiently(partial(self.lay_out, config), tell=self._tell_waiting)
        store = CheckpointStore(Location.of(self.plan.config.out))
        restored, warnings = store.restore(scratch, group, self._tell_waiting)
        for warning in warnings:
            self._say(f"WARNING: {warning}")
        if restored is not None:
            restored.state.refuse_other_run(self.plan.state(restored.state.step, group.world_size))
        resized = restored is not None and restored.state.world_size != group.world_size
        universal = resized and self.plan.config.engine.stage > 0
        if restored is not None and universal:
            to_universal(restored.engine_folder)
        self.step = 0
        self.build(ray.train.torch.get_device(), universal)
        if restored is not None:
            self._load(restored)

    @abstractmethod
    def lay_out(self, config: Mapping[str, Any]) -> Plan:
        """The plan of a configuration; may read storage."""

    @abstractmethod
    def build(self, device: torch.device, universal: bool) -> None:
        """Build what is trained, set `engine`, and get ready for `train_on`.

        Args:
            universal: as for `ZeroEngine`.
        """

    @abstractmethod
    def train_on(self, batch: RankBatch, learning_rate: float, votes: Votes, look: bool) -> Done:
        """Train on this rank's rows of a global batch.

        Args:
            votes: of this rank.
            look: whether the step will be reported.
        """

    @property
    def teacher(self) -> MomentumTeacher | None:
        """What is saved beside the engine's weights; None if nothing is."""
        return None

    @property
    def checkpoints(self) -> CheckpointConfig:
        """When training state is saved, and what is kept."""
        return self.plan.config.checkpoint

    @property
    def is_at_end(self) -> bool:
        """Whether nothing is left to do; the same on all ranks."""
        return self.step == self.plan.total_steps

    def after_step(self, log: MetricsLog | None) -> bool:
        """Done by all ranks after every step.

        Returns:
            whether to save; the same on all ranks.
        """
        return False

    def take_score(self) -> float | None:
        """What a checkpoint is judged by, since the one before; None if by nothing."""
        return None

    def metrics_log(self) -> AbstractContextManager[MetricsLog | None]:
        """The run's log, for rank 0; the others have none."""
        if self.group.rank > 0:
            return nullcontext()
        where = Location.of(self.plan.config.out)
        return patiently(partial(MetricsLog, where, self.step), tell=self._tell_waiting)

    def run(self, log: MetricsLog | None, writer: CheckpointWriter, notices: Notices) -> Stopped | None:
        """Train to the end, or until all ranks agree to stop, reporting and saving on the way."""
        config, plan = self.plan.config, self.plan
        pace, saved = _Pace(plan.order.global_batch), ""
        minutes, where = config.workers.hung_after_minutes, self.group.whereabouts
        with (
            Recorder(config.data.record_rows, self.group) as recorder,
            closing(self._batches()) as batches,
            Watch(self._mailbox, self.group, None if minutes is None else 60 * minutes),
        ):
            while not self.is_at_end:
                where.begin(self.step)
                with where.at("reading a batch"):
                    batch = pace.next(batches)
                if batch is None:
                    break
                learning_rate = plan.learning_rate_at(self.step)
                recorder.add(batch)
                votes = notices.votes(save=self.group.rank == 0 and writer.due_by_time)
                report = (self.step + 1) % config.log_every_steps == 0
                done = self.train_on(batch, learning_rate, votes, report)
                self.step += 1
                if log is not None and (report or done.votes.stop or self.step == plan.total_steps):
                    self._report(log, done, learning_rate, pace)
                wants_save = self.after_step(log)
                last = done.votes.stop or self.is_at_end
                self._tell_finished(writer, log)
                if last or wants_save or done.votes.save or self.checkpoints.due_at(self.step):
                    saved = self._save(writer, log)
                if last:
                    break
            with where.at("waiting for its checkpoint", is_patient=True):
                writer.wait()
            self._tell_finished(writer, log)
        return None if self.is_at_end else self._stopped(saved, notices)

    def load_more(self, restored: Restored) -> None:
        """Restore what the engine does not hold, of which most kinds of training have none."""
        return

    def _load(self, restored: Restored) -> None:
        self.engine.load(restored.engine_folder)
        self.load_more(restored)
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

    def _report(self, log: MetricsLog, done: Done, learning_rate: float, pace: _Pace) -> None:
        """Write the values of the step just done, and the speed since the last report."""
        row = {
            "step": self.step,
            "samples": self.step * self.plan.order.global_batch,
            "epoch": self.step / self.plan.order.steps_per_epoch,
            **done.row,
            "learning_rate": learning_rate,
            "workers": self.group.world_size,
            **pace.take(),
        }
        self.add_speed(row)
        log.add(row)
        log.flush_now_and_then()
        self._mailbox.post({"metrics": row})
        if done.warning is not None:
            self._say(f"WARNING: at step {self.step} {done.warning}")

    def add_speed(self, row: dict[str, Any]) -> None:
        """Add what the speed means to a row of metrics; nothing, where that is not known."""
        return

    def _stopped(self, checkpoint: str, notices: Notices) -> Stopped:
        notice = notices.of_all()
        stopped = Stopped(
            step=self.step, total_steps=self.plan.total_steps, checkpoint=checkpoint, **notice._asdict()
        )
        if self.group.rank == 0 and notice.cause is Cause.ASKED:
            where = Location.of(self.plan.config.out)
            patiently(partial(say_stopped, where, stopped), tell=self._tell_waiting)
        return stopped

    def _save(self, writer: CheckpointWriter, log: MetricsLog | None) -> str:
        """Begin a checkpoint, which is written while training goes on, with all rows so far; its name."""
        state = self.plan.state(self.step, self.group.world_size)
        before_commit = None if log is None else log.write
        with self.group.whereabouts.at("waiting for the checkpoint before", is_patient=True):
            writer.wait()
        with self.group.whereabouts.at("saving a checkpoint"):
            return writer.save(self.engine, self.teacher, state, self.take_score(), before_commit)

    def _tell_finished(self, writer: CheckpointWriter, log: MetricsLog | None) -> None:
        for name in writer.poll():
            if log is not None:
                log.gauges.checkpoint_saved()
            self._say(f"saved checkpoint {name}")
        for warning in writer.warnings():
            self._say(f"WARNING: {warning}")

    def _tell_waiting(self, error: BaseException | None) -> None:
        if not self._has_told:
            self._has_told = True
            self._say(f"WARNING: workers wait for storage: {error}")

    def _say(self, text: str) -> None:
        _LOG.info(text)
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
