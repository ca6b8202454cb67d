"""One optimizer step of fine-tuning on the global batch, whatever the number of workers and micro-batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ecgdist.preprocessing import Preprocessing
from ecgdist.pretraining.group import Group
from ecgdist.pretraining.step import Engine, GlobalStep, refuse_infinite
from ecgdist.pretraining.views import augment
from ecgdist.pretraining.votes import Votes
from ecgdist.signals.augment import View
from ecgdist.signals.augment.view import Augmentation
from ecgdist.streaming.batches import RankBatch
from ecgdist.streaming.draws import AUGMENT_STUDENT, CROP_STUDENT, DROPOUT, Draws
from ecgdist.streaming.order import Order


@dataclass(frozen=True)
class TunedStep:
    """What a step did, equal on all ranks.

    Attributes:
        loss: of the global batch.
        gradient_norm: before clipping.
        votes: what is agreed to happen after the step.
    """

    loss: float
    gradient_norm: float
    votes: Votes


class TuningStep(GlobalStep):
    """Runs steps of one worker of a fine-tuning run."""

    def __init__(
        self,
        engine: Engine,
        preprocessing: Preprocessing,
        order: Order,
        group: Group,
        micro_batch: int,
        device: torch.device,
        augmentations: Sequence[Augmentation] = (),
    ) -> None:
        super().__init__(order, group, micro_batch, device)
        self._engine, self._preprocessing, self._augmentations = engine, preprocessing, augmentations
        self._draws = Draws(order.seed, order.global_batch)

    def __call__(
        self, batch: RankBatch, targets: npt.NDArray[np.float32], learning_rate: float, votes: Votes
    ) -> TunedStep:
        """Train on one global batch, and count the `votes` of all ranks on the way.

        Args:
            batch: this rank's rows.
            targets: ``(b, outputs)`` of these.
            learning_rate: of this step.
            votes: of this rank.

        Raises:
            NotFiniteError, TrainingError: as `TrainingStep`.
        """
        where = self.group.whereabouts
        signal, valid_samples, lead_mask = self._windows(batch)
        wanted = torch.from_numpy(targets).to(self.device)
        seeds = torch.from_numpy(self._draws.seeds(DROPOUT, batch.step, batch.positions)).to(self.device)
        total = torch.zeros(1, dtype=torch.float64)
        bad_loss, bad_gradient = [], []
        for number, chunk in enumerate(self.chunks):
            rows, weight = self.rows(chunk)
            inputs = (values[rows] for values in (signal, valid_samples, lead_mask))
            with where.at("the forward pass"):
                outputs = self._engine.forward(
                    *inputs, targets=wanted[rows], row_weight=weight, seeds=seeds[rows]
                )
            loss_sum = outputs["loss_sum"]
            # Scaled for an engine that averages over ranks.
            loss = loss_sum / self.order.global_batch * self.group.world_size
            with where.at("the backward pass"):
                self._engine.backward(loss, last=number == len(self.chunks) - 1)
            total += loss_sum.detach().double().cpu()
            bad_loss.append(not bool(torch.isfinite(loss_sum)))
            bad_gradient.append(self._engine.take_not_finite())
        total, num_bad, agreed = self.agree(total, bad_loss, torch.stack(bad_gradient), votes)
        if num_bad:
            self.stop(batch, list(self.chunks), bad_loss, bad_gradient)
        with where.at("the optimizer step"):
            gradient_norm = self._engine.update(learning_rate)
        refuse_infinite(gradient_norm, batch.step)
        return TunedStep(float(total) / self.order.global_batch, gradient_norm, agreed)

    def _windows(self, batch: RankBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """A window of each row, at a place and changed in ways that depend on its position in the global batch."""
        pre, device = self._preprocessing, self.device
        valid = torch.from_numpy(batch.valid_samples).to(device)
        lead_mask = torch.from_numpy(batch.lead_mask).to(device)
        filtered = pre.band_pass(
            torch.from_numpy(batch.signal_uv).to(device), torch.from_numpy(batch.valid_samples)
        )
        spare = np.maximum(batch.valid_samples - pre.window_samples, 0) + 1
        start = torch.from_numpy(self._draws.integers(CROP_STUDENT, batch.step, batch.positions, spare))
        view = View(*pre.cut(filtered, start.to(device), valid), lead_mask)
        view = augment(
            view,
            self._augmentations,
            pre.pack.rate_hz,
            self._draws,
            AUGMENT_STUDENT,
            batch.step,
            batch.positions,
        )
        return pre.scale(*view), view.valid_samples, view.lead_mask
