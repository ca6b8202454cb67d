"""A resize waits for workers to save, and says so when it waits no longer."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from ray.train.v2._internal.execution.controller.state import InitializingState, ResizingState

from ecgdist.pretraining import controller
from ecgdist.pretraining.controller import GiveNotice
from ecgdist.pretraining.notices import give_notice, has_left
from ecgdist.pretraining.stopping import Cause


class Workers:
    """Stands for a group of Ray Train, whose workers leave after so many looks.

    A real one is resized in test_elastic_nodes.py.
    """

    def __init__(self, looks: float) -> None:
        self.looks = looks
        self.told: list[Any] = []

    def execute_single(self, rank: int, function: Callable[..., Any], *words: Any) -> None:
        self.told.append((rank, function, *words))

    def execute(self, function: Callable[..., Any]) -> list[bool]:
        assert function is has_left
        self.looks -= 1
        return [True, self.looks < 0]


@pytest.mark.parametrize(("looks", "said"), [(3, False), (float("inf"), True)])
def test_a_resize_that_waits_no_longer_is_said(
    looks: float, said: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(controller, "RESIZE_S", 1.5)
    workers, notices = Workers(looks), GiveNotice()
    notices.after_worker_group_start(workers)
    with caplog.at_level(logging.WARNING):
        notices.after_controller_state_update(InitializingState(), ResizingState(scaling_decision=None))
    assert workers.told == [(0, give_notice, Cause.RESIZE)]
    assert ("have not saved within 1.5 s" in caplog.text) == said
