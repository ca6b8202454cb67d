"""One optimizer step on the global batch, whatever the number of workers and micro-batches.

What has to be known of the whole global batch comes first, without gradient: the census of the generative part, and the
keys of the contrastive one, which are the teacher's embeddings, or those of the student where a method has no teacher.
Then every micro-batch of the student is judged by all of that. Losses are sums over rows, divided by counts of the
global batch, so how rows are spread over ranks and micro-batches changes memory and time, not mathematics.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, NoReturn, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ecgdist.errors import TrainingError
from ecgdist.models.patches import at_least_float32
from ecgdist.objectives.config import ObjectiveConfig
from ecgdist.objectives.hybrid import PretrainingModule, combine
from ecgdist.objectives.teacher import MomentumTeacher, momentum_at
from ecgdist.preprocessing import Preprocessing
from ecgdist.pretraining.collapse import Spread, measure
from ecgdist.pretraining.group import Group
from ecgdist.pretraining.nonfinite import NotFiniteError, Suspects
from ecgdist.pretraining.views import augment
from ecgdist.pretraining.votes import Votes
from ecgdist.signals.augment import AugmentConfig, View
from ecgdist.streaming.batches import RankBatch
from ecgdist.streaming.draws import (
    AUGMENT_STUDENT,
    AUGMENT_TEACHER,
    CROP_STUDENT,
    CROP_TEACHER,
    GENERATE,
    GENERATE_SECOND,
    MASK,
    MASK_SECOND,
    Draws,
)
from ecgdist.streaming.order import Order

NO_VOTES = Votes()
"""Go on."""

NO_AUGMENTATIONS = AugmentConfig()
"""Views differ by their windows and masks alone."""


class Engine(Protocol):
    """What a step needs of the thing that holds the weights; see `engine.ZeroEngine`."""

    def forward(self, *inputs: Tensor, **named: Tensor | int | None) -> dict[str, Tensor]:
        """What the module makes of a micro-batch."""

    def backward(self, loss: Tensor, last: bool) -> None:
        """Accumulate gradients; `last` marks the step's last micro-batch."""

    def take_not_finite(self) -> Tensor:
        """Whether this rank's last backward pass made a gradient that is not finite: 0-d bool."""

    def update(self, learning_rate: float) -> float:
        """Change the weights; returns the norm of the gradient before clipping."""


class StudentEngine(Engine, Protocol):
    """The engine of a student; see `engine.DeepSpeedEngine`."""

    module: PretrainingModule

    def update_teacher(self, teacher: MomentumTeacher, momentum: float) -> None:
        """Move the teacher towards the student."""


@dataclass(frozen=True)
class StepResult:
    """What a step did, equal on all ranks.

    Attributes:
        loss: of the global batch.
        parts: the losses of its parts by name, ``reconstruction``, ``contrastive``, ..., before weighting.
        gradient_norm: before clipping.
        votes: what is agreed to happen after the step.
        readings: what else the generative part shows, by name.
        spread: of the embeddings of the global batch, where it was asked for.
    """

    loss: float
    parts: dict[str, float]
    gradient_norm: float
    votes: Votes
    readings: dict[str, float] = field(default_factory=dict)
    spread: Spread | None = None


class _View(NamedTuple):
    """One view of a rank's rows on the training device, filtered, cut, augmented and scaled.

    Attributes:
        signal: ``(b, 12, window)``.
        valid_samples: ``(b,)``.
        lead_mask: ``(b, 12)``.
        noise: ``(b, tokens)``, which decides what of it is hidden from the student.
        seeds: ``(b,)`` int64, of which the generative part makes what else it draws.
    """

    signal: Tensor
    valid_samples: Tensor
    lead_mask: Tensor
    noise: Tensor
    seeds: Tensor

    def rows(self, chosen: Tensor) -> _View:
        """The view of some of the rows."""
        return _View(*(values[chosen] for values in self))


