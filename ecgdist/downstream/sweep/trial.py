"""One trial of a sweep: its record in the sweep's folder, and the function that Ray Tune runs for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from rich.console import Console

from ecgdist.config import Config, build
from ecgdist.downstream.classifier import head_config
from ecgdist.downstream.finetuning.config import FineTuneConfig
from ecgdist.downstream.finetuning.job import finetune
from ecgdist.downstream.finetuning.rivals import FAILED, has_ended, name_of
from ecgdist.errors import EcgdistError, MissingFileError, RunStopped
from ecgdist.pretraining.export import MODEL
from ecgdist.scratch import scratch_folder
from ecgdist.storage import Location

RECORD, LOG = "trial.json", "log.txt"

State = Literal["waiting", "done", "failed"]


class Record(Config):
    """``NUMBER.json`` beside a trial's folder, written before the trial begins."""

    number: int
    drawn: dict[str, Any]
    """What the search drew, by dimension."""
    values: dict[str, Any]
    """The settings that this stands for."""


class Outcome(Config):
    """A trial as its folder has it.

    A trial that has ended has a value: of its best checkpoint, by the validation split.
    """

    record: Record
    state: State
    value: float | None = None
    step: int | None = None
    """Of that checkpoint."""
    error: str | None = None


def write_record(trials: Location, record: Record) -> None:
    """Write a trial down."""
    content = json.dumps(record.model_dump(mode="json"), indent=1).encode() + b"\n"
    (trials / f"{name_of(record.number)}.json").write_bytes(content)


def read_records(trials: Location) -> list[Record]:
    """All trials that were written down, by number.

    Raises:
        ConfigError: if a record is damaged.
    """
    names = sorted(n for n in trials.list_files() if "/" not in n and n.endswith(".json"))
    return [build(Record, json.loads((trials / name).read_bytes()), str(trials / name)) for name in names]


def outcome(trials: Location, record: Record) -> Outcome:
    """How a trial stands."""
    run = trials / name_of(record.number)
    if (run / MODEL / "config.json").exists():
        said = head_config(run / MODEL)
        (value,) = said.validation.values()
        return Outcome(record=record, state="done", value=value, step=said.step)
    try:
        failed = json.loads((run / FAILED).read_bytes())
    except MissingFileError:
        return Outcome(record=record, state="waiting")
    return Outcome(record=record, state="failed", error=failed["error"])


def run_trial(config: Mapping[str, Any]) -> None:
    """What Ray Tune runs: a fine-tuning run, from where it stands.

    Args:
        config: ``finetune``, the configuration of the run as plain values.
    """
    settings = build(FineTuneConfig, config["finetune"])
    run = Location.of(settings.out)
    if has_ended(run):
        return
    with scratch_folder("trial") as scratch:
        log = scratch / LOG
        try:
            with log.open("w", encoding="utf-8") as sink:
                finetune(settings, Console(file=sink, width=200))
        except RunStopped:
            return  # the sweep goes on with it
        except EcgdistError as error:
            # One setting out of many may not work; the others go on, and the table says what it met.
            (run / FAILED).write_bytes(json.dumps({"error": str(error)}).encode())
        finally:
            (run / LOG).write_bytes(log.read_bytes())
