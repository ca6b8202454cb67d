"""A real cluster with token authentication, asked as its users would, and addresses where there is none."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import HTTPServer, SimpleHTTPRequestHandler
from importlib import metadata
from pathlib import Path

import pytest

from ecgdist.doctor.cluster import (
    Cluster,
    examine_cluster,
    local_authentication,
    ray_address_finding,
    token,
)
from ecgdist.doctor.finding import Finding
from tests.conftest import free_port
from tests.ray_nodes import Nodes, ray_nodes

VARIABLES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def by_check(cluster: Cluster) -> dict[str, Finding]:
    return {one.check: one for one in cluster.findings}


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[Nodes, str]]:
    """One node with a dashboard; and its address."""
    with ray_nodes() as nodes:
        port = free_port()
        nodes.add(cpus=3, head=True, dashboard_port=port)
        yield nodes, f"http://127.0.0.1:{port}"


@pytest.mark.ray
def test_a_cluster_with_a_token_is_looked_through(
    cluster: tuple[Nodes, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes, address = cluster
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", nodes.environment["RAY_AUTH_TOKEN_PATH"])
    found = examine_cluster(address, metadata.version("ray"))
    assert {one.level for one in found.findings} == {"ok"}, found.findings
    assert [one.check for one in found.findings] == [
        "dashboard",
        "authentication of the cluster",
        "clock against the cluster's head",
        "Ray (on the cluster)",
        "nodes",
    ]
    assert "takes ours" in by_check(found)["authentication of the cluster"].measured
    assert found.nodes is not None
    assert [node["CPU"] for node in found.nodes] == [3]
    assert found.nodes[0]["object_store_memory"] == 200_000_000
    other = by_check(examine_cluster(address, "2.58.0"))["Ray here and there"]
    assert (other.level, other.measured) == (
        "error",
        f"2.58.0 here, {metadata.version('ray')} on the cluster",
    )


@pytest.mark.ray
@pytest.mark.parametrize("own", [None, "a-token-that-is-wrong"])
def test_a_cluster_that_refuses_us_is_an_error_and_no_token_is_shown(
    own: str | None, cluster: tuple[Nodes, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if own is not None:
        monkeypatch.setenv("RAY_AUTH_TOKEN", own)
    found = examine_cluster(cluster[1], metadata.version("ray"))
    refused = by_check(found)["authentication of the cluster"]
    assert refused.level == "error"
    assert refused.measured == (
        "on, and there is no token here" if own is None else "on, and refuses our token"
    )
    assert found.nodes is None
    assert "a-token" not in str(found.findings)


@pytest.mark.ray
@pytest.mark.slow
def test_a_cluster_that_asks_nobody_is_warned_of() -> None:
    with ray_nodes() as nodes:
        del nodes.environment["RAY_AUTH_TOKEN_PATH"]
        nodes.environment["RAY_AUTH_MODE"] = "disabled"
        port = free_port()
        nodes.add(cpus=1, head=True, dashboard_port=port)
        found = by_check(examine_cluster(f"http://127.0.0.1:{port}", metadata.version("ray")))
        assert found["authentication of the cluster"].level == "warning", "only this machine reaches it"
        assert "off: whoever reaches the dashboard" in found["authentication of the cluster"].measured
        assert found["nodes"].level == "ok"


def test_an_address_without_a_cluster_is_an_error() -> None:
    port = free_port()
    (found,) = examine_cluster(f"http://127.0.0.1:{port}").findings
    assert (found.check, found.level) == ("dashboard", "error")
    assert f"127.0.0.1:{port} cannot be reached" in found.measured
    (wrong,) = examine_cluster("127.0.0.1:6379").findings
    assert wrong.advice == "write http://HOST:8265"


def test_another_server_is_no_dashboard() -> None:
    server = HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        found = by_check(examine_cluster(f"http://127.0.0.1:{server.server_port}"))
    finally:
        server.shutdown()
        server.server_close()
    assert found["dashboard"].level == "error"
    assert "no Ray dashboard" in found["dashboard"].measured


def test_the_address_of_a_cluster_must_answer() -> None:
    port = free_port()
    found = ray_address_finding(f"ray://127.0.0.1:{port}")
    assert found is not None
    assert found.level == "error"
    assert ray_address_finding("auto") is None
    assert ray_address_finding("") is None


def test_a_token_is_looked_for_where_ray_looks(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from-a-file\n")
    assert token({"RAY_AUTH_TOKEN": "own", "RAY_AUTH_TOKEN_PATH": str(file)}) == "own"
    assert token({"RAY_AUTH_TOKEN_PATH": str(file)}) == "from-a-file"
    assert token({}) is None
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("of-home")
    assert token({}) == "of-home"


def test_clusters_of_this_environment_should_ask_for_a_token(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("secret-token")
    both = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(file)}
    assert local_authentication(both).level == "ok"
    assert "secret-token" not in str(local_authentication(both))
    assert local_authentication({"RAY_AUTH_MODE": "token"}).level == "error"
    assert local_authentication({}).level == "warning"
    assert "disabled" in local_authentication({"RAY_AUTH_MODE": "disabled"}).measured
