"""What a task asks of a model that is trained on it: targets, a loss, predictions, and how these are judged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from ecgdist.downstream.evaluate import Setup, check_task
from ecgdist.downstream.judged import Records
from ecgdist.downstream.scores import auroc, best_f1_thresholds
from ecgdist.downstream.tasks import MultilabelTask, RegressionTask
from ecgdist.errors import DataError

FloatArray = npt.NDArray[np.float64]

_MOST_WEIGHT = 20.0
"""Of a positive, where labels are weighted: a label with ten positives must not be all that a step is about."""
_FOCUS = 2.0
"""gamma of the focal loss, which Lin et al. found best."""


class Goal(ABC):
    """What is trained for.

    Attributes:
        outputs: names of what is predicted.
        targets: ``(rows of the index, outputs)`` float32; rows without a split hold anything.
        left_out: labels of the task that cannot be trained, with the reason.
    """

    metric: str
    """What the validation split is judged by."""
    mode: Literal["min", "max"]
    """Whether less or more of it is better."""

    outputs: tuple[str, ...]
    targets: npt.NDArray[np.float32]
    left_out: dict[str, str]

    def __init__(self, setup: Setup) -> None:
        self._records = Records.of(setup.index, setup.splits, "validation")

    @property
    @abstractmethod
    def start(self) -> FloatArray:
        """``(outputs,)``: what a model that knows nothing of the record should give."""

    @property
    def validation_rows(self) -> npt.NDArray[np.int64]:
        """Rows of the index that are in the validation split."""
        return self._records.rows

    @abstractmethod
    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """``(batch, outputs)`` of a model and what they should be -> the loss of each record, ``(batch,)``."""

    @abstractmethod
    def predictions(self, outputs: Tensor) -> Tensor:
        """What a model's outputs say: probabilities, or numbers in the task's unit."""

    @abstractmethod
    def figures(self, predictions: FloatArray) -> dict[str, float]:
        """Figures of the validation split, `metric` among them.

        Args:
            predictions: ``(n, outputs)`` of `validation_rows`.
        """


class LabelGoal(Goal):
    """Labels of which any number may be true."""

    metric, mode = "validation_auroc", "max"

    def __init__(self, setup: Setup, imbalance: str) -> None:
        """Find the labels that can be trained.

        Raises:
            DataError: if there is none, or the validation split can judge none.
        """
        super().__init__(setup)
        assert isinstance(setup.task, MultilabelTask)
        truth, names = setup.task.truth(setup.index), tuple(setup.task.labels)
        train = setup.splits.rows("train")
        positives, count = truth[train].sum(axis=0), int(train.sum())
        self.left_out = {
            name: "no positive training record" if not n else "no negative training record"
            for name, n in zip(names, positives.tolist(), strict=True)
            if n in (0, count)
        }
        kept = [i for i, name in enumerate(names) if name not in self.left_out]
        if not kept:
            raise DataError(
                f"task {setup.task.name}: no label has both positive and negative training records; train on more "
                "records, or raise label_share"
            )
        self.outputs = tuple(names[i] for i in kept)
        self.targets = truth[:, kept].astype(np.float32)
        self._truth = truth[self._records.first][:, kept]
        if not (self._truth.any(axis=0) & ~self._truth.all(axis=0)).any():
            raise DataError(
                f"task {setup.task.name}: no label has both positive and negative validation records, so no model "
                "could be chosen; name other folds"
            )
        self._imbalance = imbalance
        ratio = (count - positives[kept]) / positives[kept]
        self._positive_weight = torch.tensor(np.clip(ratio, 1, _MOST_WEIGHT), dtype=torch.float32)
        self._odds = 1 / ratio

    @property
    def start(self) -> FloatArray:
        """The log odds of each label among the training records, as its positives are weighted.

        From zero, the first steps would do nothing but lower all outputs together: of 44 labels, most of which one
        record in fifty has, hundreds of steps learned nothing else (Lin et al. 2017, section 3.3).
        """
        weight = self._positive_weight.double().numpy() if self._imbalance == "weighted" else 1.0
        found: FloatArray = np.log(self._odds * weight)
        return found

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Binary cross-entropy, the mean over labels."""
        weight = self._positive_weight.to(outputs.device) if self._imbalance == "weighted" else None
        each = F.binary_cross_entropy_with_logits(outputs, targets, pos_weight=weight, reduction="none")
        if self._imbalance == "focal":
            # (1 - p) where p is the probability of what is true.
            each = each * torch.sigmoid(outputs * (1 - 2 * targets)) ** _FOCUS
        return each.mean(dim=1)

    def predictions(self, outputs: Tensor) -> Tensor:
        """Probabilities."""
        return torch.sigmoid(outputs)

    def figures(self, predictions: FloatArray) -> dict[str, float]:
        """Macro AUROC over the labels that have both classes."""
        areas = auroc(self._truth, self._records.mean(predictions))
        return {self.metric: float(np.nanmean(areas))}

    def thresholds(self, predictions: FloatArray) -> FloatArray:
        """``(outputs,)``, those with the highest F1 on the validation split; `predictions` as of `figures`."""
        return best_f1_thresholds(self._truth, self._records.mean(predictions))


class NumberGoal(Goal):
    """A number; the model predicts it in standard deviations of the training split."""

    metric, mode = "validation_mae", "min"

    def __init__(self, setup: Setup) -> None:
        """Find mean and spread of the training split.

        Raises:
            DataError: if all its numbers are the same.
        """
        super().__init__(setup)
        assert isinstance(setup.task, RegressionTask)
        numbers = setup.task.numbers(setup.index)
        train = numbers[setup.splits.rows("train")]
        self.mean, self.deviation = float(train.mean()), float(train.std())
        if not self.deviation > 0:
            raise DataError(f"task {setup.task.name}: all training records have the same {setup.task.target}")
        self.outputs, self.left_out, self.unit = (setup.task.target,), {}, setup.task.unit
        self.targets = ((numbers - self.mean) / self.deviation).astype(np.float32)[:, None]
        self._truth = numbers[self._records.first]

    @property
    def start(self) -> FloatArray:
        """Zero, the mean of the training split."""
        return np.zeros(1)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Squared error, in variances of the training split."""
        return (outputs - targets).square().mean(dim=1)

    def predictions(self, outputs: Tensor) -> Tensor:
        """Numbers in the task's unit."""
        return outputs * self.deviation + self.mean

    def figures(self, predictions: FloatArray) -> dict[str, float]:
        """Mean absolute error, in the task's unit."""
        error = self._records.mean(predictions)[:, 0] - self._truth
        return {self.metric: float(np.abs(error).mean())}


def metric_of(task: str) -> tuple[str, Literal["min", "max"]]:
    """What the validation split of a task is judged by, and whether less or more of it is better.

    Raises:
        ConfigError, DataError: if there is no such task.
    """
    goal: type[Goal] = LabelGoal if issubclass(check_task(task), MultilabelTask) else NumberGoal
    return goal.metric, goal.mode


def goal_of(setup: Setup, imbalance: str) -> Goal:
    """The goal of a task.

    Raises:
        DataError: if the corpus cannot serve it.
    """
    if isinstance(setup.task, MultilabelTask):
        return LabelGoal(setup, imbalance)
    return NumberGoal(setup)
