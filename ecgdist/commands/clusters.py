"""Commands for what runs somewhere else: jobs on a Ray cluster, and runs by their folder."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer
import yaml

from ecgdist.commands.shell import AsJson, ConfigFile, Set, error_console, out_console, reported, say

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

    from ecgdist.jobs.submit import JobRequest, Options

_INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""

Address = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Dashboard of the cluster; default RAY_API_SERVER_ADDRESS, or http://127.0.0.1:8265.",
    ),
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="Id of a job, as `ecgdist jobs list` shows it.")]


@reported
def submit(
    command: Annotated[
        str, typer.Argument(help="pack, pretrain, finetune, evaluate, sweep, benchmark, embed or compare.")
    ],
    config_file: ConfigFile = None,
    address: Address = None,
    overrides: Set = None,
    detach: Annotated[bool, typer.Option("--detach", help="Do not follow the log; print the id.")] = False,
    environment: Annotated[
        list[str] | None,
        typer.Option("--env", metavar="NAME[=VALUE]", help="Variable of the job; repeatable; no secrets."),
    ] = None,
    python: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Interpreter on the cluster's head; default `python`, or this one on this machine.",
        ),
    ] = None,
    with_code: Annotated[
        bool, typer.Option("--with-code", help="Send ecgdist itself, for a cluster with another version.")
    ] = False,
    shared_files: Annotated[
        bool, typer.Option("--shared-files", help="All nodes see the local paths of the configuration.")
    ] = False,
    upload_limit_mb: Annotated[float, typer.Option(min=0, max=100, help="Most that is sent.")] = 10.0,
    driver_cpus: Annotated[float, typer.Option(min=0, help="CPUs for the command's own process.")] = 0,
    driver_gpus: Annotated[float, typer.Option(min=0, help="GPUs for it, e.g. for evaluate.")] = 0,
    job_id: Annotated[str | None, typer.Option("--id", help="Id of the job; default made up.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check, show what would be sent, and ask no cluster.")
    ] = False,
) -> None:
    """Run a command as a Ray job, and follow its log; exits as the job does, with 75 if it saved and stopped."""
    from ecgdist.jobs.cluster import address_of, connect
    from ecgdist.jobs.secrets import job_environment
    from ecgdist.jobs.submit import JobRequest, Options
    from ecgdist.jobs.submit import submit as send

    options = Options(
        environment=job_environment(environment or (), os.environ),
        python=python,
        with_code=with_code,
        shared_files=shared_files,
        limit_mb=upload_limit_mb,
        driver_cpus=driver_cpus,
        driver_gpus=driver_gpus,
        job_id=job_id,
    )
    request = JobRequest.load(command, config_file, overrides or ())
    if dry_run:
        _show(request, options)
        return
    where = address_of(address, os.environ)
    client = connect(where)
    sent = send(request, options, client, where, say)
    if detach:
        say(f"job {sent} is submitted; `ecgdist jobs logs {sent} --follow --address {where}` shows its log")
        return
    say(f"job {sent} is submitted; Ctrl-C leaves it running")
    _follow(client, sent, where)


def _show(request: JobRequest, options: Options) -> None:
    """What would be sent, and what the cluster would run."""
    from ecgdist.jobs.submit import entrypoint_of

    with request.prepared(options) as upload:
        upload.check_size(options.limit_mb)
        say(f"would send {upload}")
    say(f"to run {entrypoint_of(request.command, options.python or 'python')}")
    say("with " + " ".join(f"{name}={value}" for name, value in options.environment.items()))
    print(yaml.safe_dump(request.config.model_dump(mode="json"), sort_keys=False), end="")


@reported
def jobs_list(address: Address = None, as_json: AsJson = False) -> None:
    """The jobs of a cluster, the newest first: id, command, state, results, beginning and duration."""
    from ecgdist.jobs.cluster import address_of, connect
    from ecgdist.jobs.listing import list_jobs, table

    jobs = list_jobs(connect(address_of(address, os.environ)))
    if as_json:
        print(json.dumps([job.model_dump(mode="json") for job in jobs], indent=1))
    else:
        out_console.print(table(jobs))


@reported
def jobs_logs(
    job_id: JobId,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on until the job ends, and exit as it does.")
    ] = False,
    address: Address = None,
) -> None:
    """What a job has printed."""
    from ecgdist.jobs.cluster import address_of, connect
    from ecgdist.jobs.listing import log_of

    where = address_of(address, os.environ)
    client = connect(where)
    if follow:
        _follow(client, job_id, where)
    else:
        _write(log_of(client, job_id))


@reported
def jobs_stop(
    run_or_job: Annotated[
        str, typer.Argument(metavar="RUN|JOB", help="Folder of a run, local or s3://, or id of a job.")
    ],
    address: Address = None,
    wait_minutes: Annotated[float, typer.Option(min=0, help="How long to wait for the checkpoint.")] = 30,
) -> None:
    """Have a run save a checkpoint and stop; the command that started it goes on from there."""
    from ecgdist.jobs.cluster import address_of, connect
    from ecgdist.jobs.stop import is_run, stop_job, stop_run
    from ecgdist.storage import Location

    wait_s = 60 * wait_minutes
    if address is None and is_run(run_or_job):
        say(str(stop_run(Location.of(run_or_job), wait_s, say)))
        return
    stopped = stop_job(connect(address_of(address, os.environ)), run_or_job, wait_s, say)
    say(f"job {run_or_job} has ended" if stopped is None else str(stopped))


def _follow(client: JobSubmissionClient, job_id: str, address: str) -> None:
    """Show the log of a job until it ends, and exit as it does."""
    from ecgdist.jobs.follow import LogFollower
    from ecgdist.jobs.listing import outcome

    again = f"`ecgdist jobs logs {job_id} --follow --address {address}`"
    try:
        ended = LogFollower(client, job_id, _write, _tell).follow()
    except KeyboardInterrupt:
        _tell(
            f"job {job_id} goes on; {again} follows it again, `ecgdist jobs stop {job_id} --address {address}` stops it"
        )
        raise typer.Exit(_INTERRUPTED) from None
    status, sentence = outcome(ended)
    _tell(sentence)
    if status != 0:
        raise typer.Exit(status)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _tell(sentence: str) -> None:
    """Beside the log, which alone is on standard output."""
    error_console.print(sentence, markup=False, highlight=False, soft_wrap=True)
