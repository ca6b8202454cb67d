"""What a worker of a pretraining run trains: a student, and a teacher that follows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ecgdist.config import build
from ecgdist.models.compiling import check_compiler, compile_all
from ecgdist.objectives.teacher import MomentumTeacher
from ecgdist.pretraining.checkpoint import Restored, load_teacher
from ecgdist.pretraining.collapse import Spread
from ecgdist.pretraining.config import PretrainConfig
from ecgdist.pretraining.engine import DeepSpeedEngine
from ecgdist.pretraining.flops import Meter, flops_per_ecg, peak_flops
from ecgdist.pretraining.plan import RunPlan
from ecgdist.pretraining.score import ScoreMean
from ecgdist.pretraining.step import TrainingStep, micro_batches
from ecgdist.pretraining.stopping import Stopped
from ecgdist.pretraining.votes import Votes
from ecgdist.pretraining.worker import Done, Worker, run_worker
from ecgdist.streaming.batches import RankBatch


class PretrainWorker(Worker):
    """One rank of a pretraining run."""

    plan: RunPlan
    engine: DeepSpeedEngine

    def lay_out(self, config: Mapping[str, Any]) -> RunPlan:
        """See `Worker`."""
        return RunPlan.of(build(PretrainConfig, config))

    def build(self, device: torch.device, universal: bool) -> None:
        """Build student and teacher."""
        plan, config = self.plan, self.plan.config
        module = plan.build_module().to(device)
        self._teacher = module.teacher(config.engine.compute_dtype)
        if config.engine.compile:
            if device.type == "cpu":
                check_compiler()
            compile_all(module, self._teacher)
        self.engine = DeepSpeedEngine(
            module,
            config.engine,
            config.optimizer,
            plan.weight_decay,
            micro_batches(plan.order, self.group.world_size, config.engine.micro_batch)
            * config.objective.student_passes,
            universal=universal,
        )
        self._train_step = TrainingStep(
            self.engine,
            self._teacher,
            config.objective,
            plan.preprocessing,
            plan.order,
            self.group,
            config.engine.micro_batch,
            plan.total_steps,
            device,
            config.augment,
        )
        self._meter = self._meter_of(device)
        self._score = ScoreMean(config.checkpoint.keep_best)
        self._has_collapsed = False

    @property
    def teacher(self) -> MomentumTeacher | None:
        """The momentum teacher, where the objective has one."""
        return self._teacher

    def load_more(self, restored: Restored) -> None:
        """Restore the teacher."""
        if self._teacher is not None:
            load_teacher(self._teacher, restored)

    def train_on(self, batch: RankBatch, learning_rate: float, votes: Votes, look: bool) -> Done:
        """See `Worker`."""
        result = self._train_step(batch, learning_rate, votes, look=look)
        self._score.add(result.loss, result.parts)
        row = {
            "loss": result.loss,
            **result.parts,
            **result.readings,
            "gradient_norm": result.gradient_norm,
            **({} if result.spread is None else result.spread._asdict()),
        }
        return Done(result.votes, row, self._collapse(result.spread))

    def take_score(self) -> float | None:
        """The mean of what `checkpoint.keep_best` names."""
        return self._score.take()

    def add_speed(self, row: dict[str, Any]) -> None:
        """Add the share of the device's peak."""
        if self._meter is not None:
            row["mfu"] = self._meter.share(row["seconds_per_step"])

    def _meter_of(self, device: torch.device) -> Meter | None:
        config = self.plan.config
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
        peak = peak_flops(name, config.engine.precision)
        if peak is None:
            return None
        window = self.plan.preprocessing.window_samples
        step = self.plan.order.global_batch * flops_per_ecg(config.encoder, config.objective, window)
        return Meter(step, self.group.world_size * peak)

    def _collapse(self, spread: Spread | None) -> str | None:
        """A warning, once, and again only if it was better in between."""
        if spread is None:
            return None
        was, self._has_collapsed = self._has_collapsed, spread.is_collapsed
        if was or not spread.is_collapsed:
            return None
        return (
            f"the embeddings of all records are nearly the same ({spread}): training has collapsed, or has not begun "
            "to tell records apart. If it stays so, begin anew in another --out, with a lower "
            "optimizer.learning_rate or another objective.contrastive.method"
        )


def train_worker(job: dict[str, Any]) -> Stopped | None:
    """The function that Ray Train runs in every worker of a pretraining run; see `run_worker`."""
    return run_worker(PretrainWorker, job)
