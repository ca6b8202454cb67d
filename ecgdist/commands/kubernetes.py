"""Commands for manifests."""

from __future__ import annotations

from typing import Annotated

import typer

from ecgdist.commands.shell import Set, reported, say


@reported
def k8s_render(
    config_file: Annotated[str, typer.Argument(metavar="CONFIG.yaml", help="Of pack, pretrain or sweep.")],
    overlay: Annotated[str, typer.Option(help="cpu-dev, gpu, gpu-spot, airgapped, or one of your own.")],
    image: Annotated[str, typer.Option(help="Image of this project, NAME@sha256:DIGEST.")],
    redis_image: Annotated[
        str | None, typer.Option(help="Image of Redis, likewise; without it, one must answer at redis:6379.")
    ] = None,
    bucket_role: Annotated[
        str | None, typer.Option(help="ARN of the role for the bucket; without it, by EKS Pod Identity.")
    ] = None,
    workers_per_pod: Annotated[
        int, typer.Option(min=1, help="Training workers of one pod: the GPUs of one machine.")
    ] = 8,
    worker_gib: Annotated[
        float | None, typer.Option(min=0, help="Memory for one training worker; reckoned if not given.")
    ] = None,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="A standing cluster of that size, instead of the job.")
    ] = False,
    manifests: Annotated[str | None, typer.Option(help="Folder k8s of the repository.")] = None,
    overrides: Set = None,
) -> None:
    """Print the manifests of an overlay with the job, workers, GPUs, CPUs and memory of a configuration."""
    from ecgdist.k8s.render import Job, Site, find_manifests, render, to_yaml

    job, site = Job.load(config_file, overrides or ()), Site(image, redis_image, bucket_role)
    folder = find_manifests(manifests)
    print(to_yaml(render(job, folder, overlay, site, workers_per_pod, worker_gib, cluster)), end="")


@reported
def k8s_check(
    file: Annotated[str, typer.Argument(help="Manifests in YAML, or - for standard input.")],
) -> None:
    """Check manifests by the rules of KubeRay, Kueue, Pod Security and this project; exits with 1 if one is broken."""
    from ecgdist.k8s.check import check
    from ecgdist.k8s.manifests import load_manifests

    findings = check(load_manifests(file))
    for finding in findings:
        say(str(finding))
    say(f"{len(findings)} broken rules" if findings else "no rule is broken")
    if findings:
        raise typer.Exit(1)
