"""What comes out of a benchmark: figures of every way to use a model, their differences, and their proof."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict
from rich.table import Table
from rich.text import Text

from ecgdist.downstream.bootstrap import Figure
from ecgdist.downstream.judged import SplitSize
from ecgdist.downstream.pairs import LEVEL, p_note
from ecgdist.modelcard import NOT_A_DEVICE

RESULT = "benchmark"
"""What the files of the result are called, before their ending."""

TITLES = {
    "linear": "linear probe",
    "random": "linear probe, untrained encoder",
    "finetune": "fine-tuned",
    "attention": "attention readout, frozen",
    "scratch": "from scratch",
    "xresnet": "xresnet from scratch",
    "s4d": "s4d from scratch",
}


class Predictor(BaseModel):
    """One predictor: a mode, a share of labels and a seed.

    Attributes:
        seed: that drew training patients, initial weights and the order of training.
        training: how much it was trained on.
        split_digest: of who is in which split.
        model_hash: of its encoder.
        classifier_sha256: of encoder and head, if it was trained.
        learned: outputs that it is no constant in.
        figures: by metric.
        by_output: the first metric of each label or number.
        command: evaluates it alone; with mode `random`, its figures are those of the random encoder there.
    """

    model_config = ConfigDict(frozen=True)

    seed: int
    training: SplitSize
    split_digest: str
    model_hash: str | None
    classifier_sha256: str | None
    learned: tuple[str, ...]
    figures: dict[str, float]
    by_output: dict[str, float]
    command: str


class Way(BaseModel):
    """A mode with a share of labels: means over its seeds, with intervals over test patients; or why there are none."""

    model_config = ConfigDict(frozen=True)

    mode: str
    share: float
    figures: dict[str, Figure]
    predictors: tuple[Predictor, ...]
    error: str | None = None


class WayDifference(BaseModel):
    """Of two modes with the same labels, by the first metric, paired by resample.

    Attributes:
        share: of labels.
        mode: the one.
        other: the other.
        difference: the one minus the other.
        p_value: two-sided, of "there is no difference".
        p_holm: the same, corrected for the number of pairs of the task.
    """

    model_config = ConfigDict(frozen=True)

    share: float
    mode: str
    other: str
    difference: Figure
    p_value: float
    p_holm: float

    @property
    def is_clear(self) -> bool:
        """Whether they differ, with 5 % for all pairs of the task together."""
        return self.p_holm < LEVEL


class TaskResult(BaseModel):
    """Ways to use a model on one task.

    Attributes:
        task, title: of the task.
        task_digest: SHA-256 of its definition.
        metrics, titles: what is measured, the first one first.
        higher_is_better: of the first.
        outputs: labels, or the number, that every way is judged on.
        left_out: labels that are not judged, with the reason.
        counts: records and patients of each split, with all labels.
        split_note, split_digest: which split was used, with all labels.
        method: how intervals were made.
        ways: by share of labels and mode.
        differences: of all pairs of modes at each share.
        warnings: sentences that a reader must see.
    """

    model_config = ConfigDict(frozen=True)

    task: str
    title: str
    task_digest: str
    metrics: tuple[str, ...]
    titles: tuple[str, ...]
    higher_is_better: bool
    outputs: tuple[str, ...]
    left_out: dict[str, str]
    counts: dict[str, SplitSize]
    split_note: str
    split_digest: str
    method: str
    ways: tuple[Way, ...]
    differences: tuple[WayDifference, ...]
    warnings: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Of the table of ways."""
        return ("labels", "patients", "", self.titles[0], "by seed", *self.titles[1:])

    def rows(self) -> list[tuple[str, ...]]:
        """The table of ways."""
        return [self._row(way) for way in self.ways]

    def _row(self, way: Way) -> tuple[str, ...]:
        patients = sorted({each.training.patients for each in way.predictors})
        counts = " to ".join(f"{count:,}" for count in dict.fromkeys((*patients[:1], *patients[-1:])))
        head = (f"{100 * way.share:.3g} %", counts or "-", TITLES[way.mode])
        if way.error is not None:
            return (*head, f"none: {way.error}", *("-" for _ in self.titles))
        seeds = " ".join(f"{each.figures[self.metrics[0]]:.3f}" for each in way.predictors)
        first, *others = (str(way.figures[name]) for name in self.metrics)
        return (*head, first, seeds, *others)

    def pairs(self) -> list[tuple[str, ...]]:
        """The table of differences, below `PAIRS`."""
        return [
            (
                f"{100 * each.share:.3g} %",
                f"{TITLES[each.mode]} - {TITLES[each.other]}",
                str(each.difference),
                f"{each.p_value:.3f}",
                f"{each.p_holm:.3f}",
                "they differ" if each.is_clear else "not told apart",
            )
            for each in self.differences
        ]

    @property
    def headline(self) -> str:
        """What is shown above the figures."""
        size = self.counts["test"]
        return f"{self.title}: {size.records:,} test records of {size.patients:,} patients"

    @property
    def notes(self) -> tuple[str, ...]:
        """What the figures mean, and what must be seen beside them."""
        better = "more" if self.higher_is_better else "less"
        left_out = [f"label {name} is not judged: {why}" for name, why in self.left_out.items()]
        return (
            f"Means over seeds; {better} is better. {self.method}. A label of which the training records show one kind "
            "alone is predicted by a constant.",
            *self.warnings,
            *left_out,
        )

    def tables(self) -> list[Table]:
        """The figures as tables for the console."""
        made = []
        for head, rows, title, caption in (
            (self.columns, self.rows(), self.headline, "\n".join(self.notes)),
            (PAIRS, self.pairs(), f"differences of {self.titles[0]}, paired", p_note(len(self.differences))),
        ):
            table = Table(title=Text(title), caption=Text(caption), caption_justify="left")
            for column in head:
                table.add_column(column, justify="right" if column in ("labels", "patients") else "left")
            for row in rows:
                table.add_row(*map(Text, row))
            made.append(table)
        return made


PAIRS = ("labels", "", "difference", "p", "p (Holm)", " ")


class Benchmark(BaseModel):
    """Ways to use a model, on some tasks.

    Attributes:
        corpus_id: of the corpus.
        model_hash: of the model.
        settings: of the benchmark.
        versions: of the software.
        command: makes the same again, in another folder.
        tasks: a result each.
    """

    model_config = ConfigDict(frozen=True)

    notice: str = NOT_A_DEVICE
    corpus_id: str
    model_hash: str
    settings: dict[str, Any]
    versions: dict[str, str]
    command: str
    tasks: tuple[TaskResult, ...]

    def to_markdown(self) -> str:
        """The tables as a text, with their proof."""
        parts = ["# Ways to use a model", f"**{self.notice}**"]
        for task in self.tasks:
            parts += [
                f"## {task.headline}",
                markdown(task.columns, task.rows()),
                "\n".join(f"* {note}" for note in task.notes),
                f"Differences of {task.titles[0]}, paired:",
                markdown(PAIRS, task.pairs()),
                f"{p_note(len(task.differences))}.",
                f"Split: {task.split_note}; digest `{task.split_digest}`; task digest `{task.task_digest}`.",
            ]
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        parts += [
            "## Proof",
            f"Corpus `{self.corpus_id}`, model `{self.model_hash}`; {versions}. Split digest, seeds, hashes and the "
            f"command of every single predictor are in `{RESULT}.json`. All of it again:",
            f"```\n{self.command}\n```",
        ]
        return "\n\n".join(parts) + "\n"


def markdown(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
