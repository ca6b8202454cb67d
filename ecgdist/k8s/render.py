"""An overlay's manifests for one configuration: its job, its numbers, one image by digest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import ecgdist
from ecgdist.config import Config, load, merged, parse_overrides, read_yaml
from ecgdist.downstream.sweep.config import SweepConfig
from ecgdist.errors import ConfigError
from ecgdist.k8s.check import check
from ecgdist.k8s.house import ROLE_ANNOTATION
from ecgdist.k8s.manifests import Cluster, Manifests, Object, at, build_overlay
from ecgdist.k8s.sizes import GIB, Sizes
from ecgdist.packing.config import PackConfig
from ecgdist.pretraining.config import PretrainConfig, TrainConfig

COMPONENT = "app.kubernetes.io/component"
JOBS: dict[str, type[Config]] = {"pack": PackConfig, "sweep": SweepConfig, "pretrain": PretrainConfig}
"""Jobs that can be rendered, by the name of their RayJob, and what configures them."""
_CLUSTER, _REDIS = "cluster", "redis"
_CPU, _GPU = "cpu", "gpu"
"""Groups of workers."""
_OURS = "ecgdist"
"""Name of the image in the manifests, and beginning of other names."""


@dataclass(frozen=True)
class Job:
    """What is to run.

    Attributes:
        name: of the RayJob, a key of `JOBS`.
        config: validated.
        text: as YAML, as it was given.
    """

    name: str
    config: Config
    text: str

    @classmethod
    def load(cls, file: str, overrides: Sequence[str] = ()) -> Job:
        """Read a configuration, whose keys say which job it is for.

        Raises:
            ConfigError: for a wrong key or value.
        """
        values = merged(read_yaml(file), parse_overrides(overrides))
        name = "pack" if "sources" in values else "sweep" if "space" in values else "pretrain"
        config = load(JOBS[name], file, overrides)
        return cls(name, config, yaml.safe_dump(values, sort_keys=False))


@dataclass(frozen=True)
class Site:
    """What an overlay cannot know.

    Attributes:
        image: of this project, ``NAME@sha256:DIGEST``.
        redis_image: likewise; None leaves the server out, for one that is there already.
        bucket_role: ARN of the role for the bucket; None leaves the annotation out, for EKS Pod Identity.
    """

    image: str
    redis_image: str | None = None
    bucket_role: str | None = None


def find_manifests(folder: str | None = None) -> Path:
    """The folder of the manifests: the one named, or the one beside the package in a checkout."""
    return Path(folder) if folder is not None else Path(ecgdist.__file__).parent.parent / "k8s"


def overlays(folder: Path) -> list[str]:
    """Names of the overlays in the folder of the manifests.

    Raises:
        ConfigError: if there are none.
    """
    found = sorted(each.parent.name for each in folder.glob("overlays/*/kustomization.yaml"))
    if not found:
        raise ConfigError(
            f"{folder} holds no overlays; the manifests are in the folder k8s of the repository, not in the package: "
            "name it with --manifests"
        )
    return found


def render(
    job: Job,
    folder: Path,
    overlay: str,
    site: Site,
    workers_per_pod: int = 8,
    worker_gib: float | None = None,
    standing: bool = False,
) -> Manifests:
    """The manifests of an overlay for one job.

    Args:
        job: what is to run; the overlay's other jobs are left out.
        folder: of the manifests.
        overlay: name of one in it.
        site: what the overlay cannot know.
        workers_per_pod: training workers of one pod, at most.
        worker_gib: memory for a training worker; None reckons it.
        standing: a cluster of that size instead of the job, to submit to.

    Raises:
        ConfigError: if a rule of `ecgdist.k8s.check` does not hold, or there is no such overlay.
    """
    if overlay not in (known := overlays(folder)):
        raise ConfigError(f"--overlay {overlay} is none of {', '.join(known)} in {folder}")
    built = build_overlay(folder / "overlays" / overlay)
    wanted = _CLUSTER if standing else job.name
    left_out = {_CLUSTER, *(each["metadata"]["name"] for each in built.jobs)} - {wanted}
    if site.redis_image is None:
        left_out.add(_REDIS)
    kept = [
        each for each in built.objects if _component(each) not in left_out and each["kind"] != "ConfigMap"
    ]
    (namespace,) = built.names("Namespace")
    # What Ray's objects refer to comes before them, as kubectl applies one after the other.
    objects = [*kept, _config_map(job, namespace)]
    manifests = Manifests(sorted(objects, key=lambda each: str(each["apiVersion"]).startswith("ray.io/")))
    _fill_site(manifests, site)
    _start(manifests, job)
    if (trained := _trained(job.config)) is not None:
        (cluster,) = manifests.clusters
        run, runs = trained
        sizes = Sizes.of(run, workers_per_pod, _on_gpu(cluster, run), worker_gib, runs)
        _fill_numbers(manifests, cluster, sizes)
    if findings := check(manifests):
        raise ConfigError("the manifests are not valid: " + "; ".join(map(str, findings)))
    return manifests


def to_yaml(manifests: Manifests) -> str:
    """A stream for ``kubectl apply -f -``."""
    return yaml.dump_all(manifests.objects, Dumper=_Plain, sort_keys=False)


class _Plain(yaml.SafeDumper):
    """Without anchors: kustomize's copies are equal by chance."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _component(thing: Object) -> str | None:
    found: str | None = at(thing, "metadata.labels", {}).get(COMPONENT)
    return found


