"""Judges predictors of one task on the same test patients and the same resamples of them, whatever the task predicts.

A label without positives, or without negatives, among the training records of a predictor is predicted by a constant:
nothing can be learned about it. So every predictor of a task is judged on the same labels, with few labels, too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ecgdist.corpus.splits import SPLITS
from ecgdist.downstream.assign import Splits
from ecgdist.downstream.bootstrap import Resamples
from ecgdist.downstream.classifier import Classifier
from ecgdist.downstream.evaluate import Setup
from ecgdist.downstream.evaluation import Features
from ecgdist.downstream.judged import Records
from ecgdist.downstream.label_judge import LabelJudge, probe
from ecgdist.downstream.metrics import BOOTSTRAP_METHOD, FEW_POSITIVES, macro_means
from ecgdist.downstream.regression import NUMBER_METHOD, NUMBER_METRICS, bootstrap_numbers
from ecgdist.downstream.ridge import ridge_probe
from ecgdist.downstream.scores import METRICS
from ecgdist.downstream.tasks import MultilabelTask, RegressionTask, patients_of
from ecgdist.errors import DataError

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Said:
    """What a predictor says of every row of the index; NaN outside the validation and test split.

    Attributes:
        values: ``(rows, outputs)`` in the order of the judge's outputs.
        learned: outputs that are no constants.
    """

    values: FloatArray
    learned: tuple[str, ...]


@dataclass(frozen=True)
class Scored:
    """Figures of a predictor on the test set and on resamples of its patients.

    Attributes:
        point: ``(metrics,)`` in the order of the judge's metrics.
        samples: ``(resamples, metrics)``.
        by_output: the first metric of each output.
    """

    point: FloatArray
    samples: FloatArray
    by_output: dict[str, float]


def mean_of_scores(scores: Sequence[Scored]) -> Scored:
    """Figures of several predictors, averaged resample by resample: the interval is that of the test patients."""
    return Scored(
        np.mean([each.point for each in scores], axis=0),
        np.mean([each.samples for each in scores], axis=0),
        {name: float(np.mean([each.by_output[name] for each in scores])) for name in scores[0].by_output},
    )


class Judge(ABC):
    """Judges predictors of one task.

    Attributes:
        setup: with all labels of the training split.
        outputs: labels, or the number.
        left_out: labels of the task that are not judged, with the reason.
        metrics: figures, the most important one first.
        titles: of these, for a reader.
        sign: 1 if more of the first metric is better, -1 if less is.
        method: how intervals are made.
        notes: sentences about the task that a reader must see.
    """

    metrics: tuple[str, ...]
    titles: tuple[str, ...]
    sign: int
    method: str
    outputs: tuple[str, ...]
    left_out: dict[str, str]
    notes: tuple[str, ...] = ()

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.test = Records.of(setup.index, setup.splits, "test")

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """Rows of the index in the validation and test split."""
        splits = self.setup.splits
        return np.flatnonzero(splits.rows("validation") | splits.rows("test"))

    @abstractmethod
    def learnable(self, splits: Splits) -> tuple[str, ...]:
        """Outputs that the training rows of a split can teach anything about."""

    @abstractmethod
    def probed(self, features: Features, splits: Splits) -> Said:
        """The linear probe on ``(rows of the index, dim)`` features."""

    @abstractmethod
    def constant(self, splits: Splits) -> Said:
        """What a predictor says that has learned nothing."""

    @abstractmethod
    def score(self, said: Said) -> Scored:
        """The figures of a predictor."""

    def trained(self, classifier: Classifier, splits: Splits, batch_rows: int) -> Said:
        """What a trained model says."""
        found = classifier.predict_rows(self.setup.corpus, self.rows, batch_rows)
        if not np.isfinite(found[self.rows]).all():
            raise DataError("the trained model gives predictions that are not finite")
        return self.filled(found, classifier.config.outputs, splits)

    def filled(self, values: FloatArray, names: Sequence[str], splits: Splits) -> Said:
        """``(rows, names)`` predictions as those of all outputs, with constants for the others."""
        found = self.constant(splits).values.copy()
        learned = tuple(name for name in self.outputs if name in names)
        for name in learned:
            found[:, self.outputs.index(name)] = values[:, list(names).index(name)]
        return Said(found, learned)


class LabelsJudge(Judge):
    """Judges labels by the macro mean of their AUROC."""

    metrics, titles, sign = METRICS[:2], ("macro AUROC", "macro AUPRC"), 1

    def __init__(self, setup: Setup, resamples: int, seed: int) -> None:
        """Find the labels that can be judged.

        Raises:
            DataError: if there is none.
        """
        super().__init__(setup)
        assert isinstance(setup.task, MultilabelTask)
        self._truth, names = setup.task.truth(setup.index), tuple(setup.task.labels)
        test = self._truth[self.test.first]
        reasons: dict[str, str] = {}
        for split, truth in (("training", self._truth[setup.splits.rows("train")]), ("test", test)):
            for number, name in enumerate(names):
                count = int(truth[:, number].sum())
                if count in (0, len(truth)):
                    kind = "positive" if count == 0 else "negative"
                    reasons.setdefault(name, f"no {kind} {split} record")
        self.left_out = reasons
        self.outputs = tuple(name for name in names if name not in reasons)
        if not self.outputs:
            raise DataError(
                f"task {setup.task.name}: no label has positives and negatives in both the training and the test "
                "split; use more records, or name other folds"
            )
        self._columns = [names.index(name) for name in self.outputs]
        kept = self._truth[:, self._columns]
        self._judge = LabelJudge.of(setup.index, setup.splits, kept, self.outputs, resamples, seed)
        self.method = f"{resamples} resamples: {BOOTSTRAP_METHOD}"
        few = [
            name
            for name, count in zip(self.outputs, kept[self.test.first].sum(axis=0), strict=True)
            if count < FEW_POSITIVES
        ]
        self.notes = (f"fewer than {FEW_POSITIVES} test positives: {', '.join(few)}",) if few else ()

    def learnable(self, splits: Splits) -> tuple[str, ...]:
        """See `Judge`."""
        train = self._truth[splits.rows("train")][:, self._columns]
        both = np.flatnonzero(train.any(axis=0) & ~train.all(axis=0))
        return tuple(self.outputs[number] for number in both.tolist())

    def probed(self, features: Features, splits: Splits) -> Said:
        """See `Judge`."""
        names = self.learnable(splits)
        columns = [self._columns[self.outputs.index(name)] for name in names]
        found = probe(features, self._truth[:, columns], splits, names)
        values = np.full((len(self._truth), len(names)), np.nan)
        values[splits.rows("validation")], values[splits.rows("test")] = found.validation, found.test
        return self.filled(values, names, splits)

    def constant(self, splits: Splits) -> Said:
        """The share of positives."""
        values = np.full((len(self._truth), len(self.outputs)), np.nan)
        values[self.rows] = self._truth[splits.rows("train")][:, self._columns].mean(axis=0)
        return Said(values, ())

    def score(self, said: Said) -> Scored:
        """See `Judge`."""
        validation, test = (said.values[self.setup.splits.rows(name)] for name in SPLITS[1:])
        boot, _ = self._judge.bootstrap(validation, test)
        kinds = [METRICS.index(name) for name in self.metrics]
        every = np.ones(len(self.outputs), dtype=np.bool_)
        return Scored(
            boot.point[:, kinds].mean(axis=0),
            macro_means(boot.samples, every)[:, kinds],
            dict(zip(self.outputs, boot.point[:, 0].tolist(), strict=True)),
        )


class NumbersJudge(Judge):
    """Judges a number by its mean absolute error."""

    metrics, sign = NUMBER_METRICS, -1

    def __init__(self, setup: Setup, resamples: int, seed: int) -> None:
        super().__init__(setup)
        assert isinstance(setup.task, RegressionTask)
        self._numbers = setup.task.numbers(setup.index)
        unit = setup.task.unit
        self.titles = (f"MAE ({unit})", f"RMSE ({unit})", "R²")
        self.outputs, self.left_out = (setup.task.target,), {}
        patients = patients_of(self.test.facts(setup.index)).tolist()
        self._resamples = Resamples.of(patients, resamples, seed)
        self.method = f"{resamples} resamples: {NUMBER_METHOD}"

    def learnable(self, splits: Splits) -> tuple[str, ...]:
        """See `Judge`."""
        return self.outputs if self._numbers[splits.rows("train")].std() > 0 else ()

    def probed(self, features: Features, splits: Splits) -> Said:
        """See `Judge`."""
        train, validation, test = map(splits.rows, SPLITS)
        numbers = self._numbers
        found = ridge_probe(
            features[train], numbers[train], features[validation], numbers[validation], features[test]
        )
        values = np.full((len(numbers), 1), np.nan)
        values[validation, 0], values[test, 0] = found.validation, found.test
        return Said(values, self.outputs)

    def constant(self, splits: Splits) -> Said:
        """The mean of the training split."""
        values = np.full((len(self._numbers), 1), np.nan)
        values[self.rows] = self._numbers[splits.rows("train")].mean()
        return Said(values, ())

    def score(self, said: Said) -> Scored:
        """See `Judge`."""
        predicted = self.test.mean(said.values[self.test.rows])[:, 0]
        boot = bootstrap_numbers(self._numbers[self.test.first], predicted, self._resamples)
        return Scored(boot.point, boot.samples, {self.outputs[0]: float(boot.point[0])})


def judge_of(setup: Setup, resamples: int, seed: int) -> Judge:
    """The judge of a task.

    Raises:
        DataError: if nothing of it can be judged.
    """
    kind = LabelsJudge if isinstance(setup.task, MultilabelTask) else NumbersJudge
    return kind(setup, resamples, seed)
