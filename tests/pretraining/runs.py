"""A run small enough for a test: made-up ECGs, a tiny encoder, five lanes, ten rows a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from ecgdist.models.compiling import compile_all
from ecgdist.models.config import EncoderConfig
from ecgdist.objectives.config import ObjectiveConfig
from ecgdist.objectives.contrast import ContrastiveConfig
from ecgdist.objectives.generative import GenerativeConfig
from ecgdist.objectives.hybrid import PretrainingModule
from ecgdist.objectives.teacher import MomentumTeacher
from ecgdist.preprocessing import DeviceStep, PackStep, Preprocessing
from ecgdist.pretraining.config import EngineConfig, OptimizerConfig
from ecgdist.pretraining.engine import DeepSpeedEngine, parameter_groups
from ecgdist.pretraining.group import Group
from ecgdist.pretraining.nonfinite import GradientWatch
from ecgdist.pretraining.step import NO_AUGMENTATIONS, NO_VOTES, StepResult, TrainingStep, micro_batches
from ecgdist.pretraining.votes import Votes
from ecgdist.signals.augment import AugmentConfig
from ecgdist.streaming.batches import RankBatch
from ecgdist.streaming.order import Order

LANES, GLOBAL_BATCH, TOTAL_STEPS = 5, 10, 50
WEIGHT_DECAY = 0.05
ENCODER = EncoderConfig(size="tiny", patch_samples=25)
PREPROCESSING = Preprocessing(
    pack=PackStep(rate_hz=100, duration_s=3, min_duration_s=1), device=DeviceStep(window_s=2, lowpass_hz=40)
)


def _hybrid(**contrastive: object) -> ObjectiveConfig:
    return ObjectiveConfig(contrastive=ContrastiveConfig.model_validate(contrastive))


def _contrastive(**contrastive: object) -> ObjectiveConfig:
    return _hybrid(**contrastive).model_copy(update={"generative": GenerativeConfig(weight=0)})


def _predictive(**contrastive: object) -> ObjectiveConfig:
    """wav2vec 2.0 with spans that fit into a window."""
    predicting = GenerativeConfig(method="wav2vec", mask_span=2)
    return _hybrid(**contrastive).model_copy(update={"generative": predicting})


ARMS = {
    "HL": ObjectiveConfig(),
    "GL": ObjectiveConfig(contrastive=ContrastiveConfig(weight=0)),
    "CL": ObjectiveConfig(generative=GenerativeConfig(weight=0)),
}
METHODS = {
    "MoCo v3": _contrastive(method="moco", two_views=True, freeze_stem=True),
    "CMAE": _hybrid(method="moco", feature_decoder_layers=2, temperature=0.07),
    "BYOL": _contrastive(method="byol"),
    "BYOL, two views, hybrid": _hybrid(method="byol", two_views=True),
    "SimCLR": _contrastive(method="simclr"),
    "SimCLR, hybrid": _hybrid(method="simclr", ramp_share=0.1),
    "CMSC": _contrastive(method="cmsc"),
    "CMSC, hybrid": _hybrid(method="cmsc", same_patient="ignored"),
    "wav2vec": _predictive(weight=0),
    "wav2vec, MoCo v3": _predictive(method="moco"),
    "WCR": _predictive(method="cmsc"),
}
"""Arms of other methods, and of more views, than the default's."""
OBJECTIVES = ARMS | METHODS
ORDER = Order([16, 16, 8], seed=7, lanes=LANES, global_batch=GLOBAL_BATCH, shuffle_rows=20)

Arrays = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Setting:
    """How a small run is run."""

    arm: str = "HL"
    zero_stage: int = 0
    precision: str = "fp32"
    micro_batch: int = 10
    clip_norm: float = 1.0
    learning_rate: float = 1e-3
    augment: AugmentConfig = NO_AUGMENTATIONS
    encoder: EncoderConfig = ENCODER
    compile: bool = False
    device: str = "cpu"

    @property
    def objective(self) -> ObjectiveConfig:
        """Of the arm."""
        return OBJECTIVES[self.arm]

    @property
    def preprocessing(self) -> Preprocessing:
        """With windows of which two fit into a segment, where the arm takes two."""
        if not self.objective.contrastive.kind.adjacent:
            return PREPROCESSING
        return PREPROCESSING.model_copy(update={"device": DeviceStep(window_s=1, lowpass_hz=40)})


class PlainEngine:
    """The obvious engine, to compare DeepSpeed's with; it keeps the gradients of the last step.

    Attributes:
        gradients: before clipping, by name.
    """

    def __init__(self, module: PretrainingModule, clip_norm: float) -> None:
        self.module = module
        self._clip_norm = clip_norm
        self._optimizer = torch.optim.AdamW(parameter_groups(module, WEIGHT_DECAY), lr=0.0, betas=(0.9, 0.95))
        self.gradients: Arrays = {}
        self._watch = GradientWatch(module)

    def forward(self, *inputs: Tensor, **named: Tensor | int | None) -> dict[str, Tensor]:
        return self.module(*inputs, **named)

    def backward(self, loss: Tensor, last: bool) -> None:
        loss.backward()

    def take_not_finite(self) -> Tensor:
        return self._watch.take()

    def update(self, learning_rate: float) -> float:
        for weight in self.module.parameters():
            assert weight.grad is not None
            if dist.is_initialized():
                dist.all_reduce(weight.grad)
                weight.grad /= dist.get_world_size()
        self.gradients = {n: p.grad.cpu().numpy().copy() for n, p in self.module.named_parameters()}
        norm = torch.nn.utils.clip_grad_norm_(self.module.parameters(), self._clip_norm)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        self._optimizer.zero_grad()
        return float(norm)

    def update_teacher(self, teacher: MomentumTeacher, momentum: float) -> None:
        teacher.update(self.module.student_parameters(), momentum)

    def full_weights(self) -> dict[str, Tensor]:
        return {name: weight.detach().clone() for name, weight in self.module.named_parameters()}


