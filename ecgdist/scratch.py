"""Temporary folders that a later start on the same machine removes, if a killed process left them."""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ecgdist.identity import ProcessIdentity

_NAME = re.compile(r"ecgdist-[a-z]+\.(?P<machine>[0-9a-f]+)\.(?P<pid>\d+)\.(?P<started>\d+)\.")
_FOREIGN_KEPT_S = 24 * 3600
"""For folders of processes that cannot be seen from here: of a container beside this one, or before a reboot."""


def new_scratch(kind: str) -> Path:
    """A new temporary folder, whose name tells which process it belongs to; whoever asks for it removes it."""
    me = ProcessIdentity.mine()
    return Path(tempfile.mkdtemp(prefix=f"ecgdist-{kind}.{me.machine}.{me.pid}.{me.started}."))


@contextmanager
def scratch_folder(kind: str) -> Iterator[Path]:
    """`new_scratch` for the time of a block."""
    folder = new_scratch(kind)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers() -> list[str]:
    """Remove the folders of processes that are dead. Returns their names."""
    gone = []
    for folder in Path(tempfile.gettempdir()).glob("ecgdist-*"):
        found = _NAME.match(folder.name)
        if found is None:
            continue
        owner = ProcessIdentity(found["machine"], int(found["pid"]), int(found["started"]))
        if owner.is_dead_here() or (not owner.is_visible_here() and _age_s(folder) > _FOREIGN_KEPT_S):
            # Another process may be removing it at this moment, or it may be another user's.
            shutil.rmtree(folder, ignore_errors=True)
            gone.append(folder.name)
    return sorted(gone)


def _age_s(folder: Path) -> float:
    try:
        return time.time() - folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0
