"""One optimizer step on the global batch, whatever the number of workers and micro-batches.

The teacher's keys of the whole global batch come first, without gradient; then every micro-batch of the
student is contrasted with all of them. Losses are sums over rows, divided by counts of the global batch, so
how rows are spread over ranks and micro-batches changes memory and time, not mathematics.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NoReturn, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ecgdist.errors import TrainingError
from ecgdist.objectives.hybrid import ObjectiveConfig, PretrainingModule, combine
from ecgdist.objectives.teacher import MomentumTeacher, momentum_at
from ecgdist.preprocessing import Preprocessing
from ecgdist.pretraining.group import Group
from ecgdist.pretraining.nonfinite import NotFiniteError, Suspects
from ecgdist.pretraining.views import augment
from ecgdist.pretraining.votes import Votes
from ecgdist.signals.augment import AugmentConfig, View
from ecgdist.streaming.batches import RankBatch
from ecgdist.streaming.draws import AUGMENT_STUDENT, AUGMENT_TEACHER, CROP_STUDENT, CROP_TEACHER, MASK, Draws
from ecgdist.streaming.order import Order

NO_VOTES = Votes()
"""Go on."""

NO_AUGMENTATIONS = AugmentConfig()
"""Views differ by their windows and masks alone."""


class Engine(Protocol):
    """What a step needs of the thing that holds the student's weights; see `engine.DeepSpeedEngine`."""

    module: PretrainingModule

    def forward(self, *inputs: Tensor | None) -> dict[str, Tensor]:
        """The student's sums for a micro-batch."""

    def backward(self, loss: Tensor, last: bool) -> None:
        """Accumulate gradients; `last` marks the step's last micro-batch."""

    def take_not_finite(self) -> Tensor:
        """Whether this rank's last backward pass made a gradient that is not finite: 0-d bool."""

    def update(self, learning_rate: float) -> float:
        """Change the weights; returns the norm of the gradient before clipping."""

    def update_teacher(self, teacher: MomentumTeacher, momentum: float) -> None:
        """Move the teacher towards the student."""


@dataclass(frozen=True)
class StepResult:
    """What a step did, equal on all ranks.

    Attributes:
        loss: of the global batch.
        parts: ``reconstruction`` and ``contrastive``, before weighting.
        gradient_norm: before clipping.
        votes: what is agreed to happen after the step.
    """

    loss: float
    parts: dict[str, float]
    gradient_norm: float
    votes: Votes


@dataclass(frozen=True)
class _Views:
    """A rank's rows on the training device, filtered and cut: ``(b, 12, window)`` and facts about them."""

    student: Tensor
    student_valid: Tensor
    student_leads: Tensor
    teacher: Tensor
    teacher_valid: Tensor
    teacher_leads: Tensor
    noise: Tensor
    patient: Tensor
    positions: Tensor


