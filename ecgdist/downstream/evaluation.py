"""An evaluation: the probe on a pretrained encoder beside the same probe on an untrained one, with its proof.

A random encoder is a strong control: on many tasks its features come close to pretrained ones, so the number
that matters is the difference, on the same test patients and the same resamples of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict
from rich.table import Table

from ecgdist.corpus.splits import SPLITS
from ecgdist.downstream.metrics import (
    BOOTSTRAP_METHOD,
    FEW_POSITIVES,
    Bootstrap,
    Figure,
    LabelFigures,
    Macro,
    Metrics,
    bootstrap,
    paired_difference,
    summarise,
)
from ecgdist.downstream.probe import ProbeResult, linear_probe
from ecgdist.downstream.scores import METRICS, BoolArray
from ecgdist.downstream.tasks import Splits, Task, patients_of, targets

SMALL_TEST_RECORDS = 500

Features = npt.NDArray[np.floating]


class Provenance(BaseModel):
    """What a figure was made from."""

    model_config = ConfigDict(frozen=True)

    corpus_id: str
    model_hash: str
    seeds: dict[str, int]


class SplitSize(BaseModel):
    """How much data one split holds."""

    model_config = ConfigDict(frozen=True)

    records: int
    patients: int


class Arm(BaseModel):
    """The probe on one encoder's features."""

    model_config = ConfigDict(frozen=True)

    metrics: Metrics
    inverse_regularisation: float
    validation_auroc: float


class Evaluation(BaseModel):
    """The figures of one model on one task, and all that is needed to trust or repeat them.

    Attributes:
        task: name of the task.
        title: what the task is.
        mode: ``"linear"``.
        counts: records and patients of each split.
        excluded: rows of the index that take no part, by reason.
        split_note: which folds were used.
        split_digest: SHA-256 of who is in which split.
        provenance: corpus, model and seeds.
        method: how the intervals were made.
        pretrained: the probe on the pretrained encoder.
        random_encoder: the same probe on an encoder with untrained weights.
        difference: pretrained minus random encoder, paired, over all labels that have figures.
        difference_common: the same over labels with at least `FEW_POSITIVES` test positives, if any.
        warnings: sentences that a reader must see beside the figures.
    """

    model_config = ConfigDict(frozen=True)

    task: str
    title: str
    mode: str
    counts: dict[str, SplitSize]
    excluded: dict[str, int]
    split_note: str
    split_digest: str
    provenance: Provenance
    method: str
    pretrained: Arm
    random_encoder: Arm
    difference: Macro
    difference_common: Macro | None
    warnings: tuple[str, ...]

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
            note = f", {len(ours.macro_common.labels)} labels with {FEW_POSITIVES} or more positives"
            kinds.append((note, ours.macro_common, other.macro_common, self.difference_common))
        return [
            (f"macro {name.upper()}{note}", (getattr(a, name), getattr(b, name), getattr(c, name)))
            for note, a, b, c in kinds
            for name in METRICS
        ]

    def to_table(self) -> Table:
        """The figures as a table for the console."""
        size = self.counts["test"]
        table = Table(
            title=f"{self.title}, linear probe: {size.records} test records of {size.patients} patients",
            caption="\n".join((self.method, *self.warnings)),
            caption_justify="left",
        )
        table.add_column("")
        table.add_column("test positives", justify="right")
        for column in ("pretrained", "random encoder", "difference"):
            table.add_column(column, justify="right")
        for name, macros in self.macro_rows():
            table.add_row(name, "", *map(str, macros))
        for few in (False, True):
            table.add_section()
            for ours, other in self.pairs():
                if (ours.label in self.pretrained.metrics.few) == few:
                    difference = f"{ours.auroc.value - other.auroc.value:+.3f}"
                    cells = (str(ours.positives), str(ours.auroc), str(other.auroc), difference)
                    table.add_row(f"{ours.label} AUROC{' (few positives)' if few else ''}", *cells)
        return table


