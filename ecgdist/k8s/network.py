"""NetworkPolicies: everything is closed, and what a run needs is open on both sides."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ecgdist.k8s.manifests import Cluster, Manifests, Object, at, name_of

_METADATA = ipaddress.ip_address("169.254.169.254")
"""Where the providers' machines hand out the node's own credentials."""


@dataclass(frozen=True)
class Peer:
    """One end of a connection.

    Attributes:
        name: for people.
        labels: of the pod.
        namespace: where it is; None for the one that the manifests are for.
        address: instead of labels, what is no pod.
    """

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    namespace: str | None = None
    address: str | None = None

    @property
    def is_here(self) -> bool:
        """Whether the policies of the manifests hold for it."""
        return self.namespace is None and self.address is None


@dataclass(frozen=True)
class Connection:
    """A connection that a run needs; `port` 0 is any port."""

    source: Peer
    target: Peer
    port: int
    protocol: str = "TCP"

    def __str__(self) -> str:
        port = f"port {self.port}/{self.protocol}" if self.port else "all ports"
        return f"from {self.source.name} to {self.target.name}, {port}"


_DNS = Peer("the name service", {"k8s-app": "kube-dns"}, "kube-system")
_OPERATOR = Peer("the KubeRay operator", {"app.kubernetes.io/name": "kuberay-operator"}, "kuberay-system")
_REDIS = Peer("Redis", {"app.kubernetes.io/name": "redis"})
_INSIDE = Peer("the private network", address="10.1.2.3")


def everything_is_closed(manifests: Manifests) -> Iterator[str]:
    """A pod that no policy selects talks to everybody; one policy must select all, both ways."""
    if not any(map(_closes_everything, manifests.of_kind("NetworkPolicy"))):
        yield "no NetworkPolicy selects all pods for Ingress and Egress and allows nothing"


def _closes_everything(policy: Object) -> bool:
    spec = policy["spec"]
    is_whole = not spec.get("podSelector") and {"Ingress", "Egress"} <= set(spec.get("policyTypes", []))
    return is_whole and not spec.get("ingress") and not spec.get("egress")


def needed_ways_are_open(manifests: Manifests) -> Iterator[str]:
    """A connection is made only if a policy of either end allows it; a closed one shows as a run that hangs."""
    policies = manifests.of_kind("NetworkPolicy")
    for cluster in manifests.clusters:
        for way in _needed(manifests, cluster):
            ends = (("Egress", way.source, way.target), ("Ingress", way.target, way.source))
            for direction, own, other in ends:
                if own.is_here and not any(_allows(p, direction, own, other, way) for p in policies):
                    yield f"{cluster.where}: no {direction} {way}"


def nobody_outside_comes_in(manifests: Manifests) -> Iterator[str]:
    """Who reaches a Ray port runs code; only pods that are named may."""
    for policy in manifests.of_kind("NetworkPolicy"):
        for rule in at(policy, "spec.ingress", []):
            peers = rule.get("from", [])
            if not peers or any("ipBlock" in peer or not any(peer.values()) for peer in peers):
                yield f"{name_of(policy)} lets in whoever comes"


def metadata_service_is_closed(manifests: Manifests) -> Iterator[str]:
    """Its credentials are those of the node, which may do more than a run."""
    for policy in manifests.of_kind("NetworkPolicy"):
        for rule in at(policy, "spec.egress", []):
            if not rule.get("to") or any(_covers(peer.get("ipBlock"), str(_METADATA)) for peer in rule["to"]):
                yield f"{name_of(policy)} lets out to {_METADATA}"


def _needed(manifests: Manifests, cluster: Cluster) -> Iterator[Connection]:
    nodes = {pod.where: Peer(pod.where, pod.labels) for pod in cluster.pods()}
    head = next(iter(nodes.values()))
    submitters = [
        p for p in manifests.pods if p.role == "submitter" and p.where.startswith(f"{cluster.where} ")
    ]
    for each in nodes.values():
        yield from (Connection(each, other, 0) for other in nodes.values())
        yield from (Connection(each, _DNS, 53, protocol) for protocol in ("UDP", "TCP"))
        yield Connection(each, _INSIDE, 443)
    yield Connection(_OPERATOR, head, 8265)
    for pod in submitters:
        submitter = Peer(pod.where, pod.labels)
        yield Connection(submitter, head, 8265)
        yield Connection(submitter, _DNS, 53, "UDP")
    if cluster.grows:
        yield Connection(head, _INSIDE, 6443)
    if "gcsFaultToleranceOptions" in cluster.spec and "redis" in manifests.names("StatefulSet"):
        yield Connection(head, _REDIS, 6379)


def _allows(policy: Object, direction: str, own: Peer, other: Peer, way: Connection) -> bool:
    spec = policy["spec"]
    if direction not in spec.get("policyTypes", []) or not _selects(spec.get("podSelector", {}), own.labels):
        return False
    side, ends = ("egress", "to") if direction == "Egress" else ("ingress", "from")
    return any(
        _has_port(rule, way) and (not rule.get(ends) or any(_is_peer(peer, other) for peer in rule[ends]))
        for rule in spec.get(side, [])
    )


def _has_port(rule: Object, way: Connection) -> bool:
    ports = rule.get("ports")
    if not ports:
        return True
    return any(each.get("port") == way.port and each.get("protocol", "TCP") == way.protocol for each in ports)


def _is_peer(peer: Object, other: Peer) -> bool:
    if other.address is not None:
        return _covers(peer.get("ipBlock"), other.address)
    if "ipBlock" in peer or not _selects(peer.get("podSelector", {}), other.labels):
        return False
    if "namespaceSelector" not in peer:
        return other.namespace is None
    here = {} if other.namespace is None else {"kubernetes.io/metadata.name": other.namespace}
    return _selects(peer["namespaceSelector"], here)


def _selects(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a label selector takes these labels."""
    if not selector.get("matchLabels", {}).items() <= labels.items():
        return False
    return all(_holds(each, labels) for each in selector.get("matchExpressions", []))


def _holds(expression: Object, labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values", [])
    return {
        "In": labels.get(key) in values,
        "NotIn": labels.get(key) not in values,
        "Exists": key in labels,
        "DoesNotExist": key not in labels,
    }[expression["operator"]]


def _covers(block: Object | None, address: str) -> bool:
    if block is None:
        return False
    where = ipaddress.ip_address(address)
    excluded = any(where in ipaddress.ip_network(each) for each in block.get("except", []))
    return where in ipaddress.ip_network(block["cidr"]) and not excluded


RULES = (everything_is_closed, needed_ways_are_open, nobody_outside_comes_in, metadata_service_is_closed)
