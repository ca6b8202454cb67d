"""What a run reports: a JSON-lines file and TensorBoard in its folder, and gauges of Ray's metrics."""

from __future__ import annotations

import json
import shutil
import threading
import time
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

from tensorboardX import SummaryWriter

from ecgdist.errors import StorageError
from ecgdist.gauges import TrainingGauges
from ecgdist.patience import patiently
from ecgdist.scratch import new_scratch
from ecgdist.storage import Location

METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"
_FLUSH_EVERY_S = 15.0


class MetricsLog:
    """Writes rows of metrics; used by rank 0 alone. A context manager, which flushes unless an error ends it.

    Rows are kept here and written to the run's folder, all of them each time, since object storage cannot append.

    Attributes:
        gauges: show the newest values while the run goes on.
    """

    def __init__(self, run: Location, start_step: int) -> None:
        """Open the log of a run that goes on from `start_step`; rows of later steps are dropped."""
        self.gauges = TrainingGauges(run.uri)
        self._target = run / METRICS
        self._board_target = run / TENSORBOARD
        old = read_metrics(run)
        self._rows = [row for row in old if row["step"] <= start_step]
        self._flushed = 0.0
        self._one_at_a_time = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self._under_way: Future[None] | None = None
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
        self.gauges.report(row)
        for name, value in row.items():
            if name != "step" and isinstance(value, int | float):
                self._board.add_scalar(name, value, row["step"])

    def flush_now_and_then(self) -> None:
        """Bring the run's folder up to date in a thread, unless that was done in the last seconds. Does not wait.

        Storage that is away for a while gets the rows later.

        Raises:
            StorageError: what the last time failed with, if it will not pass.
        """
        if self._under_way is not None:
            if not self._under_way.done():
                return
            error = self._under_way.exception()
            if error is not None and not (isinstance(error, StorageError) and error.may_pass):
                raise error
        if time.monotonic() - self._flushed > _FLUSH_EVERY_S:
            self._under_way = self._thread.submit(self.write)

    def flush(self) -> None:
        """Bring the run's folder up to date; waits while storage is away."""
        patiently(self.write)

    def write(self) -> None:
        """Bring the run's folder up to date; any thread may call this.

        Raises:
            StorageError: if storage does not take it now.
        """
        with self._one_at_a_time:
            self._flushed = time.monotonic()
            self._target.write_bytes("".join(json.dumps(row) + "\n" for row in list(self._rows)).encode())
            self._board.flush()
            for path in self._scratch.iterdir():
                (self._board_target / path.name).upload(path)

    def close(self) -> None:
        """Flush, and remove the scratch files."""
        self.flush()
        self._discard(wait=True)

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:  # the next start trains these steps again, and must not be kept from it by storage
            self._discard(wait=False)

    def _discard(self, wait: bool) -> None:
        self._thread.shutdown(wait, cancel_futures=True)
        self._board.close()
        shutil.rmtree(self._scratch, ignore_errors=True)


def read_metrics(run: Location) -> list[dict[str, Any]]:
    """The rows of a run's metrics, oldest first; none if it has not reported yet."""
    path = run / METRICS
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().decode().splitlines()]
