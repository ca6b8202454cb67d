"""A small fine-tuning: made-up ECGs and targets, a tiny encoder, ten rows a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from ecgdist.downstream.finetuning.config import TunerConfig
from ecgdist.downstream.finetuning.goals import Goal
from ecgdist.downstream.finetuning.module import TaskModule, layered_groups
from ecgdist.downstream.finetuning.step import TunedStep, TuningStep
from ecgdist.models.config import EncoderConfig
from ecgdist.models.encoders import build_encoder
from ecgdist.models.readout import READOUTS
from ecgdist.pretraining.config import EngineConfig
from ecgdist.pretraining.engine import ZeroEngine
from ecgdist.pretraining.group import Group
from ecgdist.pretraining.step import NO_VOTES, micro_batches
from ecgdist.streaming.batches import RankBatch
from tests.pretraining.runs import ENCODER, ORDER, PREPROCESSING, rank_batch

OUTPUTS = 3
WEIGHT_DECAY = 1e-3


class MadeGoal(Goal):
    """Three made-up labels."""

    outputs, left_out = ("A", "B", "C"), {}

    def __init__(self) -> None:
        """It has no validation split."""

    @property
    def start(self) -> npt.NDArray[np.float64]:
        return np.zeros(3)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(outputs, targets, reduction="none").mean(dim=1)

    def predictions(self, outputs: Tensor) -> Tensor:
        return torch.sigmoid(outputs)

    def figures(self, predictions: npt.NDArray[np.float64]) -> dict[str, float]:
        raise NotImplementedError("steps alone are tried here, and there is no validation split")


def targets_of(batch: RankBatch) -> npt.NDArray[np.float32]:
    """Labels that depend on the row alone."""
    numbers = [int(name.partition("-")[2].partition("-")[2].partition("#")[0]) for name in batch.row_ids]
    return np.array([[n % 2, n % 3 == 0, n < 4] for n in numbers], np.float32)


@dataclass(frozen=True)
class Setting:
    """How a small fine-tuning is run."""

    kind: str = "linear"
    zero_stage: int = 0
    micro_batch: int = 10
    dropout: float = 0.0
    frozen: bool = False
    layer_decay: float = 1.0
    learning_rate: float = 1e-3
    encoder: EncoderConfig = ENCODER


def module_of(setting: Setting) -> TaskModule:
    torch.manual_seed(0)
    encoder = build_encoder(setting.encoder)
    readout = READOUTS[setting.kind](encoder.dim, OUTPUTS)
    return TaskModule(encoder, readout, MadeGoal(), setting.dropout, setting.frozen)


class SmallTuning:
    """One rank of a small fine-tuning, by DeepSpeed."""

    def __init__(self, setting: Setting) -> None:
        self.group, self.setting = Group(), setting
        module = module_of(setting)
        self.engine: ZeroEngine[Any] = ZeroEngine(
            module,
            layered_groups(module, WEIGHT_DECAY, setting.layer_decay),
            EngineConfig(zero_stage=setting.zero_stage, micro_batch=setting.micro_batch),
            TunerConfig(),
            micro_batches(ORDER, self.group.world_size, setting.micro_batch),
        )
        self._step = TuningStep(
            self.engine, PREPROCESSING, ORDER, self.group, setting.micro_batch, torch.device("cpu")
        )

    def step(self, number: int) -> TunedStep:
        batch = rank_batch(number, self.group)
        return self._step(batch, targets_of(batch), self.setting.learning_rate, NO_VOTES)

    def weights(self) -> dict[str, npt.NDArray[np.float32]]:
        return {name: weight.numpy() for name, weight in self.engine.full_weights().items()}


def tune(setting: Setting, steps: int) -> tuple[list[TunedStep], dict[str, npt.NDArray[np.float32]]]:
    """Results and weights of a few steps."""
    run = SmallTuning(setting)
    return [run.step(number) for number in range(steps)], run.weights()
