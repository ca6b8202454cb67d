"""Commands for runs that train somewhere else."""

from __future__ import annotations

from typing import Annotated

import typer

from ecgdist.commands.shell import reported, say


@reported
def jobs_stop(
    run_or_job: Annotated[
        str, typer.Argument(help="Folder of a run, local or s3://; or, with --address, the id of a Ray job.")
    ],
    address: Annotated[
        str | None, typer.Option(help="Dashboard of the cluster of the Ray job, e.g. http://HOST:8265.")
    ] = None,
    wait_minutes: Annotated[float, typer.Option(min=0, help="How long to wait for the checkpoint.")] = 30,
) -> None:
    """Have a run save a checkpoint and stop; the command that started it goes on from there."""
    from ecgdist.jobs import stop_job, stop_run
    from ecgdist.storage import Location

    wait_s = 60 * wait_minutes
    if address is None:
        say(str(stop_run(Location.of(run_or_job), wait_s, say)))
    else:
        say(str(stop_job(run_or_job, address, wait_s, say)))
