"""A run in Ray Train loses a node and gets another one: it shrinks, goes on, and grows again."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest

from tests.pretraining.proof import unbroken_run
from tests.pretraining.proof_run import GLOBAL_BATCH, ProofRun
from tests.ray_nodes import ray_nodes

STEPS, EVERY = 150, 6
MICRO_BATCH = 4
"""Rows at a time: slow enough for a node to come while one worker trains."""
_WAIT_S = 120.0


def await_steps(run: ProofRun, steps: int, workers: int, since_s: float = 0.0) -> None:
    """Until so many workers have trained so many steps."""

    def done() -> set[int]:
        lines = run.watch.lines
        return {line.step for line in lines if line.world_size == workers and line.time_s > since_s}

    deadline = time.monotonic() + _WAIT_S
    while len(done()) < steps:
        run.watch.look()
        assert time.monotonic() < deadline, run.log.read_text()[-3000:]
        time.sleep(0.1)


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.timeout(1200)
def test_two_workers_one_and_two_again(tmp_path: Path) -> None:
    """Same batches, same losses; a lost node costs the steps since the last checkpoint, growing costs none."""
    unbroken = unbroken_run(tmp_path, STEPS)
    run = ProofRun(tmp_path / "elastic", unbroken.corpus, STEPS)
    elastic = {"count": None, "min": 1, "max": 2, "resize_check_s": 5, "cpus_each": 1.5}
    run.configure(workers=elastic, checkpoint={"every_steps": EVERY}, engine={"micro_batch": MICRO_BATCH})
    with ray_nodes() as nodes:
        run.environment |= nodes.environment
        nodes.add(cpus=0, head=True)
        nodes.add(cpus=2)
        lost = nodes.add(cpus=2)
        with run.driver() as driver:
            await_steps(run, 2 * EVERY + 3, workers=2)
            killed_s = time.time()
            lost.raylet.kill()
            nodes.remove(lost)
            await_steps(run, 3, workers=1)
            nodes.add(cpus=2)
            await_steps(run, 3, workers=2, since_s=killed_s + 1.0)
            run.finish(driver)
    history, lines = run.history(), run.watch.lines
    assert [count for count, _ in itertools.groupby(line.world_size for line in lines)] == [2, 1, 2]
    assert history.batches == unbroken.history().batches
    assert (history.changed, history.lost(STEPS, GLOBAL_BATCH)) == ([], 0)
    assert history.doubled(unbroken.facts()["steps_per_epoch"]) == 0
    shrunk = next(number for number, line in enumerate(lines) if line.world_size == 1)
    grown = next(number for number in range(shrunk, len(lines)) if lines[number].world_size == 2)
    assert 0 < lines[shrunk].step >= lines[shrunk - 1].step - 2 * EVERY, "it went on from a checkpoint"
    assert lines[grown].step == lines[grown - 1].step + 1, "it saved before it grew"
    losses = [row["loss"] for row in run.metrics()]
    assert losses == pytest.approx([row["loss"] for row in unbroken.metrics()], rel=1e-4)
