"""What happens in the process that controls a run's workers: Ray Train's controller.

Ray Train 2.60 resizes a running group by killing it, at whatever step it is, and answers a node's drain notice by
waiting until the node is gone. Here it gives the workers notice first: they save, and leave.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback
from ray.train.v2._internal.execution.controller.state import PreemptingState, ResizingState

from ecgdist.pretraining.notices import give_notice, has_left
from ecgdist.pretraining.stopping import Cause
from ecgdist.timelimits import RESIZE_S

_LOOK_S = 0.2
_LOG = logging.getLogger(__name__)


class GiveNotice(ControllerCallback, WorkerGroupCallback):  # type: ignore[misc]  # Ray's classes are untyped here
    """Tells the workers of a drained node, and of a resize, which then waits until they have saved."""

    def __init__(self) -> None:
        self._group: Any = None

    def after_worker_group_start(self, worker_group: Any) -> None:
        """Ray Train calls this when workers are ready."""
        self._group = worker_group

    def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:
        """Ray Train calls this whenever it changes its mind."""
        if isinstance(current_state, PreemptingState) and not isinstance(previous_state, PreemptingState):
            _unless_dead(lambda: self._group.execute_single(0, give_notice, Cause.DRAIN))
        if isinstance(current_state, ResizingState):
            _unless_dead(self._let_them_leave)

    async def before_controller_shutdown(self) -> None:
        """Ray Train calls this at the end, when it has ended the workers that it knows of.

        If one dies between its set-up and its training, Ray Train 2.60 forgets the whole group, and what was reserved
        for it would stay reserved: the next workers would find no CPU for their read tasks.
        """
        if self._group is not None and self._group.has_started():
            self._group.get_worker_group_state().shutdown()

    def _let_them_leave(self) -> None:
        self._group.execute_single(0, give_notice, Cause.RESIZE)
        deadline = time.monotonic() + RESIZE_S
        while not all(self._group.execute(has_left)):
            if time.monotonic() > deadline:
                _LOG.warning(
                    "the workers have not saved within %g s of the notice that their number changes, and are ended; "
                    "the steps since the last checkpoint are done again",
                    RESIZE_S,
                )
                return
            time.sleep(_LOOK_S)


def _unless_dead(action: Callable[[], None]) -> None:
    """A worker that is dead needs no notice: Ray Train finds out, and starts workers anew from the last checkpoint."""
    try:
        action()
    except ray.exceptions.RayActorError:
        return
