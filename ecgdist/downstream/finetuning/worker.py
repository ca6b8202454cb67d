"""A worker of a fine-tuning run: trains on labels, looks at the validation split, ends when it gets no better."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ecgdist.config import build
from ecgdist.downstream.finetuning.config import FineTuneConfig
from ecgdist.downstream.finetuning.looks import Look, best_look, ends_early, looks_in
from ecgdist.downstream.finetuning.module import TaskModule, layered_groups
from ecgdist.downstream.finetuning.plan import FineTunePlan
from ecgdist.downstream.finetuning.predicting import predict_rows
from ecgdist.downstream.finetuning.rivals import is_out, samples_of
from ecgdist.downstream.finetuning.step import TuningStep
from ecgdist.errors import TrainingError
from ecgdist.models.compiling import check_compiler, compile_all
from ecgdist.patience import patiently
from ecgdist.pretraining.checkpoint import Restored
from ecgdist.pretraining.config import CheckpointConfig, KeepBest
from ecgdist.pretraining.engine import ZeroEngine
from ecgdist.pretraining.metrics import MetricsLog, read_metrics
from ecgdist.pretraining.step import micro_batches
from ecgdist.pretraining.stopping import Stopped
from ecgdist.pretraining.votes import Votes
from ecgdist.pretraining.worker import Done, Worker, run_worker
from ecgdist.storage import Location
from ecgdist.streaming.batches import RankBatch

_RIVALS_S = 1.0
"""Between looks at what other trials of a sweep have shown."""


def tune_worker(job: dict[str, Any]) -> Stopped | None:
    """The function that Ray Train runs in every worker of a fine-tuning run; see `run_worker`."""
    return run_worker(FineTuneWorker, job)


class FineTuneWorker(Worker):
    """One rank of a fine-tuning run."""

    plan: FineTunePlan
    engine: ZeroEngine[TaskModule]

    def lay_out(self, config: Mapping[str, Any]) -> FineTunePlan:
        """See `Worker`."""
        return FineTunePlan.of(build(FineTuneConfig, config))

    def build(self, device: torch.device, universal: bool) -> None:
        """Build encoder and readout."""
        plan, config = self.plan, self.plan.config
        module = plan.build_module().to(device)
        module.encoder_in_use.to(device)
        if config.engine.compile:
            if device.type == "cpu":
                check_compiler()
            compile_all(module.encoder_in_use, None)
        self.engine = ZeroEngine(
            module,
            layered_groups(module, config.optimizer.weight_decay, config.layer_decay),
            config.engine,
            config.optimizer,
            micro_batches(plan.order, self.group.world_size, config.engine.micro_batch),
            universal=universal,
        )
        self._train_step = TuningStep(
            self.engine,
            plan.preprocessing,
            plan.order,
            self.group,
            config.engine.micro_batch,
            device,
            config.augment,
        )
        self._device = device
        self._looks: list[Look] = []
        self._score: float | None = None
        self._is_out = False

    def load_more(self, restored: Restored) -> None:
        """Remember what the validation split said until then."""
        looks = None
        if self.group.rank == 0:
            rows = read_metrics(Location.of(self.plan.config.out))
            looks = looks_in(rows, self.plan.goal.metric, restored.state.step)
        self._looks = [Look(*look) for look in self.group.from_first(looks)]
        self._is_out = self._compared()

    @property
    def checkpoints(self) -> CheckpointConfig:
        """The best one by the validation split is kept, whatever else is."""
        best = KeepBest(metric="validation", mode=self.plan.goal.mode)
        return self.plan.config.checkpoint.model_copy(update={"keep_best": best})

    @property
    def is_at_end(self) -> bool:
        """Whether all steps are done, or it gets no better, or other trials of a sweep are better."""
        return (
            super().is_at_end
            or self._is_out
            or ends_early(self._looks, self.plan.goal.mode, self.plan.config.patience)
        )

    def train_on(self, batch: RankBatch, learning_rate: float, votes: Votes, look: bool) -> Done:
        """See `Worker`."""
        result = self._train_step(batch, self.plan.targets_of(batch.row_ids), learning_rate, votes)
        return Done(result.votes, {"loss": result.loss, "gradient_norm": result.gradient_norm})

    def after_step(self, log: MetricsLog | None) -> bool:
        """Look at the validation split now and then, and save what was looked at."""
        plan = self.plan
        if self.step % plan.steps_between_looks and self.step < plan.total_steps:
            return False
        figures = self._validate()
        value = figures[plan.goal.metric]
        if not math.isfinite(value):
            raise TrainingError(
                f"step {self.step}: {plan.goal.metric} is {value}: the model's outputs for the validation split are "
                "not finite. Begin anew in another --out with a lower optimizer.learning_rate"
            )
        self._looks.append(Look(self.step, value))
        self._score = value
        if log is not None:
            log.add({"step": self.step, "samples": self.step * plan.order.global_batch, **figures})
            if plan.config.halving is not None:
                log.flush()  # other trials wait for it
        best = best_look(self._looks, plan.goal.mode)
        self._say(
            f"step {self.step}: {', '.join(f'{n} {v:.4f}' for n, v in figures.items())} (best {best.value:.4f} at step "
            f"{best.step})"
        )
        self._is_out = self._compared()
        return True

    def take_score(self) -> float | None:
        """What the validation split said of these weights, if it was asked."""
        score, self._score = self._score, None
        return score

    def _compared(self) -> bool:
        """Whether the other trials of a sweep are so much better that this one ends; waits for those before it."""
        plan, place = self.plan, self.plan.config.halving
        if place is None:
            return False
        shown, goal = samples_of(self._looks, plan.order.global_batch), plan.goal
        while True:
            out = None
            if self.group.rank == 0:
                out = patiently(
                    partial(is_out, place, shown, goal.metric, goal.mode), tell=self._tell_waiting
                )
            # All ranks ask again together, so that none waits in one collective operation for minutes.
            out = self.group.from_first(out)
            if out is not None:
                break
            time.sleep(_RIVALS_S)
        if out:
            self._say(f"step {self.step}: ends here, since trials before it were better")
        return bool(out)

    def _validate(self) -> dict[str, float]:
        plan = self.plan

        def forward(signal: Tensor, valid_samples: Tensor, lead_mask: Tensor) -> Tensor:
            return plan.goal.predictions(self.engine.forward(signal, valid_samples, lead_mask)["outputs"])

        predictions = predict_rows(
            forward,
            plan.preprocessing,
            plan.corpus,
            plan.goal.validation_rows,
            plan.config.batch_rows,
            self._device,
            self.group,
        )
        return plan.goal.figures(predictions)
