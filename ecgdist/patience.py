"""Wait for storage that is away for a while, where giving up would cost more than waiting.

`ecgdist.s3` tries every request again for some seconds: enough for a person at the keyboard, who is then told. A run
of days, on machines that are paid for, waits for minutes; what will not pass (access denied, no such file) ends it at
once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import tenacity

from ecgdist.errors import StorageError
from ecgdist.timelimits import PATIENCE_S

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 5.0

_LOG = logging.getLogger(__name__)

Result = TypeVar("Result")


def log_waiting(error: BaseException | None) -> None:
    """Note in the log of this process what is waited for."""
    _LOG.warning("waiting for storage: %s", error)


def patiently(
    action: Callable[[], Result],
    patience_s: float = PATIENCE_S,
    tell: Callable[[BaseException | None], Any] = log_waiting,
    leaving: threading.Event | None = None,
) -> Result:
    """What `action` gives, tried again while storage fails in a way that may pass.

    Args:
        tell: told every failure that is waited for.
        leaving: set by another thread, it ends the waiting.

    Raises:
        StorageError: the last one, when patience ends; one that will not pass at once.
    """
    leaving = leaving or threading.Event()
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(lambda error: isinstance(error, StorageError) and error.may_pass),
        stop=tenacity.stop_any(tenacity.stop_after_delay(patience_s), tenacity.stop_when_event_set(leaving)),
        wait=tenacity.wait_random_exponential(multiplier=_FIRST_WAIT_S, max=_LONGEST_WAIT_S),
        sleep=tenacity.sleep_using_event(leaving),
        before_sleep=lambda state: tell(state.outcome.exception() if state.outcome else None),
        reraise=True,
    )(action)
