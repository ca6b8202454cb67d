"""Stop a run that trains somewhere, by its folder or by the Ray job that it is, with all that it has learned saved."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable

from ray.job_submission import JobDetails, JobSubmissionClient

from ecgdist.errors import ConfigError, DataError, TrainingError
from ecgdist.lease import holder
from ecgdist.pretraining.export import MODEL, RUN
from ecgdist.pretraining.stopping import Stopped, ask_to_stop, read_stopped
from ecgdist.storage import Location

OUT = "out"
"""Key of a Ray job's metadata that names the run's folder, for jobs without ``--out`` in their command."""
_LOOK_S = 1.0
_ENDS_S = 60.0
"""How long a job whose run has stopped may take to end by itself."""


def stop_run(run: Location, wait_s: float, say: Callable[[str], None]) -> Stopped:
    """Ask whoever trains in this folder to save and stop, and wait until the checkpoint is committed.

    Raises:
        DataError: if the folder is no run, or nobody trains there.
        TrainingError: if the run did not stop in time, or ended otherwise.
    """
    if not (run / RUN).exists():
        raise DataError(f"{run} is not a run: there is no {RUN} in it")
    who = holder(run)
    if who is None:
        raise DataError(f"nobody trains in {run}; there is nothing to stop")
    ask_to_stop(run, "ecgdist jobs stop")
    say(f"{run}: asked {who} to save and stop; waiting for the checkpoint")
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        if (stopped := read_stopped(run)) is not None:
            return stopped
        if holder(run) is None:
            how = "was finished" if (run / MODEL / "config.json").exists() else "ended"
            raise TrainingError(f"{run} {how} before it could be stopped")
        time.sleep(_LOOK_S)
    raise TrainingError(
        f"{run} has not stopped within {wait_s:.0f} s. It stops at the end of a step as soon as it trains and reads "
        f"its folder; wait with `ecgdist jobs stop {run}` again, or end its processes, which costs the steps since "
        "the last checkpoint"
    )


def stop_job(job_id: str, address: str, wait_s: float, say: Callable[[str], None]) -> Stopped:
    """Stop the run of a Ray job as `stop_run`, and then the job, if it does not end by itself.

    Raises:
        ConfigError: if the cluster cannot be reached, or the job or its run's folder is not known.
        DataError, TrainingError: as `stop_run`.
    """
    client = _client(address)
    try:
        run = run_of(client.get_job_info(job_id))
    except RuntimeError as error:
        raise ConfigError(f"the cluster at {address} knows no job {job_id}; see `ray job list`") from error
    stopped = stop_run(run, wait_s, say)
    deadline = time.monotonic() + _ENDS_S
    while not client.get_job_status(job_id).is_terminal() and time.monotonic() < deadline:
        time.sleep(_LOOK_S)
    if not client.get_job_status(job_id).is_terminal():
        client.stop_job(job_id)
    return stopped


def run_of(job: JobDetails) -> Location:
    """The folder of the run that a Ray job trains.

    Raises:
        ConfigError: if neither its metadata nor its command says so.
    """
    if (out := (job.metadata or {}).get(OUT)) is not None:
        return Location.of(out)
    words = shlex.split(job.entrypoint)
    for flag, value in zip(words, [*words[1:], ""], strict=True):
        if flag == "--out":
            return Location.of(value)
        if flag.startswith(("--out=", "out=")):
            return Location.of(flag.partition("=")[2])
    raise ConfigError(
        f"job {job.submission_id} does not say where its run is: its command has no --out, its metadata no {OUT!r}; "
        "name the run's folder instead"
    )


def _client(address: str) -> JobSubmissionClient:
    # Ray would take RAY_ADDRESS, where that is set, rather than the address that it is given.
    os.environ["RAY_API_SERVER_ADDRESS"] = address
    try:
        return JobSubmissionClient(address)
    except (ConnectionError, RuntimeError) as error:
        raise ConfigError(f"no Ray dashboard answers at {address}; it looks like http://HOST:8265") from error