def compare(
    index: pd.DataFrame,
    task: Task,
    splits: Splits,
    pretrained: Features,
    random_encoder: Features,
    provenance: Provenance,
    resamples: int = 1000,
    seed: int = 0,
) -> Evaluation:
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

    Raises:
        DataError: if a label cannot be fitted or judged; see `linear_probe` and `summarise`.
    """
    truth = targets(index, task)[0]
    labels = tuple(task.labels)
    probes = [probe(features, truth, splits, labels) for features in (pretrained, random_encoder)]
    # Which labels can be fitted depends on the truth alone, so both probes have the same ones.
    fitted = probes[0].labels
    test = splits.rows("test")
    judged = truth[test][:, [labels.index(label) for label in fitted]]
    groups = patients_of(index)[test].tolist()
    ours, other = (bootstrap(judged, p.test, p.thresholds, groups, resamples, seed) for p in probes)
    arms = [_arm(found, boot, judged) for found, boot in zip(probes, (ours, other), strict=True)]
    metrics = arms[0].metrics
    common = metrics.macro_common
    counts = split_sizes(index, splits)
    return Evaluation(
        task=task.name,
        title=task.title,
        mode="linear",
        counts=counts,
        excluded=splits.excluded,
        split_note=splits.note,
        split_digest=splits.digest,
        provenance=provenance.model_copy(update={"seeds": provenance.seeds | {"bootstrap": seed}}),
        method=f"{resamples} resamples: {BOOTSTRAP_METHOD}",
        pretrained=arms[0],
        random_encoder=arms[1],
        difference=paired_difference(ours, other, fitted, metrics.macro.labels),
        difference_common=paired_difference(ours, other, fitted, common.labels) if common else None,
        warnings=_warnings(splits, counts["test"], probes[0].left_out, metrics),
    )


def probe(features: Features, truth: BoolArray, splits: Splits, labels: Sequence[str]) -> ProbeResult:
    """The linear probe on ``(n, dim)`` features and ``(n, labels)`` truth of every row of an index."""
    train, validation, test = map(splits.rows, SPLITS)
    return linear_probe(
        features[train], truth[train], features[validation], truth[validation], features[test], labels
    )


def split_sizes(index: pd.DataFrame, splits: Splits) -> dict[str, SplitSize]:
    """How much data each split holds."""
    return {split: _size(index[splits.rows(split)]) for split in SPLITS}


def _arm(found: ProbeResult, boot: Bootstrap, truth: BoolArray) -> Arm:
    return Arm(
        metrics=summarise(boot, truth, found.thresholds, found.labels),
        inverse_regularisation=found.inverse_regularisation,
        validation_auroc=found.validation_auroc,
    )


def _size(rows: pd.DataFrame) -> SplitSize:
    return SplitSize(records=rows["record_id"].nunique(), patients=patients_of(rows).nunique())


def _warnings(splits: Splits, test: SplitSize, left_out: dict[str, str], metrics: Metrics) -> tuple[str, ...]:
    found = []
    if test.records < SMALL_TEST_RECORDS:
        found.append(
            f"the sample is small: {test.records} test records of {test.patients} patients, so the intervals "
            "are wide; these figures show that the path works, not how good the model is"
        )
    if not splits.official:
        found.append(splits.note)
    found.extend(f"label {label} is left out: {reason}" for label, reason in left_out.items())
    if metrics.one_class:
        found.append(f"no figures for {', '.join(metrics.one_class)}: all test records are alike in them")
    if metrics.few:
        found.append(f"fewer than {FEW_POSITIVES} test positives: {', '.join(metrics.few)}")
    if metrics.incomplete_resamples:
        found.append(
            f"{metrics.incomplete_resamples} of {metrics.resamples} resamples lack positives or negatives of "
            "a label, which is left out of their macro mean"
        )
    return tuple(found)