class SmallRun:
    """One rank of a small run."""

    def __init__(self, setting: Setting, plain: bool = False, universal: bool = False) -> None:
        self.group = Group()
        self.setting = setting
        torch.manual_seed(0)
        preprocessing = setting.preprocessing
        module = PretrainingModule(setting.encoder, setting.objective, preprocessing.window_samples)
        module = module.to(setting.device)
        self.teacher = module.teacher(self._engine_config.compute_dtype)
        if setting.compile:
            compile_all(module, self.teacher)
        self.engine: Any = (
            PlainEngine(module, setting.clip_norm) if plain else self._deepspeed(module, universal)
        )
        self._step = TrainingStep(
            self.engine,
            self.teacher,
            setting.objective,
            preprocessing,
            ORDER,
            self.group,
            setting.micro_batch,
            TOTAL_STEPS,
            torch.device(setting.device),
            setting.augment,
        )

    def steps(self, start: int, end: int) -> list[StepResult]:
        """Train steps ``start ... end - 1``."""
        return [self.step(rank_batch(step, self.group)) for step in range(start, end)]

    def step(self, batch: RankBatch, votes: Votes = NO_VOTES) -> StepResult:
        """Train on one batch."""
        return self._step(batch, self.setting.learning_rate, votes)

    def weights(self) -> Arrays:
        """The student's, whole."""
        return {name: weight.numpy() for name, weight in self.engine.full_weights().items()}

    def teacher_weights(self) -> Arrays:
        """The teacher's; none in an arm without one."""
        named = {} if self.teacher is None else self.teacher.state_dict()
        return {name: weight.cpu().numpy().copy() for name, weight in named.items()}

    @property
    def _engine_config(self) -> EngineConfig:
        setting = self.setting
        return EngineConfig(
            zero_stage=setting.zero_stage, precision=setting.precision, micro_batch=setting.micro_batch
        )

    def _deepspeed(self, module: PretrainingModule, universal: bool) -> DeepSpeedEngine:
        setting = self.setting
        return DeepSpeedEngine(
            module,
            self._engine_config,
            OptimizerConfig(clip_norm=setting.clip_norm),
            WEIGHT_DECAY,
            micro_batches(ORDER, self.group.world_size, setting.micro_batch)
            * setting.objective.student_passes,
            universal=universal,
        )


def slow(*settings: Any) -> list[Any]:
    """Settings that are left to the slow tests: they differ little from those that are not."""
    return [
        pytest.param(
            *(each if isinstance(each, tuple) else (each,)), marks=(pytest.mark.slow, pytest.mark.extra)
        )
        for each in settings
    ]


STAGES = [0, *slow(1, 2), 3]
"""Of ZeRO, for tests of each of them."""


def rank_batch(step: int, group: Group) -> RankBatch:
    """A rank's rows of `global_batch`."""
    whole = global_batch(step)
    mine = ORDER.positions_of(group.rank, group.world_size)
    return RankBatch(
        step,
        mine,
        whole.signal_uv[mine],
        whole.valid_samples[mine],
        whole.lead_mask[mine],
        whole.patient[mine],
        [whole.row_ids[i] for i in mine],
    )


def global_batch(step: int) -> RankBatch:
    """Ten made-up ECGs: two are short, one has three leads, and three patients have two each."""
    random = np.random.default_rng(step)
    time_s = np.arange(PREPROCESSING.num_samples) / PREPROCESSING.pack.rate_hz
    rate_hz, phase = random.uniform(1, 9, (2, GLOBAL_BATCH, 12, 1))
    noise_uv = random.normal(0, 100, (GLOBAL_BATCH, 12, len(time_s)))
    signal_uv = (800 * np.sin(2 * np.pi * rate_hz * time_s + phase) + noise_uv).astype(np.int16)
    valid_samples = np.full(GLOBAL_BATCH, len(time_s), np.int64)
    valid_samples[[1, 8]] = 110, 150
    lead_mask = np.ones((GLOBAL_BATCH, 12), np.bool_)
    lead_mask[2, 3:] = False
    signal_uv[np.arange(len(time_s)) >= valid_samples[:, None, None].repeat(12, 1)] = 0
    signal_uv[~lead_mask] = 0
    patient = np.array([0, 1, 2, 0, 4, 5, 5, 7, 1, 9], np.int64)
    row_ids = [f"made-up/{step}-{position}#0" for position in range(GLOBAL_BATCH)]
    return RankBatch(step, np.arange(GLOBAL_BATCH), signal_uv, valid_samples, lead_mask, patient, row_ids)


def largest_difference(found: Arrays, expected: Arrays) -> float:
    """Over all values of all arrays."""
    assert found.keys() == expected.keys()
    return max((float(np.abs(found[name] - expected[name]).max()) for name in expected), default=0.0)
