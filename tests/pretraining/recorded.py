"""Read what `ecgdist.pretraining.recorder` wrote, and put the global batches together again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Line:
    """One batch of one rank.

    Attributes:
        time_s: Unix time just before the optimizer step.
        file: of the process; every process that trained has its own.
        process: its number.
    """

    time_s: float
    file: str
    process: int
    step: int
    rank: int
    world_size: int
    positions: tuple[int, ...]
    row_ids: tuple[str, ...]

    @classmethod
    def of(cls, file: str, text: str) -> Line:
        values = json.loads(text)
        for name in ("positions", "row_ids"):
            values[name] = tuple(values[name])
        return cls(file=file, **values)


@dataclass
class Watch:
    """Follows the recording of a run that is under way.

    Attributes:
        lines: read so far, in order of time.
    """

    folder: Path
    lines: list[Line] = field(default_factory=list)
    _read: Counter[str] = field(default_factory=Counter)

    def look(self) -> list[Line]:
        """What is new since the last look. The line that a killed process was writing stays out."""
        new = []
        for path in self.folder.glob("rank-*.jsonl"):
            with path.open("rb") as file:
                file.seek(self._read[path.name])
                whole, end, _ = file.read().rpartition(b"\n")
            self._read[path.name] += len(whole + end)
            new += [Line.of(path.name, text) for text in whole.decode().splitlines()]
        self.lines = sorted([*self.lines, *new], key=lambda line: line.time_s)
        return new


@dataclass(frozen=True)
class History:
    """The global batches of a run, and what was trained twice on the way.

    Attributes:
        batches: row ids of every step by position in the global batch; the last occurrence of a step counts.
        replayed: rank-steps that were trained again after a restart.
        changed: steps whose replay used other rows than their first occurrence.
    """

    batches: dict[int, dict[int, str]]
    replayed: int
    changed: list[int]

    @classmethod
    def of(cls, lines: Sequence[Line]) -> History:
        """From lines in order of time."""
        batches: dict[int, dict[int, str]] = {}
        replayed, changed = 0, set()
        for line in lines:
            batch = batches.setdefault(line.step, {})
            replayed += any(position in batch for position in line.positions)
            for position, row in zip(line.positions, line.row_ids, strict=True):
                if batch.get(position, row) != row:
                    changed.add(line.step)
                batch[position] = row
        return cls(batches, replayed, sorted(changed))

    def lost(self, steps: int, global_batch: int) -> int:
        """Rows that a run of so many steps should have used, and did not."""
        return steps * global_batch - sum(len(self.batches.get(step, ())) for step in range(steps))

    def doubled(self, steps_per_epoch: int) -> int:
        """Rows that were used more than once in an epoch."""
        epochs: dict[int, Counter[str]] = {}
        for step, batch in self.batches.items():
            epochs.setdefault(step // steps_per_epoch, Counter()).update(batch.values())
        return sum(count - 1 for epoch in epochs.values() for count in epoch.values())
