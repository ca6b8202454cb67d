"""Reads hostile folders in a process of its own with little memory, and says what became of each and what it opened.

Usage: ``python -m tests.sources.hostile_child KIND WATCHED MIB FOLDER...``. WATCHED is a folder whose files nobody
may open; MIB is how much memory the process may get in addition to what it has when it starts. The answer is one
JSON document.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from ecgdist.errors import DataError, RecordRefused
from ecgdist.sources import open_source

ROOT = Path(__file__).parents[2]
_IN_ACCESS, _IN_OPEN = 0x1, 0x20


class Watch:
    """Counts how often files below a folder are opened or read, by whatever code (Linux, inotify(7))."""

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._queue = libc.inotify_init1(os.O_NONBLOCK)
        for each in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
            if libc.inotify_add_watch(self._queue, os.fsencode(each), _IN_ACCESS | _IN_OPEN) < 0:
                raise OSError(ctypes.get_errno(), "inotify_add_watch")

    def names(self) -> list[str]:
        """Names of the files that were touched since the last call."""
        try:
            events = os.read(self._queue, 2**16)
        except BlockingIOError:
            return []
        found = []
        while events:
            length = int.from_bytes(events[12:16], sys.byteorder)
            found.append(events[16 : 16 + length].rstrip(b"\0").decode())
            events = events[16 + length :]
        return found


def read(kind: str, folder: Path) -> list[str]:
    """The refusal of each record of a folder, or "read"; the same whether read one by one or together."""
    source = open_source(kind, str(folder))
    try:
        listings = source.list_records()
    except DataError as error:
        return [f"DataError: {error}"]
    outcomes = []
    for listing in listings:
        try:
            source.read_record(listing)
            outcomes.append("read")
        except RecordRefused as refused:
            outcomes.append(str(refused))
    together = [
        str(each) if isinstance(each, RecordRefused) else "read" for each in source.read_many(listings)
    ]
    assert together == outcomes
    return outcomes


def main(kind: str, watched: str, mebibytes: str, *folders: str) -> None:
    open_source(kind, ".")
    if kind == "hdf5":
        import h5py  # noqa: F401 - its libraries belong to the memory at the start
    watch = Watch(Path(watched))
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = now + int(mebibytes) * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    outcomes = {Path(folder).name: read(kind, Path(folder)) for folder in folders}
    touched = watch.names()
    (Path(watched) / "secret.txt").read_bytes()  # the watch must notice this
    print(json.dumps({"outcomes": outcomes, "touched": touched, "control": watch.names()}))


def child(
    kind: str, watched: Path, mebibytes: int, folders: list[Path], **environment: str
) -> dict[str, Any]:
    """Run this file on folders in a process of its own: what became of the records, and what was opened."""
    command = [sys.executable, "-m", "tests.sources.hostile_child", kind, str(watched), str(mebibytes)]
    done = subprocess.run(
        [*command, *map(str, folders)],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
