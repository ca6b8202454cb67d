"""What comes out of a sweep: all trials, the chosen one, and its figures on the test split."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from rich.markup import escape
from rich.table import Table

from ecgdist.config import Config
from ecgdist.downstream.evaluation import Evaluation
from ecgdist.downstream.finetuning.goals import metric_of
from ecgdist.downstream.schema import read_evaluation
from ecgdist.downstream.sweep.config import SweepConfig
from ecgdist.downstream.sweep.space import shown
from ecgdist.downstream.sweep.trial import Outcome
from ecgdist.errors import DataError
from ecgdist.storage import Location

RESULT, EVALUATION, TABLE = "results.json", "evaluation.json", "trials.csv"


class _Written(Config):
    """``results.json``."""

    metric: str
    mode: str
    limit: int
    """Most trials that were asked for."""
    outcomes: tuple[Outcome, ...]
    chosen: int
    """Number of the chosen trial."""
    model: str
    settings: dict[str, Any]
    """Of the chosen trial."""
    command: str
    """Trains the chosen trial again, in another folder."""


class SweepResult:
    """A finished sweep.

    Attributes:
        written: what `results.json` holds.
        evaluation: of the chosen trial on the test split.
    """

    def __init__(self, written: _Written, evaluation: Evaluation) -> None:
        self.written, self.evaluation = written, evaluation

    @property
    def limit(self) -> int:
        """Most trials that were asked for."""
        return self.written.limit

    @property
    def model(self) -> str:
        """Folder of the chosen trial's model."""
        return self.written.model

    @property
    def command(self) -> str:
        """Trains the chosen trial again."""
        return self.written.command

    def tables(self) -> list[Table]:
        """All trials, the best first, and the figures of the chosen one."""
        names = list(self.written.outcomes[0].record.values)
        table = Table(title=f"{len(self.written.outcomes)} trials by {self.written.metric}, the best first")
        table.add_column("trial", justify="right")
        for name in (*names, self.written.metric, "step"):
            table.add_column(escape(name), justify="right")
        for each in ranked(self.written.outcomes, self.written.mode):
            value = "-" if each.value is None else f"{each.value:.4f}"
            step = each.error or "cut off" if each.step is None else str(each.step)
            table.add_row(
                str(each.record.number), *map(escape, shown(each.record.values)), value, escape(step)
            )
        return [table, *self.evaluation.tables()]


def ranked(outcomes: Sequence[Outcome], mode: str) -> list[Outcome]:
    """The best first, by the validation split; of equals, the lower number; without a value, last."""

    def key(each: Outcome) -> tuple[bool, float, int]:
        value = each.value
        badness = 0.0 if value is None else -value if mode == "max" else value
        return value is None, badness, each.record.number

    return sorted(outcomes, key=key)


def choose(outcomes: Sequence[Outcome], mode: str) -> Outcome | None:
    """The best trial, if one has a value."""
    best = ranked(outcomes, mode)[:1]
    return best[0] if best and best[0].value is not None else None


def write_result(
    folder: Location,
    config: SweepConfig,
    outcomes: Sequence[Outcome],
    chosen: Outcome,
    evaluation: Evaluation,
    model: Location,
) -> SweepResult:
    """Write ``trials.csv``, ``evaluation.json`` and, last, ``results.json``."""
    metric, mode = metric_of(config.finetune["task"])
    settings = config.trial(chosen.record.number, chosen.record.values)
    alone = settings.model_copy(update={"halving": None, "out": "again"}).model_dump(
        mode="json", exclude_unset=True
    )
    words = ["ecgdist", "finetune"]
    for name, value in alone.items():
        if name != "halving":
            words += ["--set", f"{name}={json.dumps(value)}"]
    written = _Written(
        metric=metric,
        mode=mode,
        limit=config.trials,
        outcomes=tuple(outcomes),
        chosen=chosen.record.number,
        model=model.uri,
        settings=settings.model_dump(mode="json"),
        command=shlex.join(words),
    )
    names = list(chosen.record.values)
    lines = [["trial", *names, metric, "step", "state"]]
    for each in ranked(outcomes, mode):
        cells = [json.dumps(each.record.values[name]) for name in names]
        lines.append([str(each.record.number), *cells, str(each.value), str(each.step), each.state])
    quoted = ("".join(f"{','.join(_quoted(cell) for cell in line)}\n") for line in lines)
    (folder / TABLE).write_bytes("".join(quoted).encode())
    (folder / EVALUATION).write_bytes(evaluation.model_dump_json(indent=1).encode())
    (folder / RESULT).write_bytes(written.model_dump_json(indent=1).encode())
    return SweepResult(written, evaluation)


def read_result(folder: Location) -> SweepResult | None:
    """The result of a sweep that has come to its end, or None.

    Raises:
        DataError: if it is damaged.
    """
    path = folder / RESULT
    if not path.exists():
        return None
    try:
        written = _Written.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise DataError(f"{path} is damaged; remove it, and give the command again: {error}") from error
    return SweepResult(written, read_evaluation((folder / EVALUATION).read_bytes(), str(folder / EVALUATION)))


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if any(sign in cell for sign in ',"') else cell
