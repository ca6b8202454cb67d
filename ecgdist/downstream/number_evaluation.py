"""The evaluation of a number: ridge regression on a pretrained encoder beside the same on an untrained one."""

from __future__ import annotations

from typing import Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ecgdist.corpus.splits import SPLITS
from ecgdist.downstream.assign import Splits
from ecgdist.downstream.bootstrap import P_METHOD, Figure, Resamples
from ecgdist.downstream.evaluation import (
    Evaluation,
    Features,
    Provenance,
    common_fields,
    no_subgroups,
    small_note,
)
from ecgdist.downstream.judged import Records
from ecgdist.downstream.outcome import Compared, Judged
from ecgdist.downstream.predictions import PRETRAINED, RANDOM_ENCODER, Predictions
from ecgdist.downstream.regression import (
    NUMBER_METHOD,
    NUMBER_METRICS,
    NumberFigures,
    bootstrap_numbers,
    number_difference,
    number_summary,
)
from ecgdist.downstream.ridge import NumberPredictions, ridge_probe
from ecgdist.downstream.subgroups import NumberSubgroup, number_subgroups
from ecgdist.downstream.tasks import RegressionTask, patients_of


class NumberArm(BaseModel):
    """One predictor: ridge regression on an encoder's features, or a trained readout, which has no regularisation."""

    model_config = ConfigDict(frozen=True)

    metrics: NumberFigures
    regularisation: float | None
    validation_rmse: float


class RegressionEvaluation(Evaluation):
    """The figures of one model on one number.

    Attributes:
        target: what is predicted.
        unit: of it, and of `mae` and `rmse`.
        resamples: number of bootstrap resamples.
        pretrained: ridge regression on the pretrained encoder.
        random_encoder: the same on an encoder with untrained weights.
        difference: pretrained minus random encoder, paired; a lower error is better.
        subgroups: of the test records, by the pretrained encoder.
    """

    kind: Literal["regression"] = "regression"
    target: str
    unit: str
    resamples: int
    pretrained: NumberArm
    random_encoder: NumberArm
    difference: NumberFigures
    subgroups: tuple[NumberSubgroup, ...]

    def rows(self) -> list[tuple[str, tuple[Figure, Figure, Figure]]]:
        """Name, and pretrained, random encoder and difference, of each metric."""
        arms = (self.pretrained.metrics, self.random_encoder.metrics, self.difference)
        names = {"mae": f"MAE ({self.unit})", "rmse": f"RMSE ({self.unit})", "r2": "R²"}
        return [
            (names[metric], (getattr(arms[0], metric), getattr(arms[1], metric), getattr(arms[2], metric)))
            for metric in NUMBER_METRICS
        ]

    def tables(self) -> list[Table]:
        """All figures, and the subgroups."""
        note = f"Difference of MAE: p = {self.p_value:.3f} ({P_METHOD})."
        missing = [] if self.subgroups else [no_subgroups(self.small_subgroups)]
        figures = Table(
            title=Text(self.headline),
            caption=Text("\n".join((f"{self.method}.", note, *self.warnings, *missing))),
            caption_justify="left",
        )
        figures.add_column("")
        for column in (*self.arms, "difference"):
            figures.add_column(column, justify="right")
        for name, cells in self.rows():
            figures.add_row(escape(name), *map(str, cells))
        return [figures, *([self._subgroups_table()] if self.subgroups else [])]

    def _subgroups_table(self) -> Table:
        groups = Table(
            title=Text(f"by subgroup, MAE ({self.unit}) of the {self.arms[0]} encoder"),
            caption=Text(small_note(self.small_subgroups)),
            caption_justify="left",
        )
        groups.add_column("")
        for column in ("records", "patients", "MAE"):
            groups.add_column(column, justify="right")
        for group in self.subgroups:
            row = escape(f"{group.attribute} {group.group}")
            groups.add_row(row, str(group.records), str(group.patients), str(group.mae))
        return groups

    def sentences(self) -> list[str]:
        """The two mean absolute errors, and whether they differ."""
        difference = self.difference.mae
        if difference.high < 0:
            verdict = f"the {self.arms[0]} encoder is the better one on this test set"
        elif difference.low > 0:
            verdict = "the untrained encoder is the better one on this test set"
        else:
            verdict = "which this test set is too small to tell from zero"
        ours = f"{self.pretrained.metrics.mae} {self.unit}"
        return [
            f"{self.predictor} on {self.task} has a mean absolute error of {ours} on "
            f"{self.counts['test'].records:,} test records, {self.control} on the untrained encoder "
            f"{self.random_encoder.metrics.mae} (95 % intervals).",
            f"The paired difference is {difference}: {verdict}.",
        ]


def compare_numbers(
    index: pd.DataFrame,
    task: RegressionTask,
    splits: Splits,
    pretrained: Features,
    random_encoder: Features,
    provenance: Provenance,
    resamples: int = 1000,
    seed: int = 0,
) -> Compared[RegressionEvaluation]:
    """Probe two encoders on the same records; arguments as of `compare_labels`.

    Raises:
        DataError: if a feature is not finite, or all test records have one number.
    """
    numbers = task.numbers(index)
    train, validation, test = map(splits.rows, SPLITS)
    ours, other = (
        ridge_probe(each[train], numbers[train], each[validation], numbers[validation], each[test])
        for each in (pretrained, random_encoder)
    )
    judged = judge_numbers(index, task, splits, ours, other, provenance, resamples, seed)
    return Compared(
        evaluation=judged.evaluation,
        predictions=judged.predictions,
        embeddings=Records.of(index, splits, "test").mean(pretrained[test]),
        head=lambda features: ours.predict(features)[:, None],
    )


def judge_numbers(
    index: pd.DataFrame,
    task: RegressionTask,
    splits: Splits,
    ours: NumberPredictions,
    other: NumberPredictions,
    provenance: Provenance,
    resamples: int = 1000,
    seed: int = 0,
    mode: str = "linear",
) -> Judged[RegressionEvaluation]:
    """Judge two predictors of a number; arguments as of `judge_labels`.

    Raises:
        DataError: if all test records have one number.
    """
    numbers = task.numbers(index)
    records = Records.of(index, splits, "test")
    facts, truth = records.facts(index), numbers[records.first]
    drawn = Resamples.of(patients_of(facts).tolist(), resamples, seed)
    predicted = [records.mean(each.test) for each in (ours, other)]
    boot, other_boot = (bootstrap_numbers(truth, each, drawn) for each in predicted)
    difference, p_value = number_difference(boot, other_boot)
    groups, small = number_subgroups(facts, truth, predicted[0], drawn)
    method = f"{resamples} resamples: {NUMBER_METHOD}"
    evaluation = RegressionEvaluation(
        **common_fields(index, task, splits, provenance, method, seed, mode=mode),
        p_value=p_value,
        target=task.target,
        unit=task.unit,
        resamples=resamples,
        pretrained=_arm(ours, number_summary(boot)),
        random_encoder=_arm(other, number_summary(other_boot)),
        difference=difference,
        subgroups=groups,
        small_subgroups=small,
    )
    numbered = {
        name: each[:, None] for name, each in zip((PRETRAINED, RANDOM_ENCODER), predicted, strict=True)
    }
    return Judged(evaluation, Predictions.of(index, records, [task.target], truth[:, None], numbered))


def _arm(found: NumberPredictions, metrics: NumberFigures) -> NumberArm:
    return NumberArm(
        metrics=metrics, regularisation=found.regularisation, validation_rmse=found.validation_rmse
    )
