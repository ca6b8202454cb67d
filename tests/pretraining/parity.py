"""The same 200 steps on real ECGs under plain torch DistributedDataParallel and under every ZeRO stage."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ecgdist.objectives.hybrid import PretrainingModule
from ecgdist.objectives.teacher import MomentumTeacher
from ecgdist.pretraining.config import EngineConfig, OptimizerConfig
from ecgdist.pretraining.engine import DeepSpeedEngine, parameter_groups
from ecgdist.pretraining.group import Group
from ecgdist.pretraining.nonfinite import GradientWatch
from ecgdist.pretraining.schedule import learning_rate_at
from ecgdist.pretraining.step import StepResult, TrainingStep, micro_batches
from ecgdist.record import NUM_LEADS
from ecgdist.streaming.batches import RankBatch
from tests.pretraining.runs import ARMS, ENCODER, GLOBAL_BATCH, ORDER, PREPROCESSING, WEIGHT_DECAY, Arrays
from tests.signals.real_ecgs import signals_uv

STEPS = 200
PEAK = 1e-4
CLIP_NORM = 0.6
MICRO_BATCH = 3
NUM_ECGS = 64


@dataclass(frozen=True)
class Ran:
    """What 200 steps gave on one rank."""

    results: list[StepResult]
    student: Arrays
    teacher: Arrays

    @property
    def losses(self) -> npt.NDArray[np.float64]:
        return np.array([result.loss for result in self.results])

    @property
    def norms(self) -> npt.NDArray[np.float64]:
        return np.array([result.gradient_norm for result in self.results])


class DistributedEngine:
    """torch's DistributedDataParallel and AdamW, as their documentation shows them."""

    def __init__(self, module: PretrainingModule, num_micro_batches: int) -> None:
        self.module = module
        self._parallel = DistributedDataParallel(module)
        self._optimizer = torch.optim.AdamW(parameter_groups(module, WEIGHT_DECAY), lr=0.0, betas=(0.9, 0.95))
        self._num_micro_batches, self._done = num_micro_batches, 0
        self._watch = GradientWatch(module)

    def forward(self, *inputs: Tensor, **named: Tensor | int | None) -> dict[str, Tensor]:
        self._done += 1
        last = self._done % self._num_micro_batches == 0
        with nullcontext() if last else self._parallel.no_sync():
            outputs: dict[str, Tensor] = self._parallel(*inputs, **named)
        return outputs

    def backward(self, loss: Tensor, last: bool) -> None:
        with nullcontext() if last else self._parallel.no_sync():
            loss.backward()

    def take_not_finite(self) -> Tensor:
        return self._watch.take()

    def update(self, learning_rate: float) -> float:
        norm = torch.nn.utils.clip_grad_norm_(self.module.parameters(), CLIP_NORM)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        self._optimizer.zero_grad()
        return float(norm)

    def update_teacher(self, teacher: MomentumTeacher, momentum: float) -> None:
        teacher.update(self.module.student_parameters(), momentum)

    def full_weights(self) -> dict[str, Tensor]:
        return {name: weight.detach().clone() for name, weight in self.module.named_parameters()}


def train(zero_stage: int | None, precision: str) -> Ran:
    """Train with a ZeRO stage, or with torch alone (in fp32) if it is None."""
    group = Group()
    torch.manual_seed(0)
    module = PretrainingModule(ENCODER, ARMS["HL"], PREPROCESSING.window_samples)
    teacher = module.teacher()
    parts = micro_batches(ORDER, group.world_size, MICRO_BATCH)
    engine: Any
    if zero_stage is None:
        engine = DistributedEngine(module, parts)
    else:
        engine = DeepSpeedEngine(
            module,
            EngineConfig.model_validate(
                {"zero_stage": zero_stage, "precision": precision, "micro_batch": MICRO_BATCH}
            ),
            OptimizerConfig(clip_norm=CLIP_NORM),
            WEIGHT_DECAY,
            parts,
        )
    step = TrainingStep(
        engine,
        teacher,
        ARMS["HL"],
        PREPROCESSING,
        ORDER,
        group,
        MICRO_BATCH,
        STEPS,
        torch.device("cpu"),
    )
    results = [step(batch_of(n, group), learning_rate_at(n, STEPS, PEAK, 0.1)) for n in range(STEPS)]
    assert teacher is not None
    return Ran(
        results,
        {name: weight.numpy() for name, weight in engine.full_weights().items()},
        {name: weight.numpy().copy() for name, weight in teacher.state_dict().items()},
    )


@cache
def _real_signals_uv() -> npt.NDArray[np.int16]:
    whole = signals_uv(NUM_ECGS)[:, :, : PREPROCESSING.num_samples]
    assert whole.shape[1:] == (NUM_LEADS, PREPROCESSING.num_samples)
    return np.rint(whole).astype(np.int16)


def batch_of(step: int, group: Group) -> RankBatch:
    """A rank's rows of a batch of real ECGs; in every batch one ECG is short and one has three leads."""
    random = np.random.default_rng(step)
    ecgs = random.choice(NUM_ECGS, GLOBAL_BATCH, replace=False)
    signal_uv = _real_signals_uv()[ecgs]
    valid = np.full(GLOBAL_BATCH, PREPROCESSING.num_samples, np.int64)
    valid[1] = 150
    signal_uv[1, :, 150:] = 0
    lead_mask = np.ones((GLOBAL_BATCH, NUM_LEADS), np.bool_)
    lead_mask[2, 3:] = False
    signal_uv[2, 3:] = 0
    mine = ORDER.positions_of(group.rank, group.world_size)
    names = [f"ptbxl/{ecgs[i]}#0" for i in mine]
    # Two ECGs in a row are of one patient, so that the contrast has to leave pairs out.
    return RankBatch(step, mine, signal_uv[mine], valid[mine], lead_mask[mine], ecgs[mine] // 2, names)
