"""What follows from a configuration and its corpus."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from ecgdist.config import build
from ecgdist.corpus import Corpus
from ecgdist.errors import ConfigError
from ecgdist.objectives.hybrid import PretrainingModule
from ecgdist.preprocessing import Preprocessing
from ecgdist.pretraining.checkpoint import TrainState
from ecgdist.pretraining.config import PretrainConfig, TrainConfig
from ecgdist.pretraining.schedule import learning_rate_at, peak_learning_rate
from ecgdist.pretraining.zero import count_parameters, default_stage
from ecgdist.streaming.order import Order
from ecgdist.streaming.selection import Selection, select_rows

AnyConfig = TypeVar("AnyConfig", bound=TrainConfig)


@dataclass(frozen=True)
class Plan(ABC):
    """A run laid out, whatever it trains; every worker and the driver derive the same."""

    config: TrainConfig
    corpus: Corpus
    selection: Selection
    order: Order
    total_steps: int
    preprocessing: Preprocessing

    @abstractmethod
    def learning_rate_at(self, step: int) -> float:
        """The learning rate of a step."""

    def state(self, step: int, world_size: int) -> TrainState:
        """The training state after `step` steps."""
        return TrainState(
            step=step,
            total_steps=self.total_steps,
            world_size=world_size,
            corpus_id=self.corpus.corpus_id,
            settings=self.config.fixed_part() | {"global_batch": self.order.global_batch},
        )


@dataclass(frozen=True)
class RunPlan(Plan):
    """A pretraining run laid out."""

    config: PretrainConfig
    selected: npt.NDArray[np.bool_]
    """Over the rows of the corpus's index."""

    @classmethod
    def of(cls, config: PretrainConfig) -> RunPlan:
        """Open the corpus and lay out the run.

        Raises:
            ConfigError: if numbers do not fit the corpus.
            DataError, StorageError: if the corpus cannot be read.
        """
        corpus = Corpus(config.corpus)
        selection, selected = select_rows(corpus, config.data.exclude_splits, config.data.exclude_linked)
        data = config.data
        order = Order(
            selection.group_rows,
            seed=config.seed,
            lanes=data.lanes,
            global_batch=data.resolved_global_batch(int(selection.group_rows.sum())),
            shuffle_rows=data.shuffle_rows,
        )
        preprocessing = build(Preprocessing, {"pack": corpus.manifest.pack, "device": config.device})
        config.augment.check(preprocessing.pack.rate_hz)
        _check_adjacent(config, preprocessing)
        if config.engine.zero_stage is None:
            parameters = count_parameters(config.encoder, config.objective, preprocessing.window_samples)
            is_bf16 = config.engine.precision == "bf16"
            config = with_stage(config, default_stage(parameters, config.workers.least, is_bf16))
        return cls(
            config,
            corpus,
            selection,
            order,
            config.total_steps(order.steps_per_epoch),
            preprocessing,
            selected,
        )

    def learning_rate_at(self, step: int) -> float:
        """See `Plan`."""
        config = self.config
        peak = peak_learning_rate(config.optimizer, config.encoder, self.order.global_batch)
        warmup = config.optimizer.warmup_share
        warmup = config.encoder.shape.warmup_share if warmup is None else warmup
        return learning_rate_at(step, self.total_steps, peak, warmup)

    @property
    def weight_decay(self) -> float:
        """Of matrices."""
        chosen = self.config.optimizer.weight_decay
        return self.config.encoder.shape.weight_decay if chosen is None else chosen

    def build_module(self) -> PretrainingModule:
        """The student with its initial weights."""
        torch.manual_seed(self.config.seed)
        config = self.config
        return PretrainingModule(config.encoder, config.objective, self.preprocessing.window_samples)


def _check_adjacent(config: PretrainConfig, preprocessing: Preprocessing) -> None:
    contrastive, duration_s = config.objective.contrastive, preprocessing.pack.duration_s
    if not (contrastive.weight > 0 and contrastive.kind.adjacent):
        return
    if 2 * preprocessing.window_samples > preprocessing.num_samples:
        raise ConfigError(
            f"objective.contrastive.method = {contrastive.method} takes two windows of device.window_s = "
            f"{config.device.window_s:g} out of segments of {duration_s:g} s, one after the other; use at most "
            f"{duration_s / 2:g}"
        )


def with_stage(config: AnyConfig, zero_stage: int) -> AnyConfig:
    """The configuration with a ZeRO stage in place."""
    return config.model_copy(update={"engine": config.engine.model_copy(update={"zero_stage": zero_stage})})
