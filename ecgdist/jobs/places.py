"""Where a job's configuration points: what the cluster must see, and small files that travel with the job."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecgdist.downstream.tasks import TASK_FILES
from ecgdist.errors import ConfigError
from ecgdist.jobs.kinds import Kind
from ecgdist.storage import Location


@dataclass(frozen=True)
class Settled:
    """A configuration that means the same in another folder.

    Attributes:
        values: local paths are absolute, and tasks in files are named as they will lie beside the configuration.
        local: paths by the setting that names them, in the order in which they are met.
        files: to carry along, by the name that they get.
    """

    values: dict[str, Any]
    local: tuple[tuple[str, str], ...]
    files: Mapping[str, Path]


def settle(values: Mapping[str, Any], kind: Kind) -> Settled:
    """Find out what a configuration names, from the folder in which this process works.

    Raises:
        ConfigError: for a task in a file that is not there, or two files of one name.
        StorageError: for an address that is none.
    """
    settled = copy.deepcopy(dict(values))
    local: list[tuple[str, str]] = []
    files: dict[str, Path] = {}

    def place(key: str, text: str) -> str:
        name, equals, uri = text.rpartition("=") if key == "sources" else ("", "", text)
        where = Location.of(uri)
        if not where.is_s3:
            local.append((key, where.uri))
        return f"{name}{equals}{where.uri}"

    def task(key: str, text: str) -> str:
        if not text.endswith(TASK_FILES) or Location.of(text).is_s3:
            return text
        path = Path(text).expanduser().absolute()
        if not path.is_file():
            raise ConfigError(f"{key} = {text}: there is no such file here")
        if files.setdefault(path.name, path) != path:
            raise ConfigError(
                f"{key} = {text}: another file of the job is called {path.name}, too; rename one"
            )
        return path.name

    for names, change in ((kind.places, place), (kind.tasks, task)):
        for name in names:
            _change(settled, name, name.split("."), change)
    return Settled(settled, tuple(local), files)


def _change(node: Any, key: str, parts: list[str], change: Callable[[str, str], str]) -> None:
    """Replace the text, or every text of the list, at a dotted name; what is not there stays away."""
    *parents, last = parts
    for part in parents:
        node = node.get(part) if isinstance(node, dict) else None
    if not isinstance(node, dict):
        return
    if isinstance(value := node.get(last), str):
        node[last] = change(key, value)
    elif isinstance(value, list | tuple):
        node[last] = [change(key, each) if isinstance(each, str) else each for each in value]
