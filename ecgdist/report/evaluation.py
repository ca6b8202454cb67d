"""The report of an evaluation: one HTML file that needs nothing else, for those who read figures and doubt them.

Everything in it is made of an `Outcome`, whatever kind of evaluation left that behind.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from ecgdist.downstream.confusion import Confusion, confusion
from ecgdist.downstream.evaluation import Evaluation
from ecgdist.downstream.label_evaluation import MultilabelEvaluation
from ecgdist.downstream.number_evaluation import RegressionEvaluation
from ecgdist.downstream.occlusion import WINDOW_S
from ecgdist.downstream.outcome import Outcome
from ecgdist.report.evaluation_ecgs import Example, Saliency, examples, saliency
from ecgdist.report.evaluation_plots import Maps, calibration, curves, maps, numbers
from ecgdist.report.html import Image, data_uri, rendered
from ecgdist.report.page import Missing
from ecgdist.storage import Location

_BOOTSTRAP = "bootstrap"
_FOLDER = re.compile(r"(?<![\w.:/])/(?:[\w.@%+=~-]+/)+([\w.@%+=~-]+)")


@dataclass(frozen=True)
class Sections:
    """What a report of an evaluation shows; each has a template in ``sections/`` and can stand in other reports.

    Attributes:
        evaluation: the figures, without folders of this machine.
        examples: the worst errors.
        saliency: occlusion of one of them, or why there is none.
        maps: the embedding map, or why there is none.
        curves: ROC and precision-recall, by label.
        calibration: reliability, by label.
        confusion: of pairs of labels; None for numbers.
        numbers: predicted over true ones; None for labels.
        most_cards: how many cards are shown before the others are folded.
    """

    evaluation: Evaluation
    examples: list[Example]
    saliency: Saliency | Missing
    maps: Maps | Missing
    curves: list[Image] = field(default_factory=list)
    calibration: list[Image] = field(default_factory=list)
    confusion: Confusion | None = None
    numbers: Image | None = None
    most_cards: int = 12

    @classmethod
    def of(cls, outcome: Outcome) -> Sections:
        """Draw all of them."""
        evaluation, predictions = outcome.evaluation, outcome.predictions
        drawn: dict[str, Any] = {}
        if isinstance(evaluation, MultilabelEvaluation):
            drawn["curves"] = curves(evaluation, predictions)
            drawn["calibration"] = calibration(evaluation)
            drawn["confusion"] = confusion(predictions.columns, predictions.positive, predictions.predicted)
        elif isinstance(evaluation, RegressionEvaluation):
            drawn["numbers"] = numbers(evaluation, predictions)
        return cls(
            evaluation=without_folders(evaluation),
            examples=examples(outcome),
            saliency=saliency(outcome),
            maps=maps(outcome, evaluation.provenance.seeds.get(_BOOTSTRAP, 0)),
            **drawn,
        )


def write_evaluation_report(outcome: Outcome, target: Location) -> Location:
    """Write the report of an evaluation as one file that needs nothing else; returns where it is.

    Raises:
        DataError: if the corpus is damaged.
        StorageError: if something cannot be read or written.
    """
    target.write_bytes(render(Sections.of(outcome)).encode())
    return target


def render(sections: Sections) -> str:
    """The report as HTML. Every text from outside is escaped."""
    figures = sections.evaluation.model_dump_json(indent=1).encode()
    return rendered(
        "evaluation.html",
        sections=sections,
        evaluation=sections.evaluation,
        figures=data_uri("application/json", figures),
        reliability=None,  # it has a section of its own, with a plot for each label
        missing={name: value.reason for name, value in vars(sections).items() if isinstance(value, Missing)},
        occlusion_s=WINDOW_S,
    )


def text_without_folders(text: str) -> str:
    """A text in which of every path of this machine the last part alone is left."""
    return _FOLDER.sub(r"\1", text)


def without_folders(evaluation: Evaluation) -> Evaluation:
    """The same with the last part alone of every path of this machine: a report is passed on to others.

    What has another user's home or a project's name in it stays in the evaluation's own document.
    """
    words = shlex.split(evaluation.provenance.command)
    paths = sorted((word for word in words if word.startswith("/")), key=len, reverse=True)

    def shown(text: str) -> str:
        for path in paths:
            text = text.replace(path, PurePosixPath(path).name)
        return text_without_folders(text)

    provenance = evaluation.provenance
    command = shlex.join(PurePosixPath(word).name if word in paths else word for word in words)
    return evaluation.model_copy(
        update={
            "title": shown(evaluation.title),
            "split_note": shown(evaluation.split_note),
            "warnings": tuple(map(shown, evaluation.warnings)),
            "provenance": provenance.model_copy(update={"command": shown(command)}),
        }
    )
