"""With TLS, a node that has no certificate of the cluster's authority cannot join, and one that has does its work."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import ray

from tests.ray_nodes import Nodes, ray_nodes

ROOT = Path(__file__).parents[2]
SCRIPT = str(ROOT / "cluster/certificates.sh")
_STRANGER_S, _FRIEND_S = 45, 180
"""How long a node may try to join that may not, and one that may; more than enough on a quiet machine."""
_TASK = """
import json, ray
ray.init(log_to_driver=False)
where = ray.remote(resources={"other": 1})(lambda: ray.get_runtime_context().get_node_id())
nodes = [node for node in ray.nodes() if node["Alive"]]
elsewhere = ray.get(where.remote()) != ray.get_runtime_context().get_node_id()
print(json.dumps({"nodes": len(nodes), "ran_elsewhere": elsewhere}))
"""


def certificates(*words: str) -> str:
    done = subprocess.run([SCRIPT, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def tls(folder: Path, name: str) -> dict[str, str]:
    """The variables that the script prints for a node."""
    printed = certificates("env", str(folder), name)
    return dict(re.findall(r"^export (\w+)=(\S+)$", printed, re.M))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority with the certificates of two nodes, and another authority with one."""
    made = tmp_path_factory.mktemp("tls")
    address = _address()
    for authority in ("ours", "foreign"):
        certificates("authority", str(made / authority))
        for name in ("head", "worker"):
            certificates("node", str(made / authority), name, address)
    return made


def test_keys_are_for_their_owner_alone_and_certificates_name_their_node(folder: Path) -> None:
    for path in (folder / "ours").iterdir():
        assert path.stat().st_mode & 0o077 == 0
    text = subprocess.run(
        ["openssl", "x509", "-in", str(folder / "ours/head.crt"), "-noout", "-text"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert f"DNS:localhost, IP Address:127.0.0.1, IP Address:{_address()}" in text
    assert "CA:FALSE" in text


def test_an_authority_is_not_made_twice(folder: Path) -> None:
    done = subprocess.run([SCRIPT, "authority", str(folder / "ours")], capture_output=True, text=True)
    assert done.returncode == 1
    assert "exists" in done.stderr


@pytest.mark.slow
@pytest.mark.ray
def test_only_a_node_with_a_certificate_of_the_authority_joins(folder: Path) -> None:
    ours = tls(folder / "ours", "head")
    with ray_nodes() as nodes:
        plain = dict(nodes.environment)
        nodes.environment |= ours
        nodes.add(cpus=1, head=True)
        for stranger in (plain, plain | tls(folder / "foreign", "worker")):
            with _trying_to_join(nodes, stranger, _STRANGER_S) as said:
                assert "Ray runtime started" not in said
        assert _nodes_seen(nodes, plain | ours) == 1
        nodes.environment |= tls(folder / "ours", "worker")
        with _trying_to_join(nodes, nodes.environment, _FRIEND_S) as said:
            assert "Ray runtime started" in said, said
            answer = json.loads(_python(_TASK, plain | ours))
            assert answer == {"nodes": 2, "ran_elsewhere": True}


@contextmanager
def _trying_to_join(nodes: Nodes, environment: dict[str, str], wait_s: int) -> Iterator[str]:
    """What a node said that has tried to join for so long, or has joined; it ends with the block."""
    command = [
        str(Path(sys.executable).with_name("ray")), "start", f"--address={environment['RAY_ADDRESS']}",
        "--block", "--num-cpus=1", "--resources", '{"other": 1}', "--object-store-memory=100000000",
        "--min-worker-port=0", "--max-worker-port=0", "--disable-usage-stats", "--dashboard-agent-listen-port=0",
    ]  # fmt: skip
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    log = nodes.folder / "joining.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, stdout=sink, stderr=sink, env=clean | environment, start_new_session=True
        )
    try:
        for _ in range(wait_s * 10):
            if process.poll() is not None or "Ray runtime started" in log.read_text():
                break
            try:
                process.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
        yield log.read_text()
    finally:
        if process.poll() is None:
            started = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
            for each in started:
                try:
                    each.kill()
                except psutil.NoSuchProcess:
                    continue
        process.wait()


def _nodes_seen(nodes: Nodes, environment: dict[str, str]) -> int:
    program = 'import ray; ray.init(log_to_driver=False); print(sum(n["Alive"] for n in ray.nodes()))'
    return int(_python(program, environment))


def _python(program: str, environment: dict[str, str]) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=clean | environment, timeout=180
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip().splitlines()[-1]


def _address() -> str:
    """What Ray takes for this machine's address; it does not stay with 127.0.0.1."""
    return str(ray.util.get_node_ip_address())
