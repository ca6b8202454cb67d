"""What follows from a fine-tuning configuration, its corpus and its model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from ecgdist.config import build
from ecgdist.corpus import Corpus
from ecgdist.downstream.evaluate import Setup, check_signals
from ecgdist.downstream.finetuning.config import MOST_BATCH, FineTuneConfig
from ecgdist.downstream.finetuning.goals import Goal, goal_of
from ecgdist.downstream.finetuning.module import TaskModule
from ecgdist.modelfolder import Model, load
from ecgdist.models.config import EncoderConfig
from ecgdist.models.encoders import build_encoder
from ecgdist.models.readout import READOUTS
from ecgdist.preprocessing import DeviceStep, Preprocessing
from ecgdist.pretraining.checkpoint import TrainState
from ecgdist.pretraining.plan import Plan, with_stage
from ecgdist.pretraining.schedule import learning_rate_at
from ecgdist.pretraining.zero import default_stage
from ecgdist.streaming.order import Order
from ecgdist.streaming.pool import row_ids
from ecgdist.streaming.selection import selection_of


@dataclass(frozen=True)
class FineTunePlan(Plan):
    """A fine-tuning run laid out."""

    config: FineTuneConfig
    setup: Setup
    goal: Goal
    encoder: EncoderConfig
    model: Model | None
    """The one that is trained further, or kept frozen; None from scratch."""

    @classmethod
    def of(cls, config: FineTuneConfig) -> FineTunePlan:
        """Open corpus and model, and lay out the run.

        Raises:
            ConfigError: if numbers do not fit the corpus, or the task is unknown.
            DataError: if model, task and corpus cannot be used together.
            StorageError: if something cannot be read.
        """
        corpus = Corpus(config.corpus)
        setup = Setup.of(config, corpus)
        goal = goal_of(setup, config.imbalance)
        given = None if config.model is None else load(config.model)
        if given is not None:
            check_signals(given, corpus)
            encoder, preprocessing = given.config.encoder, given.preprocessing
        else:
            assert config.encoder is not None, "a run has a model or an encoder"
            encoder = config.encoder
            device = config.device or DeviceStep()
            preprocessing = build(Preprocessing, {"pack": corpus.manifest.pack, "device": device})
        for augmentation in config.augment:
            augmentation.check(preprocessing.pack.rate_hz)
        selection = selection_of(corpus, setup.splits.rows("train"))
        order = Order(
            selection.group_rows,
            seed=config.seed,
            lanes=config.data.lanes,
            global_batch=config.data.resolved_global_batch(int(selection.group_rows.sum()), MOST_BATCH),
            shuffle_rows=config.data.shuffle_rows,
        )
        plan = cls(
            config,
            corpus,
            selection,
            order,
            config.total_steps(order.steps_per_epoch),
            preprocessing,
            setup,
            goal,
            encoder,
            given if config.mode != "scratch" else None,
        )
        return plan if config.engine.zero_stage is not None else plan._with_usual_stage()

    def _with_usual_stage(self) -> FineTunePlan:
        with torch.device("meta"):
            module = self._module(frozen=False)
        parameters = sum(weight.numel() for weight in module.parameters())
        engine, workers = self.config.engine, self.config.workers
        stage = default_stage(parameters, workers.least, engine.precision == "bf16")
        return replace(self, config=with_stage(self.config, stage))

    def learning_rate_at(self, step: int) -> float:
        """The readout's learning rate; see `layered_groups` for the others."""
        chosen = self.config.optimizer
        return learning_rate_at(step, self.total_steps, chosen.learning_rate, chosen.warmup_share)

    def state(self, step: int, world_size: int) -> TrainState:
        """The training state after `step` steps."""
        state = super().state(step, world_size)
        of_what = {
            "model_hash": None if self.model is None else self.model.model_hash,
            "task_digest": self.setup.task_digest,
            "split_digest": self.setup.splits.digest,
        }
        return state.model_copy(update={"settings": state.settings | of_what})

    @property
    def steps_between_looks(self) -> int:
        """Steps from one look at the validation split to the next."""
        return max(1, round(self.config.evaluate_epochs * self.order.steps_per_epoch))

    def build_module(self) -> TaskModule:
        """What is trained, with its initial weights."""
        torch.manual_seed(self.config.seed)
        module = self._module(self.config.mode == "attention")
        with torch.no_grad():
            module.readout.linear.bias.copy_(torch.from_numpy(self.goal.start))
        if self.model is not None:
            encoder = module.encoder_in_use
            encoder.load_state_dict(self.model.encoder.state_dict())
        return module

    def _module(self, frozen: bool) -> TaskModule:
        encoder = build_encoder(self.encoder)
        readout = READOUTS[self.config.readout_kind](encoder.dim, len(self.goal.outputs))
        return TaskModule(encoder, readout, self.goal, self.config.readout.dropout, frozen)

    def targets_of(self, names: Sequence[str]) -> npt.NDArray[np.float32]:
        """``(len(names), outputs)``, what rows of the training split should give, by their row ids."""
        return self.goal.targets[[self._index_rows[name] for name in names]]

    @cached_property
    def _index_rows(self) -> dict[str, int]:
        rows = np.flatnonzero(self.setup.splits.rows("train"))
        names = row_ids(self.corpus.columns("source", "record_id", "segment").take(rows))
        return dict(zip(names.to_pylist(), rows.tolist(), strict=True))