class TrainingStep:
    """Runs steps of one worker."""

    def __init__(
        self,
        engine: Engine,
        teacher: MomentumTeacher | None,
        objective: ObjectiveConfig,
        preprocessing: Preprocessing,
        order: Order,
        group: Group,
        micro_batch: int,
        total_steps: int,
        device: torch.device,
        augmentations: AugmentConfig = NO_AUGMENTATIONS,
    ) -> None:
        self.engine, self.teacher, self.objective = engine, teacher, objective
        self._preprocessing, self._order, self._group, self._device = preprocessing, order, group, device
        self._total_steps, self._augmentations = total_steps, augmentations
        self._draws = Draws(order.seed, order.global_batch)
        self._rank_rows = [len(order.positions_of(r, group.world_size)) for r in range(group.world_size)]
        self.num_micro_batches = micro_batches(order, group.world_size, micro_batch)

    def __call__(self, batch: RankBatch, learning_rate: float, votes: Votes = NO_VOTES) -> StepResult:
        """Train on one global batch, and count the `votes` of all ranks on the way.

        Raises:
            NotFiniteError: on all ranks together, before the weights change, if a loss or gradient is not finite on
                any of them.
            TrainingError: on all ranks together, after it, if only the sum of the gradients is not.
        """
        views = self._views(batch)
        keys = key_patient = None
        if self.teacher is not None:
            own = self._teacher_keys(views)
            keys = self._group.gather_rows(own, self._rank_rows)
            key_patient = self._group.gather_rows(views.patient, self._rank_rows)
        tokens = self._group.sum(self._count_tokens(views))
        chunks = np.array_split(np.arange(len(batch.positions)), self.num_micro_batches)
        totals = torch.zeros(2, dtype=torch.float64)
        bad_loss, bad_gradient = [], []
        for number, chunk in enumerate(chunks):
            loss, sums = self._forward(views, chunk, keys, key_patient, tokens)
            self.engine.backward(loss, last=number == len(chunks) - 1)
            totals += sums
            bad_loss.append(not torch.isfinite(sums).all())
            bad_gradient.append(self.engine.take_not_finite())
        totals, num_bad, agreed = self._agree(totals, bad_loss, torch.stack(bad_gradient), votes)
        if num_bad:
            self._stop(batch, chunks, bad_loss, bad_gradient)
        gradient_norm = self.engine.update(learning_rate)
        if not math.isfinite(gradient_norm):
            raise TrainingError(
                f"step {batch.step}: the gradient is not finite (norm {gradient_norm}), though every rank's part is. "
                "The weights it gave are not saved. Begin anew in another --out with a lower "
                "optimizer.learning_rate, or with engine.precision = fp32"
            )
        if self.teacher is not None:
            contrast = self.objective.contrastive
            momentum = momentum_at(
                batch.step, self._total_steps, contrast.momentum_start, contrast.momentum_end
            )
            self.engine.update_teacher(self.teacher, momentum)
        return self._result(totals, tokens, gradient_norm, agreed)

    def _views(self, batch: RankBatch) -> _Views:
        """Filter, cut, augment and scale both views; every draw depends on the position in the global batch alone."""
        pre, device = self._preprocessing, self._device
        valid = torch.from_numpy(batch.valid_samples).to(device)
        lead_mask = torch.from_numpy(batch.lead_mask).to(device)
        filtered = pre.band_pass(torch.from_numpy(batch.signal_uv).to(device), valid)
        spare = np.maximum(batch.valid_samples - pre.window_samples, 0) + 1
        chosen = self._augmentations
        kinds = [
            (CROP_STUDENT, AUGMENT_STUDENT, chosen.student),
            (CROP_TEACHER, AUGMENT_TEACHER, chosen.teacher),
        ]
        views = []
        for crop, stream, augmentations in kinds if self.teacher is not None else kinds[:1]:
            starts = torch.from_numpy(self._draws.integers(crop, batch.step, batch.positions, spare)).to(
                device
            )
            view = View(*pre.cut(filtered, starts, valid), lead_mask)
            view = augment(
                view, augmentations, pre.pack.rate_hz, self._draws, stream, batch.step, batch.positions
            )
            views.append((pre.scale(*view), view.valid_samples, view.lead_mask))
        width = self.engine.module.num_tokens
        noise = self._draws.uniform(MASK, batch.step, batch.positions, width)
        return _Views(
            *views[0],
            *views[-1],
            torch.from_numpy(noise).to(device),
            torch.from_numpy(batch.patient).to(device),
            torch.from_numpy(batch.positions).to(device),
        )

    def _teacher_keys(self, views: _Views) -> Tensor:
        assert self.teacher is not None
        chunks = torch.tensor_split(torch.arange(len(views.positions)), self.num_micro_batches)
        parts = [
            self.teacher.keys(views.teacher[c], views.teacher_valid[c], views.teacher_leads[c])
            for c in chunks
            if len(c)
        ]
        return torch.cat(parts)

    def _count_tokens(self, views: _Views) -> Tensor:
        """Patches that the reconstruction of this rank's rows will be judged on, as a 0-d float64."""
        if self.objective.generative.weight == 0:
            return torch.zeros((), dtype=torch.float64, device=self._device)
        count = self.engine.module.count_tokens(
            views.student,
            views.student_valid,
            views.student_leads,
            views.noise,
            torch.ones(len(views.noise), device=self._device),
        )
        return count.to(torch.float64)

    def _forward(
        self,
        views: _Views,
        chunk: npt.NDArray[np.int_],
        keys: Tensor | None,
        key_patient: Tensor | None,
        tokens: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The loss of one micro-batch, scaled for an engine that averages over ranks, and its plain sums."""
        # Under ZeRO-3 all ranks must run the model equally often; one without rows left runs one of weight 0.
        rows = torch.as_tensor(chunk if len(chunk) else [0], device=self._device)
        weight = torch.full((len(rows),), float(len(chunk) > 0), device=self._device)
        contrast = () if keys is None else (keys, views.positions[rows], views.patient[rows], key_patient)
        outputs = self.engine.forward(
            views.student[rows],
            views.student_valid[rows],
            views.student_leads[rows],
            views.noise[rows],
            weight,
            *contrast,
        )
        loss, _ = combine(outputs, tokens.float(), self._order.global_batch, self.objective)
        zero = torch.zeros(())
        sums = torch.stack(
            [
                outputs.get(name, zero).detach().double().cpu()
                for name in ("reconstruction_sum", "contrastive_sum")
            ]
        )
        return loss * self._group.world_size, sums

    def _agree(
        self, totals: Tensor, bad_loss: list[bool], bad_gradient: Tensor, votes: Votes
    ) -> tuple[Tensor, int, Votes]:
        """Over all ranks: sums, in how many micro-batches loss or gradient is not finite, and votes."""
        counts = torch.cat([totals, torch.tensor([sum(bad_loss)]), votes.counts()]).to(self._device)
        counts[2] += bad_gradient.sum()
        counts = self._group.sum(counts).cpu()
        return counts[:2], int(counts[2]), Votes.agreed(counts[3:])

    def _stop(
        self,
        batch: RankBatch,
        chunks: list[npt.NDArray[np.int_]],
        bad_loss: list[bool],
        bad_gradient: list[Tensor],
    ) -> NoReturn:
        """Raise, on all ranks, where a loss or gradient was not finite."""
        bad = [loss or bool(gradient) for loss, gradient in zip(bad_loss, bad_gradient, strict=True)]
        suspects = [
            batch.row_ids[i] for chunk, is_bad in zip(chunks, bad, strict=True) if is_bad for i in chunk
        ]
        what = "loss" if any(bad_loss) else "gradient"
        own = Suspects(batch.step, self._group.rank, what, suspects, batch.row_ids) if any(bad) else None
        raise NotFiniteError.of([found for found in self._group.gather_objects(own) if found])

    def _result(self, totals: Tensor, tokens: Tensor, gradient_norm: float, votes: Votes) -> StepResult:
        sums = {"reconstruction_sum": totals[0], "contrastive_sum": totals[1]}
        loss, parts = combine(sums, tokens.cpu(), self._order.global_batch, self.objective)
        values = {name: float(value) for name, value in parts.items()}
        return StepResult(float(loss), values, gradient_norm, votes)


def micro_batches(order: Order, world_size: int, micro_batch: int) -> int:
    """How often every rank runs the model in a step, so that none has over `micro_batch` rows at once."""
    most = max(len(order.positions_of(rank, world_size)) for rank in range(world_size))
    return -(-most // micro_batch)
