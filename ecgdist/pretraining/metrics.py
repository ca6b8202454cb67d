"""What a run reports: a JSON-lines file and TensorBoard in its folder, and rows for the console."""

from __future__ import annotations

import json
import shutil
import time
import uuid
from typing import Any

from tensorboardX import SummaryWriter

from ecgdist.errors import StorageError
from ecgdist.patience import patiently
from ecgdist.scratch import new_scratch
from ecgdist.storage import Location

METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"
_FLUSH_EVERY_S = 15.0


class MetricsLog:
    """Writes rows of metrics; used by rank 0 alone.

    Rows are kept on local disk and copied to the run's folder by `flush`, since object storage cannot append.
    """

    def __init__(self, run: Location, start_step: int) -> None:
        """Open the log of a run that goes on from `start_step`; rows of later steps are dropped."""
        self._target = run / METRICS
        self._board_target = run / TENSORBOARD
        old = read_metrics(run)
        self._rows = [row for row in old if row["step"] <= start_step]
        self._flushed = 0.0
        self._scratch = new_scratch("metrics")
        # The name that tensorboardX gives is that of the second and the host: not enough for a quick restart.
        self._board = SummaryWriter(
            str(self._scratch),
            purge_step=start_step + 1 if old else None,
            filename_suffix=f".{uuid.uuid4().hex[:8]}",
        )

    def add(self, row: dict[str, Any]) -> None:
        """Add a row; it must have the key ``step``."""
        self._rows.append(row)
        for name, value in row.items():
            if name != "step" and isinstance(value, int | float):
                self._board.add_scalar(name, value, row["step"])

    def flush_now_and_then(self) -> None:
        """Bring the run's folder up to date, unless that was done in the last seconds: it writes all rows again.

        Storage that is away for a while gets the rows later: nobody waits for them.
        """
        if time.monotonic() - self._flushed <= _FLUSH_EVERY_S:
            return
        try:
            self._write()
        except StorageError as error:
            if not error.may_pass:
                raise

    def flush(self) -> None:
        """Bring the run's folder up to date; waits while storage is away."""
        patiently(self._write)

    def _write(self) -> None:
        self._flushed = time.monotonic()
        self._target.write_bytes("".join(json.dumps(row) + "\n" for row in self._rows).encode())
        self._board.flush()
        for path in self._scratch.iterdir():
            (self._board_target / path.name).upload(path)

    def close(self) -> None:
        """Flush, and remove the scratch files."""
        self.flush()
        self._board.close()
        shutil.rmtree(self._scratch, ignore_errors=True)


def read_metrics(run: Location) -> list[dict[str, Any]]:
    """The rows of a run's metrics, oldest first; none if it has not reported yet."""
    path = run / METRICS
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().decode().splitlines()]
