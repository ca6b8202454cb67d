"""What workers did, by themselves: a line beside the corpus when one begins to build a shard, and when it has."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ecgdist.packing import job
from ecgdist.packing.listings import Chunk
from ecgdist.packing.notes import ShardNote, shard_path
from ecgdist.packing.shards import Work, build_shard
from ecgdist.sources import Listing

_build_unrecorded = job._build


@dataclass
class Builds:
    """The builds of a corpus, of all calls together.

    Attributes:
        begun: how often each shard was begun.
        ended: how often each was built to its end.
        again: shards that were begun although their file had its name.
    """

    begun: Counter[int] = field(default_factory=Counter)
    ended: Counter[int] = field(default_factory=Counter)
    again: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, out: Path) -> Builds:
        """What the workers wrote for the corpus `out`."""
        builds = cls()
        for line in _log_of(str(out)).read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            builds.begun[entry["shard"]] += entry["what"] == "begin"
            builds.ended[entry["shard"]] += entry["what"] == "end"
            if entry["what"] == "begin" and entry["finished"]:
                builds.again.append(entry["shard"])
        return builds


def record_builds() -> None:
    """Let the workers of packings that this process starts write what they do."""
    job._build = _build


def _build(work: Work, number: int, chunk: Chunk) -> str:
    job.build_shard = _recorded  # in this worker
    return _build_unrecorded(work, number, chunk)


def _recorded(work: Work, number: int, listings: Sequence[tuple[str, Listing]]) -> ShardNote:
    _write(work, number, "begin")
    note = build_shard(work, number, listings)
    _write(work, number, "end")
    return note


def _write(work: Work, number: int, what: str) -> None:
    finished = (work.out / shard_path(number)).exists()
    line = json.dumps({"what": what, "shard": number, "finished": finished, "pid": os.getpid()})
    with _log_of(work.out.uri).open("ab", buffering=0) as log:
        log.write(line.encode() + b"\n")  # one call, so that lines of several workers do not mix


def _log_of(out: str) -> Path:
    return Path(f"{out}.builds")
