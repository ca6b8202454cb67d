"""The report of a sweep: one HTML file that needs nothing else, made of what the sweep left in its folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from ecgdist.config import build
from ecgdist.downstream.evaluation import Evaluation
from ecgdist.downstream.finetuning.rivals import name_of, shown_by
from ecgdist.downstream.halving import HalvingConfig, Shown, rungs_between
from ecgdist.downstream.sweep.result import SweepResult, ranked, read_result
from ecgdist.downstream.sweep.space import Dimension, shown
from ecgdist.downstream.sweep.trial import Outcome
from ecgdist.errors import DataError
from ecgdist.report.curves import svg
from ecgdist.report.evaluation import text_without_folders, without_folders
from ecgdist.report.html import Image, data_uri, rendered
from ecgdist.report.sweep_plots import draw_learning, draw_parallel
from ecgdist.storage import Location

REPORT, SETTINGS = "report.html", "sweep.json"


@dataclass(frozen=True)
class TrialRow:
    """A trial as the table shows it.

    Attributes:
        number: of the trial.
        settings: those that differ, in the order of the space.
        value: of the validation split, or why there is none.
        step: of the checkpoint with that value.
        samples: ECGs that it had been trained on when it ended.
        is_chosen: whether it is the best one.
    """

    number: int
    settings: tuple[str, ...]
    value: str
    step: str
    samples: int | None
    is_chosen: bool


@dataclass(frozen=True)
class SweepReport:
    """Everything that a report of a sweep shows, without folders of this machine."""

    evaluation: Evaluation
    metric: str
    higher_is_better: bool
    search: str
    seed: int
    names: tuple[str, ...]
    trials: list[TrialRow]
    rungs: list[int]
    factor: int | None
    parallel: Image
    learning: Image
    best: dict[str, str]
    settings: str
    shared: str
    command: str
    figures: str

    @property
    def summary(self) -> str:
        """The sweep in words."""
        valued = sum(trial.step != "-" for trial in self.trials)
        chosen = next(trial for trial in self.trials if trial.is_chosen)
        said = "; ".join(f"{name} = {value}" for name, value in self.best.items())
        return (
            f"Of {len(self.trials)} trials, {valued} came to a figure. Trial {chosen.number} is the best by the "
            f"validation split, with {self.metric} {chosen.value} ({said}), and is the only one that was judged on the "
            "test split, once."
        )


def write_sweep_report(folder: Location) -> Location:
    """Write ``report.html`` into the folder of a finished sweep; returns where it is.

    Raises:
        DataError: if the sweep has not come to its end, or a file of it is damaged.
        StorageError: if something cannot be read or written.
    """
    found = read_result(folder)
    if found is None:
        raise DataError(f"{folder} is no finished sweep: it has no results.json; give `ecgdist sweep` again")
    target = folder / REPORT
    target.write_bytes(render(gathered(folder, found)).encode())
    return target


def render(report: SweepReport) -> str:
    """The report as HTML. Every text from outside is escaped."""
    return rendered("sweep.html", report=report, evaluation=report.evaluation, reliability=None)


def gathered(folder: Location, found: SweepResult) -> SweepReport:
    """Read what a sweep left, and draw it."""
    written = found.written
    asked = json.loads((folder / SETTINGS).read_bytes())
    space = {name: build(Dimension, each) for name, each in asked["space"].items()}
    outcomes = ranked(written.outcomes, written.mode)
    curves = {
        each.record.number: shown_by(folder / "trials" / name_of(each.record.number), written.metric)
        for each in outcomes
    }
    halving = build(HalvingConfig, asked["halving"]) if asked["halving"] is not None else None
    most = max((shown[-1][0] for shown in curves.values() if shown), default=0)
    rungs = rungs_between(0, most, halving) if halving else []
    chosen = next(each for each in outcomes if each.record.number == written.chosen)
    evaluation = without_folders(found.evaluation)
    return SweepReport(
        evaluation=evaluation,
        metric=written.metric,
        higher_is_better=written.mode == "max",
        search=asked["search"],
        seed=asked["seed"],
        names=tuple(space),
        trials=[_row(each, curves[each.record.number], written.chosen) for each in outcomes],
        rungs=rungs,
        factor=halving.factor if halving else None,
        parallel=_parallel(outcomes, space, written.metric, written.chosen),
        learning=_learning(outcomes, curves, rungs, written.metric, written.chosen),
        best=_named(chosen),
        settings=_yaml(written.settings),
        shared=_yaml(asked["finetune"]),
        command=text_without_folders(written.command),
        figures=data_uri("application/json", evaluation.model_dump_json(indent=1).encode()),
    )


def _row(each: Outcome, shown_by_it: Shown, chosen: int) -> TrialRow:
    return TrialRow(
        number=each.record.number,
        settings=tuple(map(text_without_folders, shown(each.record.values))),
        value=f"{each.value:.4f}"
        if each.value is not None
        else text_without_folders(each.error or "cut off"),
        step=f"{each.step:,}" if each.step is not None else "-",
        samples=shown_by_it[-1][0] if shown_by_it else None,
        is_chosen=each.record.number == chosen,
    )


def _named(each: Outcome) -> dict[str, str]:
    return dict(zip(each.record.values, map(text_without_folders, shown(each.record.values)), strict=True))


def _parallel(outcomes: Sequence[Outcome], space: dict[str, Dimension], metric: str, chosen: int) -> Image:
    valued = [each for each in outcomes if each.value is not None]
    figure = draw_parallel(valued, space, metric, chosen)
    best = next(each for each in valued if each.record.number == chosen)
    said = ", ".join(f"{name} {value}" for name, value in _named(best).items())
    alt = f"Parallel coordinates of {len(valued)} trials over {', '.join(space)} and {metric}; the best: {said}."
    return Image(data_uri("image/svg+xml", svg(figure)), alt)


def _learning(
    outcomes: Sequence[Outcome], curves: dict[int, Shown], rungs: Sequence[int], metric: str, chosen: int
) -> Image:
    figure = draw_learning(
        [(each.record.number, curves[each.record.number]) for each in outcomes], rungs, metric, chosen
    )
    best = curves[chosen]
    alt = (
        f"{metric} of {len(outcomes)} trials over the ECGs that they were trained on; trial {chosen} went from "
        f"{best[0][1]:.4f} at {best[0][0]:,} to {best[-1][1]:.4f} at {best[-1][0]:,}."
    )
    return Image(data_uri("image/svg+xml", svg(figure)), alt)


def _yaml(values: dict[str, Any]) -> str:
    return text_without_folders(yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
