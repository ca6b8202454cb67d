"""Runs that are Ray jobs are stopped: by us, by `ray job stop` with time to save, and by `ray job stop` as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ecgdist.pretraining.checkpoint import CheckpointStore
from ecgdist.pretraining.stopping import Cause, read_stopped
from tests.conftest import free_port
from tests.pretraining.proof_run import ProofRun, command, pack_sample
from tests.ray_nodes import ray_nodes

STEPS, EVERY = 2000, 10
"""More steps than a test has time for."""
_WAIT_S = 150.0


class Jobs:
    """A cluster that takes jobs."""

    def __init__(self, port: int, environment: dict[str, str], folder: Path) -> None:
        self.address = f"http://127.0.0.1:{port}"
        self.environment, self.corpus, self._folder = environment, str(folder / "corpus"), folder
        pack_sample(Path(self.corpus))

    def start(self, name: str, **environment: str) -> ProofRun:
        """A run as a job of this name, which has trained over its second checkpoint."""
        run = ProofRun(self._folder / name, self.corpus, STEPS)
        run.configure(checkpoint={"every_steps": EVERY})
        words = [*command("pretrain", str(run.settings)), "--out", run.out]
        more = ["--runtime-env-json", json.dumps({"env_vars": environment})]
        self.ray("submit", "--no-wait", "--submission-id", name, *more, "--", *words)
        deadline = time.monotonic() + _WAIT_S
        while run.step < 2 * EVERY + 3:
            run.watch.look()
            assert time.monotonic() < deadline, self.logs(name)
            time.sleep(0.1)
        return run

    def ray(self, verb: str, *words: str) -> str:
        """`ray job VERB`."""
        whole = [str(Path(sys.executable).with_name("ray")), "job", verb, "--address", self.address, *words]
        done = subprocess.run(whole, capture_output=True, text=True, env=os.environ | self.environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def logs(self, name: str) -> str:
        return self.ray("logs", name)

    def ended(self, name: str) -> str:
        """How a job has ended, as `ray job status` says it."""
        return self.ray("status", name)


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    with ray_nodes() as nodes, pytest.MonkeyPatch.context() as patch:
        for name, value in nodes.environment.items():
            patch.setenv(name, value)
        port = free_port()
        nodes.add(cpus=4, head=True, dashboard_port=port)
        yield Jobs(port, nodes.environment, tmp_path_factory.mktemp("jobs"))


def newest_step(run: ProofRun) -> int:
    return int(CheckpointStore(run.run).names()[-1].split("-")[1])


def steps_done(run: ProofRun) -> int:
    run.watch.look()
    return run.step + 1


@pytest.mark.slow
@pytest.mark.ray
def test_jobs_stop_saves_and_ends_the_job(jobs: Jobs) -> None:
    run = jobs.start("asked")
    words = [*command("jobs", "stop", "asked"), "--address", jobs.address]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | jobs.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    stopped = read_stopped(run.run)
    assert stopped is not None
    assert (stopped.cause, stopped.step) == (Cause.ASKED, newest_step(run))
    assert stopped.step == steps_done(run), "no step is lost"
    assert f"stopped after step {stopped.step} of {STEPS} (ecgdist jobs stop)" in done.stdout
    assert "Job 'asked' failed" in jobs.ended("asked"), "its exit status is not 0: the run is not finished"
    assert "the same command goes on from there" in jobs.logs("asked")


@pytest.mark.long
@pytest.mark.ray
def test_ray_job_stop_saves_if_it_is_given_time(jobs: Jobs) -> None:
    run = jobs.start("patient", RAY_JOB_STOP_WAIT_TIME_S="60")
    jobs.ray("stop", "patient")
    assert "Job 'patient' was stopped" in jobs.ended("patient")
    assert newest_step(run) == steps_done(run)
    assert "SIGTERM: saving a checkpoint" in jobs.logs("patient")


@pytest.mark.long
@pytest.mark.ray
def test_ray_job_stop_as_it_is_costs_no_more_than_the_steps_since_a_checkpoint(jobs: Jobs) -> None:
    """It kills the driver after 3 s, saved or not; what is in the folder stays whole, and nothing trains on."""
    run = jobs.start("hasty")
    jobs.ray("stop", "hasty")
    assert "Job 'hasty' was stopped" in jobs.ended("hasty")
    lost = steps_done(run) - newest_step(run)
    assert 0 <= lost <= 2 * EVERY
    time.sleep(3.0)
    assert steps_done(run) - newest_step(run) == lost, "nobody trains any more"