def _config_map(job: Job, namespace: str) -> Object:
    """The job's configuration; one of its own for each job, so that another job's file stays where it is."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"{_OURS}-{job.name}", "namespace": namespace},
        "data": {f"{job.name}.yaml": job.text},
    }


def _fill_site(manifests: Manifests, site: Site) -> None:
    images = {_OURS: site.image, _REDIS: site.redis_image}
    for container in _containers(manifests.objects):
        container["image"] = images.get(container["image"], container["image"])
    for account in manifests.of_kind("ServiceAccount"):
        annotations = account["metadata"].get("annotations", {})
        if annotations.pop(ROLE_ANNOTATION, None) is not None and site.bucket_role is not None:
            annotations[ROLE_ANNOTATION] = site.bucket_role


def _containers(thing: Any) -> Iterator[Object]:
    """Everything with an image, at any depth."""
    if isinstance(thing, dict):
        if isinstance(thing.get("image"), str):
            yield thing
        thing = list(thing.values())
    if isinstance(thing, list):
        for each in thing:
            yield from _containers(each)


def _start(manifests: Manifests, job: Job) -> None:
    """Have what was asked for run, with its configuration."""
    for cluster in manifests.clusters:
        cluster.owner["spec"]["suspend"] = False
        for volume in cluster.spec["headGroupSpec"]["template"]["spec"]["volumes"]:
            if "configMap" in volume:
                volume["configMap"]["name"] = f"{_OURS}-{job.name}"
    for each in manifests.jobs:
        each["spec"]["entrypoint"] = f"python jobs/{job.name}.py /etc/ecgdist/{job.name}.yaml"


def _trained(config: Config) -> tuple[TrainConfig, int | None] | None:
    """A run that a job trains, and how many of its kind it leads at the same time; None if it trains nothing."""
    if isinstance(config, SweepConfig):
        return config.first(), config.concurrent
    return (config, None) if isinstance(config, PretrainConfig) else None


def _on_gpu(cluster: Cluster, config: TrainConfig) -> bool:
    """Whether workers get GPUs, where the overlay has some.

    Raises:
        ConfigError: if it has none and the configuration wants them.
    """
    has_gpus = any(group["groupName"] == _GPU for group in cluster.groups)
    if config.workers.accelerator == "gpu" and not has_gpus:
        raise ConfigError(
            "workers.accelerator = gpu, but the overlay has no GPU group; choose another overlay"
        )
    return has_gpus and config.workers.accelerator != "cpu"


def _fill_numbers(manifests: Manifests, cluster: Cluster, sizes: Sizes) -> None:
    for group in cluster.groups:
        if group["groupName"] == (_GPU if sizes.gpus else _CPU):
            _fill_group(group, sizes)
        elif group["groupName"] == _GPU:
            group |= {"replicas": 0, "minReplicas": 0, "maxReplicas": 0}
    for budget in manifests.of_kind("PodDisruptionBudget"):
        if at(budget, "spec.selector.matchLabels", {}).get("ray.io/group") == _GPU:
            budget["spec"]["minAvailable"] = sizes.least


def _fill_group(group: Object, sizes: Sizes) -> None:
    group |= {"replicas": sizes.least, "minReplicas": sizes.least, "maxReplicas": sizes.most}
    start, pod = group["rayStartParams"], group["template"]["spec"]
    start["num-cpus"], start["object-store-memory"] = str(sizes.ray_cpus), str(sizes.store_gib * GIB)
    has: dict[str, str] = {"cpu": str(sizes.cpus), "memory": f"{sizes.memory_gib}Gi"}
    if sizes.gpus:
        start["num-gpus"] = has["nvidia.com/gpu"] = str(sizes.gpus)
    for which in ("requests", "limits"):
        pod["containers"][0]["resources"][which] |= has
    for volume in pod["volumes"]:
        if at(volume, "emptyDir.medium") == "Memory":
            volume["emptyDir"]["sizeLimit"] = f"{sizes.shm_gib}Gi"
