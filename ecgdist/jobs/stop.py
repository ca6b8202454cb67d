"""Stop a run that trains somewhere, by its folder or by the Ray job that it is, with all that it has learned saved."""

from __future__ import annotations

import time
from collections.abc import Callable

from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from ecgdist.errors import ConfigError, DataError, StorageError, TrainingError
from ecgdist.jobs.cluster import explained, job_details
from ecgdist.jobs.kinds import KINDS
from ecgdist.jobs.listing import out_in
from ecgdist.jobs.submit import COMMAND, OUT
from ecgdist.lease import holder
from ecgdist.pretraining.export import MODEL, RUN
from ecgdist.pretraining.stopping import Stopped, ask_to_stop, read_stopped
from ecgdist.storage import Location

_LOOK_S = 1.0
_ENDS_S = 60.0
"""How long a job whose run has stopped may take to end by itself."""


def is_run(text: str) -> bool:
    """Whether a user's text means the folder of a run rather than a job: by its look, or because it is there."""
    return "/" in text or Location.of(text).exists()


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


def stop_job(
    client: JobSubmissionClient, job_id: str, wait_s: float, say: Callable[[str], None]
) -> Stopped | None:
    """Stop a Ray job: a run as `stop_run` does, and then the job, if it does not end by itself.

    Returns what the run said, or None for a job that saves no checkpoint, or that had not begun: it was ended by Ray.

    Raises:
        ConfigError: if the cluster cannot be reached, or the job is not known or has ended.
        DataError, TrainingError: as `stop_run`.
    """
    found = job_details(client, job_id)
    if found.status.is_terminal():
        raise ConfigError(f"job {job_id} has ended already ({found.status}); there is nothing to stop")
    stopped = None
    if found.status == JobStatus.RUNNING and _trains_to_be_seen(found, say):
        stopped = stop_run(run_of(found), wait_s, say)
        _wait_for_end(client, job_id, _ENDS_S)
    if not job_details(client, job_id).status.is_terminal():
        with explained(client.get_address()):
            client.stop_job(job_id)
        _wait_for_end(client, job_id, wait_s)
    if not job_details(client, job_id).status.is_terminal():
        raise TrainingError(f"job {job_id} has not ended yet; ask again with `ecgdist jobs list`")
    return stopped


def _wait_for_end(client: JobSubmissionClient, job_id: str, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while not job_details(client, job_id).status.is_terminal() and time.monotonic() < deadline:
        time.sleep(_LOOK_S)


def _trains_to_be_seen(job: JobDetails, say: Callable[[str], None]) -> bool:
    """Whether to stop a job through its run's folder: not one of ours that has none, or none that is seen from here.

    Of jobs that were submitted otherwise, Ray would end most within seconds, saved or not.
    """
    command = (job.metadata or {}).get(COMMAND, "")
    if command not in KINDS:
        return True
    if not KINDS[command].saves:
        return False
    run = run_of(job)
    try:
        seen = holder(run) is not None
    except StorageError:
        seen = False
    if not seen:
        say(f"nobody is seen to train in {run} from here; Ray sends SIGTERM, and waits for a checkpoint")
    return seen


def run_of(job: JobDetails) -> Location:
    """The folder of the run that a Ray job trains.

    Raises:
        ConfigError: if neither its metadata nor its command says so.
    """
    out = (job.metadata or {}).get(OUT) or out_in(job.entrypoint)
    if out is None:
        raise ConfigError(
            f"job {job.submission_id} does not say where its run is: its command has no --out, its metadata no "
            f"{OUT!r}; name the run's folder instead"
        )
    return Location.of(out)
