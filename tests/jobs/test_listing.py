"""What is said of jobs, from what Ray knows of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ray.job_submission import JobDetails, JobType

from ecgdist.jobs.listing import Job, outcome
from ecgdist.pretraining.stopping import Cause, Stopped, say_stopped
from ecgdist.storage import Location


def details(**values: Any) -> JobDetails:
    usual = {
        "type": JobType.SUBMISSION,
        "submission_id": "j1",
        "status": "SUCCEEDED",
        "entrypoint": "python job.py pretrain job.yaml",
        "metadata": {"command": "pretrain", "out": "s3://b/run"},
        "start_time": 1_700_000_000_000,
        "end_time": 1_700_000_090_500,
        "driver_exit_code": 0,
    }
    return JobDetails(**(usual | values))


def test_a_job_has_its_command_folder_and_times() -> None:
    assert Job.of(details(), 1_800_000_000.0) == Job(
        id="j1",
        command="pretrain",
        state="SUCCEEDED",
        out="s3://b/run",
        started="2023-11-14T22:13:20+00:00",
        seconds=90.5,
        exit_status=0,
    )
    running = Job.of(details(status="RUNNING", end_time=None, driver_exit_code=None), 1_700_000_010.0)
    assert (running.state, running.seconds, running.exit_status) == ("RUNNING", 10.0, None)


def test_a_job_that_was_submitted_otherwise_is_its_command() -> None:
    other = Job.of(details(entrypoint="python x.py --out s3://b/o 'a b'", metadata={}), 0)
    assert (other.command, other.out) == ("python x.py --out s3://b/o 'a b'", "s3://b/o")
    assert Job.of(details(entrypoint="echo 'unbalanced", metadata=None), 0).out is None


@pytest.mark.parametrize(
    ("values", "status", "sentence"),
    [
        ({}, 0, "job j1 has ended well; its results are in s3://b/run"),
        (
            {"status": "FAILED", "driver_exit_code": 75},
            75,
            "job j1 has saved a checkpoint and stopped; submit",
        ),
        ({"status": "FAILED", "driver_exit_code": 3}, 1, "job j1 failed with exit status 3"),
        (
            {"status": "FAILED", "driver_exit_code": 127},
            1,
            "did not find the interpreter; name it with --python",
        ),
        (
            {"status": "FAILED", "driver_exit_code": None, "message": "runtime_env setup failed"},
            1,
            "job j1 failed: runtime_env setup failed",
        ),
        (
            {"status": "STOPPED", "driver_exit_code": None, "metadata": {"command": "pack"}},
            1,
            "job j1 was stopped",
        ),
    ],
)
def test_how_a_job_ended_is_an_exit_status_and_a_sentence(
    values: dict[str, Any], status: int, sentence: str
) -> None:
    found, said = outcome(details(**values))
    assert found == status
    assert sentence in said


def test_a_stopped_job_whose_run_says_that_it_saved_counts_as_saved(tmp_path: Path) -> None:
    stopped = details(
        status="STOPPED", driver_exit_code=None, metadata={"command": "pretrain", "out": str(tmp_path)}
    )
    assert outcome(stopped) == (1, "job j1 was stopped")
    note = Stopped(step=7, total_steps=9, checkpoint="c", cause=Cause.SIGNAL, reason="SIGTERM")
    say_stopped(Location.of(tmp_path), note)
    assert outcome(stopped) == (75, f"job j1: {note}; submit it again to go on")
