"""A run is asked to stop by a file in its folder, and says in another one that it has."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from ray.job_submission import JobDetails, JobType
from typer.testing import CliRunner

from ecgdist.cli import app
from ecgdist.errors import ConfigError, DataError, TrainingError
from ecgdist.jobs.stop import run_of, stop_run
from ecgdist.lease import Lease
from ecgdist.pretraining.group import Group
from ecgdist.pretraining.job import _ask_to_stop
from ecgdist.pretraining.notices import Notice, Notices
from ecgdist.pretraining.stopping import (
    STOP,
    Cause,
    Stopped,
    ask_to_stop,
    asked_to_stop,
    forget_stop,
    read_stopped,
    say_stopped,
)
from ecgdist.pretraining.votes import Votes
from ecgdist.storage import Location

STOPPED = Stopped(step=7, total_steps=40, checkpoint="step-00000007-x", cause=Cause.ASKED, reason="SIGTERM")
_WAIT_S = 30.0


def a_run(folder: Path) -> Location:
    (folder / "run.json").write_text("{}")
    return Location.of(folder)


def test_what_was_asked_and_said_is_read_again_and_forgotten_at_the_next_start(tmp_path: Path) -> None:
    run = Location.of(tmp_path)
    assert asked_to_stop(run) is None
    assert read_stopped(run) is None
    ask_to_stop(run, "a person")
    say_stopped(run, STOPPED)
    assert asked_to_stop(run) == "a person"
    assert read_stopped(run) == STOPPED
    assert str(STOPPED) == "stopped after step 7 of 40 (SIGTERM), saved as step-00000007-x"
    forget_stop(run)
    forget_stop(run)
    assert asked_to_stop(run) is None
    assert read_stopped(run) is None


def test_a_stop_file_made_by_hand_is_heeded(tmp_path: Path) -> None:
    (tmp_path / STOP).touch()
    assert asked_to_stop(Location.of(tmp_path)) == "stop.json is in its folder"


def test_a_signal_asks_and_what_storage_has_against_it_is_said(tmp_path: Path) -> None:
    """An error in a signal's handler would end the driver, and training with it."""
    said: list[str] = []
    _ask_to_stop(Location.of(tmp_path), said.append, "SIGTERM").join()
    assert asked_to_stop(Location.of(tmp_path)) == "SIGTERM"
    (tmp_path / "file").touch()
    _ask_to_stop(Location.of(tmp_path / "file" / "run"), said.append, "SIGINT").join()
    assert "saving a checkpoint" in said[1]
    assert "workers cannot be told to stop" in said[2]
    assert "SIGINT once more ends them" in said[2]


def test_rank_0_votes_to_stop_once_the_flag_is_there(tmp_path: Path) -> None:
    run = Location.of(tmp_path)
    with Notices(run, Group()) as notices:
        assert notices.votes(save=True) == Votes(save=True)
        ask_to_stop(run, "a person")
        deadline = time.monotonic() + _WAIT_S
        while not notices.votes(save=False).stop:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert notices.of_all() == Notice(Cause.ASKED, "a person")


def test_stopping_waits_for_what_the_run_says(tmp_path: Path) -> None:
    run = a_run(tmp_path)

    def train() -> None:
        while asked_to_stop(run) is None:
            time.sleep(0.05)
        say_stopped(run, STOPPED)

    said: list[str] = []
    with Lease.take(run):
        threading.Thread(target=train).start()
        assert stop_run(run, _WAIT_S, said.append) == STOPPED
    assert "save and stop" in said[0]


def test_only_a_run_that_somebody_trains_can_be_stopped(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is not a run: there is no run\.json"):
        stop_run(Location.of(tmp_path), 0.0, print)
    with pytest.raises(DataError, match="nobody trains in"):
        stop_run(a_run(tmp_path), 0.0, print)
    result = CliRunner().invoke(app, ["jobs", "stop", str(tmp_path)])
    assert result.exit_code == 1
    assert "nobody trains in" in result.output


def test_a_run_that_ends_or_does_not_hear_is_not_called_stopped(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    with Lease.take(run), pytest.raises(TrainingError, match="has not stopped within 0 s"):
        stop_run(run, 0.0, print)
    lease = Lease.take(run)
    threading.Timer(0.5, lease.release).start()
    with pytest.raises(TrainingError, match="ended before it could be stopped"):
        stop_run(run, _WAIT_S, print)


@pytest.mark.parametrize(
    ("entrypoint", "metadata"),
    [
        ("ecgdist pretrain run.yaml --out s3://b/run --workers 4", {}),
        ("ecgdist pretrain run.yaml --out=s3://b/run", {}),
        ("ecgdist pretrain --set 'out=s3://b/run'", {}),
        ("ecgdist pretrain run.yaml", {"out": "s3://b/run"}),
    ],
)
def test_the_run_of_a_ray_job_is_in_its_command_or_its_metadata(
    entrypoint: str, metadata: dict[str, str]
) -> None:
    assert run_of(job(entrypoint, metadata)).uri == "s3://b/run"


def test_a_ray_job_that_does_not_name_its_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match="job j1 does not say where its run is: its command has no --out",
    ):
        run_of(job("ecgdist pretrain run.yaml", {}))


def job(entrypoint: str, metadata: dict[str, str]) -> JobDetails:
    return JobDetails(
        type=JobType.SUBMISSION,
        submission_id="j1",
        status="RUNNING",
        entrypoint=entrypoint,
        metadata=metadata,
    )


DRIVER = """
import sys, time
from ecgdist.pretraining.signals import beside_signals, heeding_signals
asked = []
def work():
    while not asked or sys.argv[1] == "deaf":
        time.sleep(0.05)
    return "saved after " + asked[0]
with heeding_signals(asked.append):
    print("ready", flush=True)
    print(beside_signals(work), flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks_and_the_second_ends(number: signal.Signals) -> None:
    hearing, deaf = (
        subprocess.Popen([sys.executable, "-c", DRIVER, kind], stdout=subprocess.PIPE, text=True)
        for kind in ("hearing", "deaf")
    )
    for process in (hearing, deaf):
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
    assert hearing.communicate(timeout=_WAIT_S)[0] == f"saved after {number.name}\n"
    assert hearing.returncode == 0
    with pytest.raises(subprocess.TimeoutExpired):
        deaf.wait(0.5)
    deaf.send_signal(number)
    assert deaf.wait(_WAIT_S) == 128 + number
