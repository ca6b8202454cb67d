"""Real Ray nodes as processes of this machine: a cluster that can lose some of them, or all."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.conftest import free_port
from tests.packing.kills import descendants, end

_START_S = 120.0
_LATE = ("timed out during startup", "Deadline Exceeded")
"""What Ray says when its own processes did not answer each other in time."""
_RAY = Path(sys.executable).with_name("ray")


@dataclass(frozen=True)
class Host:
    """Where a node runs.

    Attributes:
        address: of it.
        prefix: of a command that runs there.
    """

    address: str
    prefix: tuple[str, ...] = ()


THIS_HOST = Host("127.0.0.1")


@dataclass
class Node:
    """One node.

    Attributes:
        starter: ``ray start --block``, which all other processes of the node descend from.
    """

    starter: subprocess.Popen[bytes]

    def processes(self) -> list[psutil.Process]:
        """Everything of the node that runs."""
        return descendants(self.starter.pid)

    @property
    def raylet(self) -> psutil.Process:
        """The process that is the node to the others."""
        return next(process for process in self.processes() if process.name() == "raylet")

    @property
    def node_id(self) -> str:
        """What Ray calls it."""
        return next(word for word in self.raylet.cmdline() if word.startswith("--node_id=")).split("=")[1]

    def end(self) -> None:
        """Kill all of it, at once."""
        end(self.processes())
        self.starter.wait()


@dataclass
class Nodes:
    """A cluster.

    Attributes:
        folder: of Ray's logs and sockets; short, because a socket's path may not be long.
        environment: for drivers and nodes: address, token, and how soon a silent node counts as dead.
        nodes: the first one is the head.
    """

    folder: Path
    environment: dict[str, str]
    port: int
    nodes: list[Node] = field(default_factory=list)

    def add(
        self,
        cpus: int,
        head: bool = False,
        dashboard_port: int | None = None,
        client_port: int | None = None,
        agent_port: int | None = None,
        host: Host = THIS_HOST,
    ) -> Node:
        """Start a node, and wait until the cluster knows it; the head may have a dashboard, to which jobs go."""
        if head:
            self.environment["RAY_ADDRESS"] = f"{host.address}:{self.port}"
        where = (
            ["--head", f"--port={self.port}", f"--temp-dir={self.folder}",
             f"--ray-client-server-port={client_port or free_port()}", *_dashboard(dashboard_port, host)]
            if head
            else [f"--address={self.environment['RAY_ADDRESS']}"]
        )  # fmt: skip
        command = [
            *host.prefix, str(_RAY), "start", *where, f"--node-ip-address={host.address}", f"--num-cpus={cpus}",
            "--block", "--object-store-memory=200000000", "--min-worker-port=0", "--max-worker-port=0",
            f"--dashboard-agent-listen-port={agent_port or free_port()}", "--disable-usage-stats",
        ]  # fmt: skip
        # On a busy machine Ray gives up waiting for its own processes, and says so.
        node = self._started(command) or self._started(command, last=True)
        assert node is not None
        return node

    def _started(self, command: list[str], last: bool = False) -> Node | None:
        """A new node; None if it came too late to itself, and may be tried again."""
        log = self.folder / f"start-{time.monotonic_ns()}.log"
        with log.open("wb") as sink:
            starter = subprocess.Popen(
                command, stdout=sink, stderr=sink, env=os.environ | self.environment, start_new_session=True
            )
        node = Node(starter)
        self.nodes.append(node)
        deadline = time.monotonic() + _START_S
        while b"Ray runtime started" not in log.read_bytes():
            if starter.poll() is not None or time.monotonic() > deadline:
                said = log.read_text()
                self.remove(node)
                if not last and any(late in said for late in _LATE):
                    return None
                raise RuntimeError(f"a Ray node did not start:\n{said[-3000:]}")
            time.sleep(0.1)
        return node

    def remove(self, node: Node) -> None:
        """Kill what is left of a node, and forget it."""
        node.end()
        self.nodes.remove(node)

    def end(self) -> None:
        """Kill every process of every node."""
        everything = [process for node in self.nodes for process in node.processes()]
        end(everything)
        for node in self.nodes:
            node.starter.wait()
        self.nodes.clear()


def _dashboard(port: int | None, host: Host) -> list[str]:
    if port is None:
        return ["--include-dashboard=false"]
    return [f"--dashboard-port={port}", f"--dashboard-host={host.address}"]


@contextmanager
def ray_nodes() -> Iterator[Nodes]:
    """A cluster without nodes yet; nothing of it is left afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    port = free_port()
    environment = {
        "RAY_ADDRESS": f"{THIS_HOST.address}:{port}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_health_check_initial_delay_ms": "2000",
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_timeout_ms": "3000",
        "RAY_health_check_failure_threshold": "3",
    }
    nodes = Nodes(folder, environment, port)
    try:
        yield nodes
    finally:
        nodes.end()
        shutil.rmtree(folder, ignore_errors=True)
