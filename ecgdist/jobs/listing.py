"""What a cluster knows of its jobs."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from ray.job_submission import JobDetails, JobSubmissionClient
from rich.markup import escape
from rich.table import Table

from ecgdist.config import Config
from ecgdist.errors import ConfigError, RunStopped, StorageError
from ecgdist.jobs.cluster import explained, job_details
from ecgdist.jobs.kinds import KINDS
from ecgdist.jobs.submit import COMMAND, OUT
from ecgdist.pretraining.stopping import read_stopped
from ecgdist.storage import Location

_NOT_FOUND = 127
"""Status of a shell that does not find a program."""


class Job(Config):
    """One job."""

    id: str
    """What `ecgdist jobs logs` and `stop` take."""
    command: str
    """Of `ecgdist`; of another program all that was submitted."""
    state: str
    """PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED, as Ray says."""
    out: str | None
    """Where its results are or will be, as far as it says so."""
    started: str | None
    """In UTC."""
    seconds: float | None
    """From there to its end, or until now."""
    exit_status: int | None
    """Of its command."""

    @classmethod
    def of(cls, found: JobDetails, now_s: float) -> Job:
        """What is said of a job.

        Args:
            found: what Ray says.
            now_s: the time, in seconds since 1970.
        """
        said = found.metadata or {}
        began_s, ended_s = (
            None if at_ms is None else at_ms / 1e3 for at_ms in (found.start_time, found.end_time)
        )
        started = None if began_s is None else datetime.fromtimestamp(began_s, UTC)
        return cls(
            id=found.submission_id or found.job_id,
            command=said.get(COMMAND) or found.entrypoint,
            state=str(found.status),
            out=said.get(OUT) or out_in(found.entrypoint),
            started=None if started is None else started.isoformat(timespec="seconds"),
            seconds=None if began_s is None else round((ended_s or now_s) - began_s, 1),
            exit_status=found.driver_exit_code,
        )


def list_jobs(client: JobSubmissionClient) -> list[Job]:
    """All jobs that the cluster remembers, the newest first.

    Raises:
        ConfigError: if it does not answer.
    """
    address = client.get_address()
    try:
        with explained(address):
            found = client.list_jobs()
    except RuntimeError as error:
        raise ConfigError(f"the cluster at {address} cannot list its jobs now; try again") from error
    now_s = time.time()
    return [
        Job.of(each, now_s) for each in sorted(found, key=lambda each: each.start_time or 0, reverse=True)
    ]


def log_of(client: JobSubmissionClient, job_id: str) -> str:
    """All that a job has printed so far.

    Raises:
        ConfigError: if the cluster does not know the job, or cannot give its log.
    """
    job_details(client, job_id)
    try:
        with explained(client.get_address()):
            text: str = client.get_job_logs(job_id)
            return text
    except RuntimeError as error:
        raise ConfigError(
            f"the log of job {job_id} cannot be had: its node is gone, or it was not submitted as a job"
        ) from error


def table(jobs: Sequence[Job]) -> Table:
    """Jobs for the console."""
    shown = Table()
    for column in ("id", "command", "state", "out", "started (UTC)", "took"):
        shown.add_column(column, overflow="fold")
    for job in jobs:
        started = "" if job.started is None else job.started[:19].replace("T", " ")
        took = "" if job.seconds is None else str(timedelta(seconds=round(job.seconds)))
        shown.add_row(*map(escape, (job.id, job.command, job.state, job.out or "", started, took)))
    return shown


def out_in(entrypoint: str) -> str | None:
    """The ``--out`` of a command."""
    try:
        words = shlex.split(entrypoint)
    except ValueError:
        return None
    for flag, value in zip(words, [*words[1:], None], strict=True):
        if flag == "--out":
            return value
        if flag.startswith(("--out=", "out=")):
            return flag.partition("=")[2]
    return None


def outcome(found: JobDetails) -> tuple[int, str]:
    """How a job has ended: an exit status (0, 75 if it saved a checkpoint and stopped, else 1), and a sentence."""
    job, name = Job.of(found, time.time()), f"job {found.submission_id}"
    results = f"; its results are in {job.out}" if job.out else ""
    if job.state == "SUCCEEDED":
        return 0, f"{name} has ended well{results}"
    if job.exit_status == RunStopped.exit_status:
        return RunStopped.exit_status, f"{name} has saved a checkpoint and stopped; submit it again to go on"
    if job.state == "STOPPED":
        if said := _stopped(job):
            return RunStopped.exit_status, f"{name}: {said}; submit it again to go on"
        return 1, f"{name} was stopped"
    if job.exit_status == _NOT_FOUND:
        return 1, f"{name} failed: the cluster's head did not find the interpreter; name it with --python"
    if job.exit_status is None:  # it did not come so far as to write a log
        return 1, f"{name} failed: {(found.message or 'nobody says why').strip()}"
    return 1, f"{name} failed with exit status {job.exit_status}"


def _stopped(job: Job) -> str | None:
    """What a stopped run said in its folder, if it trains and its folder can be read from here."""
    if job.out is None or job.command not in KINDS or not KINDS[job.command].saves:
        return None
    try:
        stopped = read_stopped(Location.of(job.out))
    except StorageError:
        return None
    return None if stopped is None else str(stopped)
