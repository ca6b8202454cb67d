"""What commands share: options, what they print, and how an error that is meant for the user is said."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Annotated, Any, ParamSpec, TypeVar

import typer
import yaml
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from ecgdist.config import Config
from ecgdist.errors import EcgdistError, RunStopped

out_console = Console(width=None if sys.stdout.isatty() else 120)
error_console = Console(stderr=True)

P = ParamSpec("P")
R = TypeVar("R")

ConfigFile = Annotated[str | None, typer.Argument(metavar="[CONFIG.yaml]", help="Values in a YAML file.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a value, e.g. a.b=3.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check and print the resolved configuration, do nothing.")
]
Sources = Annotated[
    list[str], typer.Argument(metavar="KIND[:NAME]=URI...", help="Sources, and at most one CONFIG.yaml.")
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN", help="Leave out records by source/record_id, e.g. 'ptbxl/*'; repeatable."
    ),
]
Private = Annotated[
    bool | None,
    typer.Option(
        "--private/--not-private",
        help="Show and store keyed ids of records; by default where a patient key is set.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]


def reported(command: Callable[P, R]) -> Callable[P, R]:
    """Print an error that is meant for the user as one sentence, and exit with status 1; 75 if a run was stopped."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except RunStopped as stopped:
            error_console.print(str(stopped), markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(RunStopped.exit_status) from stopped
        except EcgdistError as error:
            error_console.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True, style="red")
            raise typer.Exit(1) from error

    return run


def say(sentence: str) -> None:
    out_console.print(sentence, markup=False, highlight=False, soft_wrap=True)


def show_plan(
    plan: BaseModel,
    as_json: bool,
    sentences: Iterable[str],
    tables: Iterable[Table],
    assumptions: Iterable[str] = (),
) -> None:
    """What a job will take, for a program or for a person."""
    if as_json:
        print(plan.model_dump_json(indent=1))
        return
    for sentence in sentences:
        say(sentence)
    for table in tables:
        out_console.print(table)
    for sentence in assumptions:
        say(sentence)


def as_overrides(overrides: list[str] | None = None, **flags: Any) -> list[str]:
    """Flags as overrides, so that a value given by a flag and by --set is refused like one given twice."""
    given = [f"{name}={json.dumps(value)}" for name, value in flags.items() if value is not None]
    return given + list(overrides or [])


def words(text: str | None) -> list[str] | None:
    """The words of a list such as ``I, II V1``."""
    return text.replace(",", " ").split() if text is not None else None


def file_or_folder(text: str) -> tuple[str | None, str | None]:
    """A CONFIG.yaml, or a model folder, as (file, folder)."""
    return (text, None) if text.endswith((".yaml", ".yml")) else (None, text)


def file_and_pairs(sources: list[str]) -> tuple[str | None, list[str] | None]:
    """The CONFIG.yaml among the sources, if there is one, and the others."""
    files = [text for text in sources if "=" not in text and text.endswith((".yaml", ".yml"))]
    if len(files) > 1:
        raise typer.BadParameter(f"more than one configuration file: {', '.join(files)}")
    pairs = [text for text in sources if text not in files]
    return (files[0] if files else None), pairs or None


def shown(dry_run: bool, config: Config) -> bool:
    if dry_run:
        print(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), end="")
    return dry_run
