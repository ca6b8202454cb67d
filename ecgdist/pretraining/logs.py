"""What workers write into their logs: one JSON object a line, with run, rank and step.

Ray keeps what a worker writes to standard error in a file of its session, begins a new one when it is full
(``RAY_ROTATION_MAX_BYTES``), and shows it on its dashboard.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from ecgdist.pretraining.group import Group

PACKAGE = "ecgdist"
"""The logger above those of all modules."""


class JsonLines(logging.Formatter):
    """A record as a JSON object: time (UTC), level, logger, run, rank, step, message; and the traceback of an error."""

    def __init__(self, run: str, group: Group) -> None:
        super().__init__()
        self._run, self._group = run, group

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        content = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "run": self._run,
            "rank": self._group.rank,
            "step": self._group.whereabouts.now.step,
            "message": record.getMessage(),
        }
        if record.exc_info:
            content["error"] = self.formatException(record.exc_info)
        return json.dumps(content, ensure_ascii=False)


@contextmanager
def logging_as(run: str, group: Group) -> Iterator[None]:
    """While the block runs, this package's log goes to standard error, as `JsonLines`."""
    logger, handler = logging.getLogger(PACKAGE), logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(run, group))
    was, handed_on = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(was)
        logger.propagate = handed_on
