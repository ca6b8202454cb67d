"""A Ray cluster, asked through its dashboard: who may use it, which Ray it runs, and what its nodes have."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from ecgdist.doctor.clock import clock_finding
from ecgdist.doctor.finding import Finding
from ecgdist.doctor.objectstorage import is_private
from ecgdist.doctor.reaching import reached
from ecgdist.doctor.versions import ray_finding

_ANSWER_S = 10.0
_DASHBOARD_PORT = 8265

_MODE, _TOKEN, _TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
_DEFAULT_TOKEN_PATH = Path("~/.ray/auth_token")
"""Where Ray looks last; the order is that of its documentation."""


@dataclass
class Cluster:
    """What was found out.

    Attributes:
        findings: in the order in which it was looked.
        nodes: resources of every living node, by Ray's names; None if nobody was asked, or nobody answered.
        hosts: address of every living node.
    """

    findings: list[Finding] = field(default_factory=list)
    nodes: list[dict[str, float]] | None = None
    hosts: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Answer:
    status: int
    content: Any
    date: str | None
    before_s: float
    after_s: float


def examine_cluster(address: str, own_ray: str | None = None) -> Cluster:
    """Ask the dashboard at `address` (``http://HOST:8265``). After an error, what needs it is not tried.

    Args:
        address: of the dashboard, where jobs are submitted.
        own_ray: version of Ray of this environment, to compare with.
    """
    cluster, where = Cluster(), urlsplit(address)
    if where.scheme not in ("http", "https") or not where.hostname:
        cluster.findings.append(
            Finding(
                check="dashboard",
                level="error",
                measured=f"{address!r} is no address of a dashboard",
                advice="write http://HOST:8265",
            )
        )
        return cluster
    cluster.findings.append(_port("dashboard", where.hostname, where.port or _DASHBOARD_PORT))
    if cluster.findings[-1].level == "ok":
        root = f"{where.scheme}://{where.hostname}:{where.port or _DASHBOARD_PORT}"
        _ask(cluster, root, where, own_ray)
    return cluster


def _ask(cluster: Cluster, root: str, where: SplitResult, own_ray: str | None) -> None:
    try:
        anonymous = _get(f"{root}/api/jobs/", {})
        headers = {} if anonymous.status == 200 else _headers()
        version = _get(f"{root}/api/version", headers)
        if not {anonymous.status, version.status} <= {200, 401, 403}:
            raise ValueError(f"status {version.status}")
        cluster.findings.append(_authentication(anonymous.status, version.status, where, bool(headers)))
        if version.status != 200:
            return
        cluster.findings.append(
            clock_finding("cluster's head", version.date, version.before_s, version.after_s)
        )
        cluster.findings += _versions(str(version.content["ray_version"]), own_ray)
        nodes = _get(f"{root}/api/v0/nodes?limit=10000", headers).content["data"]["result"]["result"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        cluster.findings.append(
            Finding(
                check="dashboard",
                level="error",
                measured=f"what answers there is no Ray dashboard ({type(error).__name__})",
                advice="check the address: http://HOST:8265",
            )
        )
        return
    alive = [node for node in nodes if node["state"] == "ALIVE"]
    cluster.nodes = [node["resources_total"] for node in alive]
    cluster.hosts = [node["node_ip"] for node in alive]
    cluster.findings.append(_nodes(cluster.nodes))


def _authentication(anonymous: int, ours: int, where: SplitResult, has_token: bool) -> Finding:
    check = "authentication of the cluster"
    if anonymous == 200:
        inside = is_private(where.hostname or "")
        return Finding(
            check=check,
            level="warning" if inside else "error",
            measured="off: whoever reaches the dashboard runs code on the cluster (CVE-2023-48022)",
            advice="start every node with RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH, in a network of its own",
        )
    if ours == 200:
        encrypted = "" if where.scheme == "https" else ", but the token travels unencrypted"
        private = where.scheme == "https" or is_private(where.hostname or "")
        return Finding(
            check=check,
            level="ok" if private else "warning",
            measured=f"on: asks for a token, and takes ours{encrypted}",
            advice=None
            if private
            else "put TLS in front of the dashboard, or reach it through a private network",
        )
    return Finding(
        check=check,
        level="error",
        measured="on, and refuses our token" if has_token else "on, and there is no token here",
        advice=f"put the cluster's token into a file and name it in {_TOKEN_PATH}, with {_MODE}=token",
    )


def _versions(cluster: str, own: str | None) -> list[Finding]:
    findings = [ray_finding(cluster, "on the cluster")]
    if own is not None and own != cluster:
        findings.append(
            Finding(
                check="Ray here and there",
                level="error",
                measured=f"{own} here, {cluster} on the cluster",
                advice=f"install ray=={cluster} here, or {own} there: Ray's processes must have one version",
            )
        )
    return findings


def _nodes(nodes: list[dict[str, float]]) -> Finding:
    cpus, gpus = (sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU"))
    return Finding(
        check="nodes",
        level="ok" if nodes else "error",
        measured=f"{len(nodes)} with {cpus:g} CPUs and {gpus:g} GPUs",
        advice=None if nodes else "start nodes",
        values={"nodes": len(nodes), "cpus": cpus, "gpus": gpus},
    )


def local_authentication(environment: Mapping[str, str]) -> Finding:
    """Whether clusters that are started from this environment ask for a token."""
    check, mode = "authentication (this environment)", environment.get(_MODE, "").lower()
    found = token(environment)
    if mode == "token" and found is None:
        return Finding(
            check=check,
            level="error",
            measured=f"{_MODE} = token, but there is no token",
            advice=f"`ray get-auth-token --generate`, or name a file in {_TOKEN_PATH}",
        )
    if mode == "token":
        return Finding(check=check, level="ok", measured=f"{_MODE} = token, and a token is there")
    return Finding(
        check=check,
        level="warning",
        measured=f"{_MODE} is {mode or 'not set'}: `ray start` here makes a cluster that asks nobody",
        advice=f"set {_MODE}=token and {_TOKEN_PATH} before `ray start`; a run without RAY_ADDRESS needs neither",
    )


def token(environment: Mapping[str, str]) -> str | None:
    """The token that Ray would send, or None. Never to be shown."""
    if value := environment.get(_TOKEN):
        return value
    path = Path(environment.get(_TOKEN_PATH) or _DEFAULT_TOKEN_PATH).expanduser()
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except (OSError, ValueError):
        return None


def ray_address_finding(address: str) -> Finding | None:
    """Whether the cluster that ``RAY_ADDRESS`` names can be reached; None if it names no port."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    return _port("RAY_ADDRESS", host, int(port)) if colon and port.isdigit() else None


def _headers() -> dict[str, str]:
    found = token(os.environ)
    return {} if found is None else {"Authorization": f"Bearer {found}"}


def _port(check: str, host: str, port: int) -> Finding:
    advice = "start the cluster, forward the port, or correct the address"
    return reached(check, host, port, _ANSWER_S, advice)


def _get(url: str, headers: Mapping[str, str]) -> _Answer:
    """An answer, also a refusal. No proxy is asked, and a token follows no redirection."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirection())
    before_s = time.time()
    try:
        with opener.open(urllib.request.Request(url, headers=dict(headers)), timeout=_ANSWER_S) as answer:
            content = answer.read()
            return _Answer(
                answer.status, json.loads(content), answer.headers.get("Date"), before_s, time.time()
            )
    except urllib.error.HTTPError as error:
        error.close()
        return _Answer(error.code, None, error.headers.get("Date"), before_s, time.time())


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: Any, **named: Any) -> None:
        return None
