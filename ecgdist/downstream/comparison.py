"""Several ways of pretraining, judged by the same probe on the same test patients and the same resamples of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict
from rich.table import Table

from ecgdist.downstream.evaluate import Setup
from ecgdist.downstream.evaluation import SMALL_TEST_RECORDS, Features
from ecgdist.downstream.judged import SplitSize, split_sizes
from ecgdist.downstream.label_judge import LabelJudge, probe
from ecgdist.downstream.metrics import (
    BOOTSTRAP_METHOD,
    FEW_POSITIVES,
    Bootstrap,
    Macro,
    macro,
    mean_of,
)
from ecgdist.downstream.pairs import PAIR_COLUMNS, Difference, all_differences, p_note, too_few_resamples
from ecgdist.downstream.retrieval import Retrieval
from ecgdist.downstream.scores import SPECIFICITY
from ecgdist.downstream.tasks import MultilabelTask
from ecgdist.errors import DataError


@dataclass(frozen=True)
class Candidate:
    """One encoder to be judged.

    Attributes:
        arm: the way it was pretrained.
        seed: of that.
        model_hash: of the encoder.
        retrieval: how often its embedding knew a recording again; None where that could not be tried.
        warnings: sentences about it that a reader must see.
    """

    arm: str
    seed: int
    model_hash: str
    retrieval: Retrieval | None
    warnings: tuple[str, ...] = ()


class Training(BaseModel):
    """What the pretraining of an arm took, medians over its seeds."""

    model_config = ConfigDict(frozen=True)

    ecg_per_s: float
    minutes: float


class ArmResult(BaseModel):
    """The figures of one arm.

    Attributes:
        arm: its name.
        objective: what it learned by; None for encoders that were not pretrained.
        seeds: of its encoders.
        macro: means over the seeds, with intervals over test patients.
        auroc_by_seed: macro AUROC of each seed.
        retrieval_by_seed: share of recordings whose other half was the nearest of its batch, for each seed.
        model_hashes: of the encoders.
        training: what it took, for arms that were pretrained.
    """

    model_config = ConfigDict(frozen=True)

    arm: str
    objective: dict[str, Any] | None
    seeds: tuple[int, ...]
    macro: Macro
    auroc_by_seed: tuple[float, ...]
    retrieval_by_seed: tuple[float, ...] | None
    model_hashes: tuple[str, ...]
    training: Training | None


class Comparison(BaseModel):
    """Arms beside each other, and all that is needed to trust or repeat their figures."""

    model_config = ConfigDict(frozen=True)

    task: str
    title: str
    counts: dict[str, SplitSize]
    split_note: str
    split_digest: str
    corpus_id: str
    pretraining: dict[str, Any]
    method: str
    retrieval_batch: int | None
    arms: tuple[ArmResult, ...]
    differences: tuple[Difference, ...]
    warnings: tuple[str, ...]

    def rows(self) -> list[tuple[str, ...]]:
        """The cells of the table of arms, a row each, below those of `COLUMNS`."""
        return [_cells(arm) for arm in self.arms]

    def tables(self) -> list[Table]:
        """The figures as tables for the console."""
        size = self.counts["test"]
        chance = (
            "" if self.retrieval_batch is None else f"Retrieval: chance is {1 / self.retrieval_batch:.3f}."
        )
        arms = Table(
            title=f"{self.title}, linear probe: {size.records} test records of {size.patients} patients",
            caption="\n".join(filter(None, (f"Means over seeds. {self.method}", chance, *self.warnings))),
            caption_justify="left",
        )
        for number, column in enumerate(COLUMNS):
            arms.add_column(column, justify="left" if number == 0 else "right")
        for row in self.rows():
            arms.add_row(*row)
        pairs = Table(
            title="differences of macro AUROC, paired",
            caption=p_note(len(self.differences)),
            caption_justify="left",
        )
        for column in PAIR_COLUMNS:
            pairs.add_column(column, justify="right" if column else "left")
        for pair in self.differences:
            pairs.add_row(*pair.cells())
        return [arms, pairs]

    def to_markdown(self) -> str:
        """The same as a text."""
        lines = [
            f"# {self.title}: ways of pretraining",
            f"Linear probe, {self.counts['test'].records} test records of {self.counts['test'].patients} patients. "
            f"Means over seeds. {self.method}.",
            _markdown(COLUMNS, self.rows()),
            "Differences of macro AUROC, paired:",
            _markdown(PAIR_COLUMNS, [pair.cells() for pair in self.differences]),
            p_note(len(self.differences)),
            *(f"* {warning}" for warning in self.warnings),
        ]
        return "\n\n".join(lines) + "\n"


COLUMNS = ("", "macro AUROC", "by seed", "macro AUPRC", "retrieval", "ECG/s", "minutes")


def compare_arms(
    setup: Setup,
    candidates: Iterable[tuple[Candidate, Features]],
    objectives: Mapping[str, dict[str, Any] | None],
    training: Mapping[str, Training],
    pretraining: dict[str, Any],
    resamples: int = 1000,
    seed: int = 0,
    specificity: float = SPECIFICITY,
) -> Comparison:
    """Probe every candidate, and compare the arms.

    Args:
        setup: who is judged on what.
        candidates: all arms with all seeds, and the ``(n, dim)`` features of every row of the index (those of rows
            without a split are not read), which are let go before the next one is asked for.
        objectives: of the arms, in the order in which they are shown.
        training: of the arms that were pretrained.
        pretraining: the configuration that all arms share.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        specificity: on validation, at which sensitivity is reported.

    Raises:
        DataError: if a label cannot be fitted or judged.
    """
    splits = setup.splits
    judged = _judge(setup, candidates, objectives, resamples, seed, specificity)
    missing = [arm for arm, encoders in judged.arms.items() if not encoders]
    if missing:
        raise DataError(f"no encoder of {', '.join(missing)} was given")
    fitted, among = judged.fitted, judged.among
    means = {arm: mean_of([boot for _, boot in encoders]) for arm, encoders in judged.arms.items()}
    everyone = [one for encoders in judged.arms.values() for one, _ in encoders]
    said = dict.fromkeys([*setup.open_questions, *(text for one in everyone for text in one.warnings)])
    counts = split_sizes(setup.index, splits)
    differences = all_differences(list(objectives), means, fitted, among)
    return Comparison(
        task=setup.task.name,
        title=setup.task.title,
        counts=counts,
        split_note=splits.note,
        split_digest=splits.digest,
        corpus_id=setup.corpus.corpus_id,
        pretraining=pretraining,
        method=f"{resamples} resamples: {BOOTSTRAP_METHOD}",
        retrieval_batch=next((one.retrieval.batch for one in everyone if one.retrieval), None),
        arms=tuple(_arm(arm, objectives[arm], judged, means[arm], training.get(arm)) for arm in objectives),
        differences=differences,
        warnings=(
            *said,
            *_warnings(counts["test"], splits.note, splits.official, judged.few),
            *too_few_resamples(len(differences), resamples),
        ),
    )


@dataclass(frozen=True)
class _Judged:
    """All encoders by arm with their bootstraps, and the labels fitted, with figures, and with few positives."""

    arms: dict[str, list[tuple[Candidate, Bootstrap]]]
    fitted: tuple[str, ...]
    among: tuple[str, ...]
    few: tuple[str, ...]


def _judge(
    setup: Setup,
    candidates: Iterable[tuple[Candidate, Features]],
    arms: Iterable[str],
    resamples: int,
    seed: int,
    specificity: float,
) -> _Judged:
    """Probe every candidate on the same test patients."""
    assert isinstance(setup.task, MultilabelTask), "only tasks with labels are compared"
    truth, labels = setup.task.truth(setup.index), tuple(setup.task.labels)
    found: dict[str, list[tuple[Candidate, Bootstrap]]] = {arm: [] for arm in arms}
    judge: LabelJudge | None = None
    few: tuple[str, ...] = ()
    among: tuple[str, ...] = ()
    for candidate, features in candidates:
        result = probe(features, truth, setup.splits, labels)
        if judge is None:
            # Which labels can be fitted and judged depends on the truth alone, so all probes have the same ones.
            kept = truth[:, [labels.index(label) for label in result.labels]]
            judge = LabelJudge.of(
                setup.index, setup.splits, kept, result.labels, resamples, seed, specificity
            )
        boot, thresholds = judge.bootstrap(result.validation, result.test)
        if not among:
            metrics = judge.summarise(boot, thresholds)
            among, few = metrics.macro.labels, metrics.few
        found[candidate.arm].append((candidate, boot))
    return _Judged(found, judge.labels if judge else (), among, few)


def _arm(
    arm: str, objective: dict[str, Any] | None, judged: _Judged, mean: Bootstrap, training: Training | None
) -> ArmResult:
    fitted, among, encoders = judged.fitted, judged.among, judged.arms[arm]
    tops = [one.retrieval.top1 if one.retrieval else None for one, _ in encoders]
    return ArmResult(
        arm=arm,
        objective=objective,
        seeds=tuple(one.seed for one, _ in encoders),
        macro=macro(mean, fitted, among),
        auroc_by_seed=tuple(macro(boot, fitted, among).auroc.value for _, boot in encoders),
        retrieval_by_seed=tuple(top for top in tops if top is not None) if None not in tops else None,
        model_hashes=tuple(one.model_hash for one, _ in encoders),
        training=training,
    )


def _warnings(test: SplitSize, note: str, official: bool, few: Sequence[str]) -> list[str]:
    found = []
    if test.records < SMALL_TEST_RECORDS:
        found.append(
            f"the sample is small: {test.records} test records of {test.patients} patients, so the intervals are wide"
        )
    if not official:
        found.append(note)
    if few:
        found.append(f"fewer than {FEW_POSITIVES} test positives: {', '.join(few)}")
    return found


def _cells(arm: ArmResult) -> tuple[str, ...]:
    by_seed = " ".join(f"{value:.3f}" for value in arm.auroc_by_seed)
    retrieval = "-" if arm.retrieval_by_seed is None else f"{np.mean(arm.retrieval_by_seed):.3f}"
    cost = (
        ("-", "-")
        if arm.training is None
        else (f"{arm.training.ecg_per_s:,.0f}", f"{arm.training.minutes:.1f}")
    )
    return (arm.arm, str(arm.macro.auroc), by_seed, str(arm.macro.auprc), retrieval, *cost)


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
