"""Predictors of one task, judged and compared: from predictions to the figures of a benchmark."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ecgdist.downstream.assign import Splits
from ecgdist.downstream.benchmark.config import Cell
from ecgdist.downstream.benchmark.judge import Judge, Said, Scored, mean_of_scores
from ecgdist.downstream.benchmark.result import Predictor, TaskResult, Way, WayDifference
from ecgdist.downstream.bootstrap import Figure, figure, holm, p_value
from ecgdist.downstream.evaluation import common_warnings
from ecgdist.downstream.judged import split_sizes
from ecgdist.downstream.pairs import too_few_resamples


@dataclass(frozen=True)
class Made:
    """A predictor with what it says.

    Attributes:
        splits: with the labels that it was given.
        said: its predictions.
        model_hash: of its encoder; None if there is none, since it could learn nothing.
        classifier_sha256: of encoder and head, if it was trained.
        command: evaluates it alone.
    """

    splits: Splits
    said: Said
    model_hash: str | None
    classifier_sha256: str | None
    command: str


def task_result(
    judge: Judge, made: Mapping[Cell, Made | str], resamples: int, warnings: Sequence[str] = ()
) -> TaskResult:
    """Judge and compare.

    Args:
        judge: of the task.
        made: all predictors, or for one that could not be made, why.
        resamples: of the bootstrap.
        warnings: of the model that a reader must see.
    """
    setup = judge.setup
    scores = {cell: judge.score(each.said) for cell, each in made.items() if isinstance(each, Made)}
    groups: dict[tuple[float, str], list[Cell]] = {}
    for cell in made:
        groups.setdefault((cell.share, cell.mode), []).append(cell)
    means: dict[tuple[float, str], Scored] = {}
    ways = []
    for (share, mode), cells in groups.items():
        whole = all(cell in scores for cell in cells)
        if whole:
            means[share, mode] = mean_of_scores([scores[cell] for cell in cells])
        ways.append(
            Way(
                mode=mode,
                share=share,
                figures=_figures(judge, means[share, mode]) if whole else {},
                predictors=tuple(
                    _predictor(judge, cell, made[cell], scores[cell]) for cell in cells if cell in scores
                ),
                error=None if whole else next(str(made[cell]) for cell in cells if cell not in scores),
            )
        )
    differences = _differences(means)
    counts = split_sizes(setup.index, setup.splits)
    return TaskResult(
        task=setup.task.name,
        title=setup.task.title,
        task_digest=setup.task_digest,
        metrics=judge.metrics,
        titles=judge.titles,
        higher_is_better=judge.sign > 0,
        outputs=judge.outputs,
        left_out=judge.left_out,
        counts=counts,
        split_note=setup.splits.note,
        split_digest=setup.splits.digest,
        method=judge.method,
        ways=tuple(ways),
        differences=differences,
        warnings=(
            *warnings,
            *setup.open_questions,
            *common_warnings(setup.splits, counts["test"]),
            *judge.notes,
            *too_few_resamples(len(differences), resamples),
        ),
    )


def _figures(judge: Judge, scored: Scored) -> dict[str, Figure]:
    return {
        name: figure(float(scored.point[number]), scored.samples[:, number])
        for number, name in enumerate(judge.metrics)
    }


def _predictor(judge: Judge, cell: Cell, made: Made | str, scored: Scored) -> Predictor:
    assert isinstance(made, Made)
    return Predictor(
        seed=cell.seed,
        training=split_sizes(judge.setup.index, made.splits)["train"],
        split_digest=made.splits.digest,
        model_hash=made.model_hash,
        classifier_sha256=made.classifier_sha256,
        learned=made.said.learned,
        figures=dict(zip(judge.metrics, scored.point.tolist(), strict=True)),
        by_output=scored.by_output,
        command=made.command,
    )


def _differences(means: Mapping[tuple[float, str], Scored]) -> tuple[WayDifference, ...]:
    """Of all pairs of modes with the same share of labels, with p-values that are corrected for their number."""
    pairs = [(one, other) for one, other in itertools.combinations(means, 2) if one[0] == other[0]]
    samples = [(means[one].samples - means[other].samples)[:, 0] for one, other in pairs]
    p_values = [p_value(each) for each in samples]
    return tuple(
        WayDifference(
            share=one[0],
            mode=one[1],
            other=other[1],
            difference=figure(float(means[one].point[0] - means[other].point[0]), each),
            p_value=p,
            p_holm=corrected,
        )
        for (one, other), each, p, corrected in zip(pairs, samples, p_values, holm(p_values), strict=True)
    )