@dataclass(frozen=True)
class _Batch:
    """A rank's rows: their views, the student's first, and ``(b,)`` facts about them."""

    views: list[_View]
    patient: Tensor
    positions: Tensor


class _Known(NamedTuple):
    """What is known of the global batch before any gradient, on all ranks alike.

    Attributes:
        census: of the generative part, see `GenerativePart`; empty without one.
        keys: for each view that the student sees, what it is contrasted with.
        patient: ``(global batch,)``, of whom these are.
    """

    census: Tensor
    keys: Sequence[Tensor | None]
    patient: Tensor | None


class GlobalStep:
    """What steps on the global batch have in common, whatever they train.

    Attributes:
        group: all ranks.
        order: of the rows.
        device: to train on.
        chunks: the places of this rank's rows that pass through the model together.
    """

    def __init__(self, order: Order, group: Group, micro_batch: int, device: torch.device) -> None:
        self.order, self.group, self.device = order, group, device
        rows = len(order.positions_of(group.rank, group.world_size))
        self.chunks = np.array_split(np.arange(rows), micro_batches(order, group.world_size, micro_batch))

    def rows(self, chunk: npt.NDArray[np.int_]) -> tuple[Tensor, Tensor]:
        """The rows of a micro-batch and their weights.

        Under ZeRO-3 all ranks must run the model equally often; one without rows left runs one of weight 0.
        """
        rows = torch.as_tensor(chunk if len(chunk) else [0], device=self.device)
        return rows, torch.full((len(rows),), float(len(chunk) > 0), device=self.device)

    def agree(
        self, totals: Tensor, bad_loss: list[bool], bad_gradient: Tensor, votes: Votes
    ) -> tuple[Tensor, int, Votes]:
        """Over all ranks: sums, in how many micro-batches loss or gradient is not finite, and votes."""
        counts = torch.cat([totals, torch.tensor([sum(bad_loss)]), votes.counts()]).to(self.device)
        num = len(totals)
        counts[num] += bad_gradient.sum()
        counts = self.group.sum(counts).cpu()
        return counts[:num], int(counts[num]), Votes.agreed(counts[num + 1 :])

    def stop(
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
        own = Suspects(batch.step, self.group.rank, what, suspects, batch.row_ids) if any(bad) else None
        raise NotFiniteError.of([found for found in self.group.gather_objects(own) if found])


def refuse_infinite(gradient_norm: float, step: int) -> None:
    """Stop where only the sum of the gradients is not finite.

    Raises:
        TrainingError: on all ranks together.
    """
    if not math.isfinite(gradient_norm):
        raise TrainingError(
            f"step {step}: the gradient is not finite (norm {gradient_norm}), though every rank's part is. "
            "The weights it gave are not saved. Begin anew in another --out with a lower "
            "optimizer.learning_rate, or with engine.precision = fp32"
        )


class TrainingStep(GlobalStep):
    """Runs steps of one worker of a pretraining run."""

    def __init__(
        self,
        engine: StudentEngine,
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
        super().__init__(order, group, micro_batch, device)
        self.engine, self.teacher, self.objective = engine, teacher, objective
        self._preprocessing, self._total_steps = preprocessing, total_steps
        self._augmentations = augmentations
        self._draws = Draws(order.seed, order.global_batch)
        self._rank_rows = [len(order.positions_of(r, group.world_size)) for r in range(group.world_size)]
        self._contrast = objective.contrastive.kind if objective.contrastive.weight > 0 else None
        self._passes, self._losses = objective.student_passes, objective.losses

    def __call__(
        self, batch: RankBatch, learning_rate: float, votes: Votes = NO_VOTES, look: bool = False
    ) -> StepResult:
        """Train on one global batch, and count the `votes` of all ranks on the way.

        Args:
            batch: this rank's rows.
            learning_rate: of this step.
            votes: of this rank.
            look: whether to measure the spread of the embeddings; all ranks ask alike.

        Raises:
            NotFiniteError: on all ranks together, before the weights change, if a loss or gradient is not finite on
                any of them.
            TrainingError: on all ranks together, after it, if only the sum of the gradients is not.
        """
        where = self.group.whereabouts
        own = self._views(batch)
        known = self._known(own)
        chunks = [(view, chunk) for view in range(self._passes) for chunk in self.chunks]
        totals = torch.zeros(len(self._losses), dtype=torch.float64)
        bad_loss, bad_gradient, embeddings = [], [], []
        for number, (view, chunk) in enumerate(chunks):
            with where.at("the student's forward pass"):
                loss, sums, embedding = self._forward(own, known, view, chunk, batch.step)
            if view == 0:
                embeddings.append(embedding)
            with where.at("the backward pass"):
                self.engine.backward(loss, last=number == len(chunks) - 1)
            totals += sums
            bad_loss.append(not torch.isfinite(sums).all())
            bad_gradient.append(self.engine.take_not_finite())
        totals, num_bad, agreed = self.agree(totals, bad_loss, torch.stack(bad_gradient), votes)
        if num_bad:
            self.stop(batch, [chunk for _, chunk in chunks], bad_loss, bad_gradient)
        with where.at("the optimizer step"):
            gradient_norm = self.engine.update(learning_rate)
        refuse_infinite(gradient_norm, batch.step)
        if self.teacher is not None:
            contrast = self.objective.contrastive
            momentum = momentum_at(
                batch.step, self._total_steps, contrast.momentum_start, contrast.momentum_end
            )
            self.engine.update_teacher(self.teacher, momentum)
        result = self._result(totals, known.census, gradient_norm, agreed, batch.step)
        return replace(result, spread=measure(self._gather(torch.cat(embeddings)))) if look else result

    def _views(self, batch: RankBatch) -> _Batch:
        """Filter, cut, augment and scale the views; every draw depends on the position in the global batch alone."""
        pre, draws, device = self._preprocessing, self._draws, self.device
        valid = torch.from_numpy(batch.valid_samples).to(device)
        lead_mask = torch.from_numpy(batch.lead_mask).to(device)
        filtered = pre.band_pass(
            torch.from_numpy(batch.signal_uv).to(device), torch.from_numpy(batch.valid_samples)
        )
        chosen = self._augmentations
        streams = (
            (CROP_STUDENT, AUGMENT_STUDENT, chosen.student, MASK, GENERATE),
            (CROP_TEACHER, AUGMENT_TEACHER, chosen.teacher, MASK_SECOND, GENERATE_SECOND),
        )
        adjacent = self._contrast is not None and self._contrast.adjacent
        windows = pre.window_samples * (2 if adjacent else 1)
        spare = np.maximum(batch.valid_samples - windows, 0) + 1
        start = np.zeros_like(spare)
        views: list[_View] = []
        for crop, stream, augmentations, mask, generate in streams[: 1 if self._contrast is None else 2]:
            if adjacent and views:
                start = start + pre.window_samples
            else:
                start = draws.integers(crop, batch.step, batch.positions, spare)
            view = View(*pre.cut(filtered, torch.from_numpy(start).to(device), valid), lead_mask)
            view = augment(view, augmentations, pre.pack.rate_hz, draws, stream, batch.step, batch.positions)
            width = self.engine.module.num_tokens
            noise = torch.from_numpy(draws.uniform(mask, batch.step, batch.positions, width)).to(device)
            seeds = torch.from_numpy(draws.seeds(generate, batch.step, batch.positions)).to(device)
            views.append(_View(pre.scale(*view), view.valid_samples, view.lead_mask, noise, seeds))
        return _Batch(
            views, torch.from_numpy(batch.patient).to(device), torch.from_numpy(batch.positions).to(device)
        )

    @torch.no_grad()
    def _known(self, own: _Batch) -> _Known:
        """What has to be known of the global batch before any gradient."""
        queries, census = self._look_ahead(own)
        if self._contrast is None:
            return _Known(census, [None], None)
        patient = self._gather(own.patient)
        if self.teacher is not None:
            keys = [self._gather(self._teacher_keys(own.views[1 - n])) for n in range(self._passes)]
            return _Known(census, keys, patient)
        first, second = (self._gather(view) for view in queries)
        return _Known(census, [torch.cat([first, second]), torch.cat([second, first])], patient)

    def _look_ahead(self, own: _Batch) -> tuple[list[Tensor], Tensor]:
        """What the student makes of this rank's rows in each of its views, where it is asked to; and the census."""
        module, weight = self.engine.module, torch.ones(len(own.positions), device=self.device)
        views = own.views[: self._passes]
        counts = torch.stack([module.count(*view[:4], weight).double() for view in views]).sum(dim=0)
        if not module.looks_ahead:
            return [], self.group.sum(counts)
        outputs = [[self._looked(view, chunk) for chunk in self.chunks] for view in views]
        looks = [part["look"] for view in outputs for part in view if "look" in part]
        census = torch.cat([counts, torch.stack(looks).sum(dim=0)]) if looks else counts
        queries = [torch.cat([part["query"] for part in view]) for view in outputs if "query" in view[0]]
        return queries, self.group.sum(census)

    def _looked(self, view: _View, chunk: npt.NDArray[np.int_]) -> dict[str, Tensor]:
        rows, weight = self.rows(chunk)
        outputs = self.engine.forward(*view.rows(rows)[:4], weight, look_ahead=True)
        if "query" in outputs:
            outputs["query"] = at_least_float32(outputs["query"][: len(chunk)])
        return outputs

    def _gather(self, rows: Tensor) -> Tensor:
        return self.group.gather_rows(rows, self._rank_rows)

    def _teacher_keys(self, view: _View) -> Tensor:
        assert self.teacher is not None
        parts = [self.teacher.keys(*view.rows(torch.from_numpy(c))[:3]) for c in self.chunks if len(c)]
        return torch.cat(parts)

    def _forward(
        self, own: _Batch, known: _Known, view: int, chunk: npt.NDArray[np.int_], step: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of one micro-batch: the loss, scaled for an engine that averages over ranks, plain sums, and embeddings."""
        rows, weight = self.rows(chunk)
        shown = own.views[view].rows(rows)
        named: dict[str, Tensor | None] = {"seeds": shown.seeds, "census": known.census}
        if self._contrast is not None:
            named |= {"keys": known.keys[view], "key_patient": known.patient}
            named |= {"positive": own.positions[rows], "query_patient": own.patient[rows]}
        outputs = self.engine.forward(*shown[:4], weight, step=step, **named)
        loss, _ = self._combined(outputs, known.census.float(), step)
        sums = torch.stack([outputs[f"{name}_sum"].detach().double().cpu() for name in self._losses])
        return loss * self.group.world_size, sums, at_least_float32(outputs["embedding"][: len(chunk)])

    def _combined(
        self, sums: Mapping[str, Tensor], census: Tensor, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        progress = (step + 1) / self._total_steps
        return combine(sums, census, self.order.global_batch, self.objective, progress)

    def _result(
        self, totals: Tensor, census: Tensor, gradient_norm: float, votes: Votes, step: int
    ) -> StepResult:
        sums = {f"{name}_sum": total for name, total in zip(self._losses, totals, strict=True)}
        loss, parts = self._combined(sums, census.cpu(), step)
        values = {name: float(value) for name, value in parts.items()}
        part = self.engine.module.generative
        readings = {} if part is None else part.readings(census)
        return StepResult(float(loss), values, gradient_norm, votes, readings)


def micro_batches(order: Order, world_size: int, micro_batch: int) -> int:
    """How often every rank runs the model for a view, so that none has over `micro_batch` rows at once."""
    most = max(len(order.positions_of(rank, world_size)) for rank in range(world_size))
    return -(-most // micro_batch)
