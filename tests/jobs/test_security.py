"""Without a token, or with a wrong one, a cluster that asks for one gives nothing but what Ray leaves open."""

from __future__ import annotations

import importlib
import pkgutil
import re
import urllib.error
import urllib.request
from collections.abc import Iterator

import grpc
import pytest
import ray.dashboard.modules
from ray.dashboard.optional_utils import DashboardAgentRouteTable, DashboardHeadRouteTable
from ray.dashboard.subprocesses.routes import SubprocessRouteTable

from tests.jobs.conftest import JobCluster

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.s3]

OPEN_ROUTES = {
    "GET /",  # the page that asks for the token
    "GET /favicon.ico",
    "GET /api/authentication_mode",  # whether to ask for one
    "GET /api/gcs_healthz",  # probes of Kubernetes
}
"""Of the dashboard. ``POST /api/authenticate``, where the page sends the token, refuses a wrong one by itself."""
OPEN_AGENT_ROUTES = {"GET /api/healthz", "GET /api/local_raylet_healthz"}
OPEN_CALLS = {"grpc.health.v1.Health/Check"}
"""Of the GCS; probes, too."""
_REFUSED = (401, 403)
_ANSWER_S = 20.0

WRONG_TOKENS = pytest.mark.parametrize(
    "header", [None, "Bearer " + 64 * "0", "Bearer ", "Basic cmF5OnJheQ=="], ids=str
)


def routes(*tables: type) -> list[str]:
    """``METHOD /path`` of everything that Ray's modules serve, with a name in place of every variable."""
    for module in pkgutil.walk_packages(ray.dashboard.modules.__path__, "ray.dashboard.modules."):
        if ".tests" not in module.name:
            importlib.import_module(module.name)
    importlib.import_module("ray.dashboard.http_server_head")
    found = {
        f"{route.method} {re.sub('{[^}]*}', 'x', route.path)}"
        for table in tables
        for route in table.routes()
        if hasattr(route, "method")
    }
    return sorted(found)


def is_open(port: int, route: str, header: str | None) -> bool:
    method, path = route.split()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    if header is not None:
        request.add_header("Authorization", header)
    try:
        with urllib.request.urlopen(request, timeout=_ANSWER_S):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return error.code not in _REFUSED


@WRONG_TOKENS
def test_the_dashboard_and_its_jobs_refuse_all_but_what_shows_the_login(
    job_cluster: JobCluster, header: str | None
) -> None:
    known = routes(DashboardHeadRouteTable, SubprocessRouteTable)
    assert {"POST /api/jobs/", "GET /api/jobs/", "PUT /api/packages/x/x", "GET /api/jobs/x/logs/tail"} <= {
        *known
    }
    assert len(known) > 50
    assert {route for route in known if is_open(job_cluster.port, route, header)} == OPEN_ROUTES
    assert not is_open(job_cluster.port, "GET /metrics", header)
    assert not is_open(job_cluster.port, "GET /no/such/route", header)


@WRONG_TOKENS
def test_the_agent_of_a_node_refuses_all_but_probes(job_cluster: JobCluster, header: str | None) -> None:
    known = routes(DashboardAgentRouteTable)
    assert "POST /api/job_agent/jobs/" in known
    assert {route for route in known if is_open(job_cluster.agent_port, route, header)} == OPEN_AGENT_ROUTES


def test_the_right_token_is_taken(job_cluster: JobCluster) -> None:
    """What is refused above is refused for the token's sake."""
    right = f"Bearer {job_cluster.token_path.read_text()}"
    for route in ("GET /api/jobs/", "GET /api/version", "GET /nodes"):
        assert is_open(job_cluster.port, route, right)
    (first, *_) = calls("gcs_service_pb2")
    assert answer(job_cluster.nodes.port, *first, right) != "UNAUTHENTICATED"


def calls(module: str) -> Iterator[tuple[str, bool, bool]]:
    """Every call of the services in one of Ray's protocols: ``service/method``, and which sides stream."""
    protocol = importlib.import_module(f"ray.core.generated.{module}")
    for service in protocol.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            yield f"{service.full_name}/{method.name}", method.client_streaming, method.server_streaming


def answer(port: int, call: str, from_client: bool, from_server: bool, header: str | None) -> str:
    """Status of a call with an empty message."""
    metadata = [] if header is None else [("authorization", header)]
    sides = ("stream" if from_client else "unary", "stream" if from_server else "unary")
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        ask = getattr(channel, "_".join(sides))(f"/{call}", bytes, bytes)
        try:
            said = ask(iter([b""]) if from_client else b"", timeout=_ANSWER_S, metadata=metadata)
            if from_server:
                next(iter(said), None)
        except grpc.RpcError as error:
            return str(error.code().name)
    return "OK"


@WRONG_TOKENS
def test_the_gcs_refuses_every_call_but_a_probe(job_cluster: JobCluster, header: str | None) -> None:
    known = [*calls("gcs_service_pb2"), ("grpc.health.v1.Health/Check", False, False)]
    assert len(known) > 40
    taken = {
        call for call, *sides in known
        if answer(job_cluster.nodes.port, call, *sides, header) != "UNAUTHENTICATED"
    }  # fmt: skip
    assert taken == OPEN_CALLS


@WRONG_TOKENS
def test_the_client_server_refuses_every_call(job_cluster: JobCluster, header: str | None) -> None:
    known = list(calls("ray_client_pb2"))
    assert len(known) > 10
    for call, *sides in known:
        assert answer(job_cluster.client_port, call, *sides, header) == "UNAUTHENTICATED", call
