"""Check manifests by every rule of this package."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ecgdist.k8s import house, kuberay, network, podsecurity, resources
from ecgdist.k8s.manifests import Manifests, name_of

RULES = (podsecurity.namespace_is_restricted, *house.RULES, *resources.RULES, *network.RULES)
"""Rules for all objects together."""
OWNER_RULES = (*kuberay.OWNER_RULES, *house.OWNER_RULES)
"""Rules for every RayCluster and RayJob."""
CLUSTER_RULES = (*kuberay.CLUSTER_RULES, *house.CLUSTER_RULES)
"""Rules for every Ray cluster, a RayJob's too."""
JOB_RULES = (*kuberay.JOB_RULES, *house.JOB_RULES)
"""Rules for every RayJob."""
POD_RULES = (*podsecurity.POD_RULES, *resources.POD_RULES, *house.POD_RULES)
"""Rules for every pod."""
CONTAINER_RULES = (*podsecurity.CONTAINER_RULES, *resources.CONTAINER_RULES, *house.CONTAINER_RULES)
"""Rules for every container of a pod."""


@dataclass(frozen=True)
class Finding:
    """A rule that does not hold.

    Attributes:
        rule: its name.
        what: where, and what is there.
        reason: why the rule is one.
    """

    rule: str
    what: str
    reason: str

    def __str__(self) -> str:
        return f"{self.what} ({self.rule}: {self.reason})"


def check(manifests: Manifests) -> list[Finding]:
    """Every rule that does not hold, and where."""
    return list(_findings(manifests))


def _findings(manifests: Manifests) -> Iterator[Finding]:
    yield from _apply(RULES, "", manifests)
    for owner in manifests.of_kind("RayCluster", "RayJob"):
        yield from _apply(OWNER_RULES, name_of(owner), owner)
    for job in manifests.jobs:
        yield from _apply(JOB_RULES, name_of(job), job)
    for cluster in manifests.clusters:
        yield from _apply(CLUSTER_RULES, cluster.where, cluster)
    for pod in manifests.pods:
        yield from _apply(POD_RULES, pod.where, pod)
        for container in pod.containers:
            yield from _apply(CONTAINER_RULES, f"{pod.where} {container['name']}", pod, container)


def _apply(rules: Iterable[Callable[..., Iterator[str]]], where: str, *subject: Any) -> Iterator[Finding]:
    for rule in rules:
        reason = " ".join((rule.__doc__ or "").split())
        for what in rule(*subject):
            yield Finding(rule.__name__, f"{where}: {what}" if where else what, reason)
