"""The evaluation of labels: the probe on a pretrained encoder beside the same probe on an untrained one."""

from __future__ import annotations

from typing import Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ecgdist.downstream.assign import Splits
from ecgdist.downstream.bootstrap import P_METHOD, Figure
from ecgdist.downstream.calibration import Reliability, reliability
from ecgdist.downstream.evaluation import (
    Evaluation,
    Features,
    Provenance,
    common_fields,
    no_subgroups,
    small_note,
)
from ecgdist.downstream.judged import Records
from ecgdist.downstream.label_judge import LabelJudge, label_warnings, probe
from ecgdist.downstream.metrics import (
    BOOTSTRAP_METHOD,
    FEW_POSITIVES,
    LabelFigures,
    Macro,
    Metrics,
    paired_difference,
)
from ecgdist.downstream.outcome import Compared, Judged
from ecgdist.downstream.predictions import PRETRAINED, RANDOM_ENCODER, Predictions
from ecgdist.downstream.probe import LabelPredictions
from ecgdist.downstream.scores import METRICS, SPECIFICITY
from ecgdist.downstream.subgroups import LabelSubgroup, label_subgroups
from ecgdist.downstream.tasks import MultilabelTask

_SHORT = {"sensitivity": "sens.", "specificity": "spec."}


class Arm(BaseModel):
    """One predictor: the probe on an encoder's features, or a trained readout, which has no regularisation."""

    model_config = ConfigDict(frozen=True)

    metrics: Metrics
    inverse_regularisation: float | None
    validation_auroc: float


class MultilabelEvaluation(Evaluation):
    """The figures of one model on one set of labels.

    Attributes:
        specificity: on validation, at which sensitivity is reported.
        pretrained: the probe on the pretrained encoder.
        random_encoder: the same probe on an encoder with untrained weights.
        difference: pretrained minus random encoder, paired, over all labels that have figures.
        difference_common: the same over labels with at least `FEW_POSITIVES` test positives, if any.
        subgroups: of the test records, by the pretrained encoder.
        reliability: of the pretrained encoder's probe, one diagram per label that has figures.
    """

    kind: Literal["multilabel"] = "multilabel"
    specificity: float
    pretrained: Arm
    random_encoder: Arm
    difference: Macro
    difference_common: Macro | None
    subgroups: tuple[LabelSubgroup, ...]
    reliability: tuple[Reliability, ...]

    def pairs(self) -> list[tuple[LabelFigures, LabelFigures]]:
        """The figures of each label: pretrained, random encoder."""
        return list(zip(self.pretrained.metrics.labels, self.random_encoder.metrics.labels, strict=True))

    def macro_rows(self) -> list[tuple[str, tuple[Figure, Figure, Figure]]]:
        """Name, and pretrained, random encoder and difference, of each macro mean.

        The means without the labels with few positives are among them if there are such labels.
        """
        ours, other = self.pretrained.metrics, self.random_encoder.metrics
        kinds = [("", ours.macro, other.macro, self.difference)]
        if ours.few and ours.macro_common and other.macro_common and self.difference_common:
            kinds.append(
                (
                    f", {FEW_POSITIVES}+ positives",
                    ours.macro_common,
                    other.macro_common,
                    self.difference_common,
                )
            )
        return [
            (f"macro {_title(name)}{note}", (getattr(a, name), getattr(b, name), getattr(c, name)))
            for note, a, b, c in kinds
            for name in METRICS
        ]

    def tables(self) -> list[Table]:
        """Macro means, labels and subgroups."""
        macros = Table(title=Text(self.headline), caption=Text(self._caption), caption_justify="left")
        macros.add_column("")
        for column in (*self.arms, "difference"):
            macros.add_column(column, justify="right")
        for name, figures in self.macro_rows():
            macros.add_row(name, *map(str, figures))
        return [macros, self._labels_table(), *self._subgroups_tables()]

    @property
    def _caption(self) -> str:
        return "\n".join(
            (
                f"{self.method}. {self._common_note}Sensitivity and specificity at the threshold with a specificity of "
                f"{self.specificity:g} on validation, F1 at the one with the highest F1 there.",
                f"Difference of macro AUROC: p = {self.p_value:.3f} ({P_METHOD}).",
                *self.warnings,
                *([] if self.subgroups else [no_subgroups(self.small_subgroups)]),
            )
        )

    @property
    def _common_note(self) -> str:
        common = self.pretrained.metrics.macro_common
        if not self.pretrained.metrics.few or common is None:
            return ""
        return (
            f"{FEW_POSITIVES}+ positives: over the {len(common.labels)} labels with as many test positives. "
        )

    def _labels_table(self) -> Table:
        table = Table(
            title=f"by label, {self.arms[0]} encoder; the last column is the random encoder's AUROC",
            caption=f"few: fewer than {FEW_POSITIVES} test positives" if self.pretrained.metrics.few else "",
            caption_justify="left",
        )
        table.add_column("label")
        for column in ("positives", *(_SHORT.get(name, _title(name)) for name in METRICS), "random"):
            table.add_column(column, justify="right")
        for few in (False, True):
            table.add_section()
            for ours, other in self.pairs():
                if (ours.label in self.pretrained.metrics.few) == few:
                    name = f"{escape(ours.label)}{' (few)' if few else ''}"
                    rest = [f"{getattr(ours, metric).value:.3f}" for metric in METRICS[1:]]
                    table.add_row(
                        name, str(ours.positives), str(ours.auroc), *rest, f"{other.auroc.value:.3f}"
                    )
        return table

    def _subgroups_tables(self) -> list[Table]:
        """None if all subgroups are too small, which the caption of the first table says."""
        if not self.subgroups:
            return []
        table = Table(
            title=f"by subgroup, macro AUROC of the {self.arms[0]} encoder",
            caption=Text(small_note(self.small_subgroups)),
            caption_justify="left",
        )
        table.add_column("")
        for column in ("records", "patients", "labels", "subgroup", "all records, these labels"):
            table.add_column(column, justify="right")
        for group in self.subgroups:
            cells = (str(group.records), str(group.patients), str(len(group.labels)))
            table.add_row(
                escape(f"{group.attribute} {group.group}"), *cells, str(group.auroc), f"{group.everyone:.3f}"
            )
        return [table]

    def sentences(self) -> list[str]:
        """The two macro AUROCs, and whether they differ."""
        ours, other = self.pretrained.metrics.macro.auroc, self.random_encoder.metrics.macro.auroc
        difference = self.difference.auroc
        if difference.low > 0:
            verdict = f"the {self.arms[0]} encoder is the better one on this test set"
        elif difference.high < 0:
            verdict = "the untrained encoder is the better one on this test set"
        else:
            verdict = "which this test set is too small to tell from zero"
        return [
            f"{self.predictor} on {self.task} reaches a macro AUROC of {ours} on {self.counts['test'].records:,} test "
            f"records, {self.control} on the untrained encoder {other} (95 % intervals).",
            f"The paired difference is {difference}: {verdict}.",
        ]


