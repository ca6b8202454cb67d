"""A rank that stands still, neither dead nor alive: it is named, and the run goes on from its newest checkpoint."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.pretraining.proof_run import ProofRun, pack_sample

_STEPS = 24
_DEADLINE_S = 300.0


@pytest.mark.ray
@pytest.mark.slow
def test_a_rank_that_stands_still_is_named_and_the_run_goes_on(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    pack_sample(corpus)
    run = ProofRun(tmp_path / "hung", str(corpus), _STEPS)
    run.configure(workers={"hung_after_minutes": 0.6})
    with run.driver() as driver:
        deadline = time.monotonic() + _DEADLINE_S
        while run.step < 8:
            run.watch.look()
            assert driver.poll() is None, run.log.read_text()
            assert time.monotonic() < deadline, run.log.read_text()
            time.sleep(0.05)
        stopped = run.training()[0]
        os.kill(stopped.pid, signal.SIGSTOP)
        run.finish(driver)
    said = run.log.read_text()
    assert f"process {stopped.pid} on" in said
    assert "has not been heard of for" in said
    assert "start again from the newest checkpoint" in said
    assert not stopped.is_running()
    assert [row["step"] for row in run.metrics()] == list(range(1, _STEPS + 1))
