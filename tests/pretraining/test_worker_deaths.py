"""A worker that dies at an awkward moment: what Ray Train alone would end the run for."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from ecgdist.corpus import Corpus
from ecgdist.pretraining import raytrain
from ecgdist.pretraining.controller import GiveNotice
from tests.pretraining.test_job import config, run


class KillOnce(GiveNotice):
    """Kills one worker when all of them are set up, just before they are told to train; the first time only."""

    def __init__(self, marker: Path) -> None:
        super().__init__()
        self._marker = marker

    def after_worker_group_start(self, worker_group: Any) -> None:
        super().after_worker_group_start(worker_group)
        if not self._marker.exists():
            self._marker.touch()
            os.kill(worker_group.get_workers()[1].metadata.pid, signal.SIGKILL)


@pytest.mark.ray
@pytest.mark.slow
def test_a_worker_that_dies_before_it_trains_is_started_again(
    sample_corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raytrain, "GiveNotice", lambda: KillOnce(tmp_path / "marker"))
    done = run(config(sample_corpus, tmp_path / "run", steps=2, workers={"count": 2, "max_failures": 1}))
    assert (tmp_path / "marker").exists()
    assert "a worker died while it was started; starting again" in done.printed
    assert [row["step"] for row in done.rows] == [1, 2]


def test_workers_that_are_lost_too_often_are_told_in_a_sentence() -> None:
    """What the others meet, whose neighbour is gone, is not; and a defect of ours keeps its traceback."""
    died = WorkerHealthCheckFailedError("the worker is gone", ray.exceptions.ActorDiedError())
    error = ray.train.WorkerGroupError("rank 1: ...", {0: RuntimeError("closed by peer"), 1: died})
    told = raytrain._lost_workers(error, max_failures=3)
    assert "more often than workers.max_failures = 3 allows" in str(told)
    assert "rank 1 (the worker is gone The actor died" in str(told)
    assert "\n" not in str(told)
    assert raytrain._lost_workers(ray.train.WorkerGroupError("", {0: KeyError("x")}), 3) is None
    assert raytrain._lost_workers(ray.train.ControllerError(KeyError("x")), 3) is None