def compare_labels(
    index: pd.DataFrame,
    task: MultilabelTask,
    splits: Splits,
    pretrained: Features,
    random_encoder: Features,
    provenance: Provenance,
    resamples: int = 1000,
    seed: int = 0,
    specificity: float = SPECIFICITY,
) -> Compared[MultilabelEvaluation]:
    """Probe two encoders on the same records.

    Args:
        index: the index of the corpus, ``n`` rows.
        task: what to predict.
        splits: from `assign_splits` of the same index and task.
        pretrained: ``(n, dim)`` features of every row; those of rows without a split are not read.
        random_encoder: ``(n, dim)`` features by an encoder with untrained weights.
        provenance: what the features were made from.
        resamples: bootstrap resamples.
        seed: seed of the bootstrap.
        specificity: on validation, at which sensitivity is reported.

    Raises:
        DataError: if a label cannot be fitted or judged; see `linear_probe` and `summarise`.
    """
    truth, labels = task.truth(index), tuple(task.labels)
    ours, other = (probe(features, truth, splits, labels) for features in (pretrained, random_encoder))
    judged = judge_labels(index, task, splits, ours, other, provenance, resamples, seed, specificity)
    records = Records.of(index, splits, "test")
    return Compared(
        evaluation=judged.evaluation,
        predictions=judged.predictions,
        embeddings=records.mean(pretrained[records.rows]),
        head=ours.predict,
    )


def judge_labels(
    index: pd.DataFrame,
    task: MultilabelTask,
    splits: Splits,
    ours: LabelPredictions,
    other: LabelPredictions,
    provenance: Provenance,
    resamples: int = 1000,
    seed: int = 0,
    specificity: float = SPECIFICITY,
    mode: str = "linear",
) -> Judged[MultilabelEvaluation]:
    """Judge two predictors by what they say of the same validation and test rows.

    Args:
        index, task, splits, provenance, resamples, seed, specificity: as of `compare_labels`.
        ours: predictions of the pretrained encoder.
        other: of the untrained one, of the same labels.
        mode: how `ours` were made.

    Raises:
        DataError: if a label cannot be judged; see `summarise`.
    """
    assert ours.labels == other.labels, "predictors of other labels cannot be compared"
    truth, labels = task.truth(index), tuple(task.labels)
    fitted = ours.labels
    kept = truth[:, [labels.index(label) for label in fitted]]
    judge = LabelJudge.of(index, splits, kept, fitted, resamples, seed, specificity)
    (boot, cuts), (other_boot, other_cuts) = (judge.bootstrap(e.validation, e.test) for e in (ours, other))
    arms = [_arm(ours, judge.summarise(boot, cuts)), _arm(other, judge.summarise(other_boot, other_cuts))]
    metrics = arms[0].metrics
    common = metrics.macro_common
    difference, p_value = paired_difference(boot, other_boot, fitted, metrics.macro.labels)
    score = judge.test.mean(ours.test)
    groups, small = label_subgroups(judge.test.facts(index), judge.truth, score, fitted, judge.resamples)
    method = f"{resamples} resamples: {BOOTSTRAP_METHOD}"
    warnings = label_warnings(ours.left_out, metrics)
    evaluation = MultilabelEvaluation(
        **common_fields(index, task, splits, provenance, method, seed, warnings, mode),
        p_value=p_value,
        specificity=specificity,
        pretrained=arms[0],
        random_encoder=arms[1],
        difference=difference,
        difference_common=paired_difference(boot, other_boot, fitted, common.labels)[0] if common else None,
        subgroups=groups,
        small_subgroups=small,
        reliability=tuple(
            reliability(judge.truth[:, fitted.index(row.label)], score[:, fitted.index(row.label)], row.label)
            for row in metrics.labels
        ),
    )
    scores = {PRETRAINED: score, RANDOM_ENCODER: judge.test.mean(other.test)}
    return Judged(evaluation, Predictions.of(index, judge.test, fitted, judge.truth, scores, cuts.f1))


def _arm(found: LabelPredictions, metrics: Metrics) -> Arm:
    return Arm(
        metrics=metrics,
        inverse_regularisation=found.inverse_regularisation,
        validation_auroc=found.validation_auroc,
    )


def _title(metric: str) -> str:
    """A metric's name for a reader."""
    return (
        metric if metric in ("sensitivity", "specificity") else {"brier": "Brier"}.get(metric, metric.upper())
    )
