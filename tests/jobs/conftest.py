"""One cluster for all tests of jobs: it asks for a token, takes jobs, and its nodes alone know the S3 server's keys."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest

from ecgdist.sample import sample_folder
from tests.conftest import S3Server, free_port
from tests.ray_nodes import Nodes, ray_nodes

ROOT = Path(__file__).parents[2]
BUCKET = "ecgdist"
"""That of jobs/configs."""
_BIN = Path(sys.executable).parent
_HIDDEN = ("AWS_", "RAY_", "ECGDIST_")


@dataclass
class JobCluster:
    """A cluster that takes jobs.

    Attributes:
        nodes: its one node.
        port: of its dashboard.
        client_port: of Ray's client server.
        agent_port: of the node's agent.
        s3: the server whose keys are in the node's environment.
    """

    nodes: Nodes
    port: int
    client_port: int
    agent_port: int
    s3: S3Server

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def token_path(self) -> Path:
        return Path(self.nodes.environment["RAY_AUTH_TOKEN_PATH"])

    def environment(self, **more: str) -> dict[str, str]:
        """Of somebody who may submit, and has no key of the storage."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(_HIDDEN)}
        return (
            clean
            | {
                "PATH": f"{_BIN}:{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT),
                "OMP_NUM_THREADS": "1",
                "RAY_API_SERVER_ADDRESS": self.address,
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN_PATH": str(self.token_path),
            }
            | more
        )

    def ecgdist(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command, to its end."""
        return subprocess.run(
            [sys.executable, "-m", "ecgdist.cli", *words],
            cwd=ROOT, env=self.environment(**more), capture_output=True, text=True, timeout=400,
        )  # fmt: skip


@pytest.fixture(scope="package")
def job_cluster(s3_server: S3Server) -> Iterator[JobCluster]:
    """The cluster; the shipped ECGs lie in its bucket."""
    storage = boto3.client(
        "s3",
        endpoint_url=s3_server.endpoint,
        aws_access_key_id=s3_server.access_key,
        aws_secret_access_key=s3_server.secret_key,
        region_name="us-east-1",
    )
    storage.create_bucket(Bucket=BUCKET)
    for path in sample_folder().rglob("*"):
        if path.is_file():
            storage.upload_file(
                str(path), BUCKET, f"sources/ptb-xl/{path.relative_to(sample_folder()).as_posix()}"
            )
    with ray_nodes() as nodes:
        nodes.environment |= s3_server.environment | {
            "PATH": f"{_BIN}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        }
        port, client_port, agent_port = free_port(), free_port(), free_port()
        nodes.add(cpus=4, head=True, dashboard_port=port, client_port=client_port, agent_port=agent_port)
        yield JobCluster(nodes, port, client_port, agent_port, s3_server)
