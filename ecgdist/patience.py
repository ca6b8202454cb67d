"""Wait for storage that is away for a while, where giving up would cost more than waiting.

`ecgdist.s3` tries every request again for some seconds: enough for a person at the keyboard, who is then told. A run
of days, on machines that are paid for, waits for minutes; what will not pass (access denied, no such file) ends it at
once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import tenacity

from ecgdist.errors import StorageError

PATIENCE_S = 600.0
"""How long a run waits for storage."""
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 5.0

_LOG = logging.getLogger(__name__)

Result = TypeVar("Result")


def patiently(action: Callable[[], Result], patience_s: float = PATIENCE_S) -> Result:
    """What `action` gives, tried again while storage fails in a way that may pass.

    Raises:
        StorageError: the last one, when patience ends; one that will not pass at once.
    """
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(lambda error: isinstance(error, StorageError) and error.may_pass),
        stop=tenacity.stop_after_delay(patience_s),
        wait=tenacity.wait_random_exponential(multiplier=_FIRST_WAIT_S, max=_LONGEST_WAIT_S),
        before_sleep=_tell,
        reraise=True,
    )(action)


def _tell(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    _LOG.warning("waiting for storage: %s", error)
