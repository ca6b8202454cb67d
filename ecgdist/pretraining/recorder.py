"""Which rows every rank used in which step: evidence for audits, and what the proof of the order is made of.

A folder of JSON-lines files, one per process that trained: a restarted worker begins a new file, so a step that is
trained again after a kill stands there twice. The last occurrence of a step is the one that the weights come from.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from pathlib import Path
from types import TracebackType

from ecgdist.errors import ConfigError
from ecgdist.pretraining.group import Group
from ecgdist.streaming.batches import RankBatch


class Recorder:
    """Writes a line for every batch of one rank, before the optimizer step that uses it."""

    def __init__(self, folder: str | None, group: Group) -> None:
        """Begin a file of this process in `folder`, which all workers' nodes share; None records nothing.

        Raises:
            ConfigError: if the folder cannot be written to.
        """
        self._group = group
        self._file = None
        if folder is None:
            return
        path = Path(folder) / f"rank-{group.rank:03d}-{uuid.uuid4().hex[:8]}.jsonl"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Line by line to the operating system, which keeps what is written when this process is killed.
            self._file = path.open("w", encoding="utf-8", buffering=1)
        except OSError as error:
            raise ConfigError(
                f"data.record_rows: {folder} cannot be written to ({error.strerror})"
            ) from error

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, batch: RankBatch) -> None:
        """Write down the rows that this rank is about to train on."""
        if self._file is None:
            return
        line = {
            "time_s": time.time(),
            "process": os.getpid(),
            "step": batch.step,
            "rank": self._group.rank,
            "world_size": self._group.world_size,
            "positions": batch.positions.tolist(),
            "row_ids": batch.row_ids,
        }
        self._file.write(json.dumps(line) + "\n")
