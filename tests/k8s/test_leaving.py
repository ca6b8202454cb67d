"""What a worker's pod runs before it ends, on a real node."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.k8s.overlays import NAMES, valid
from tests.ray_nodes import ray_nodes


def hooks(overlay: str) -> list[list[str]]:
    return [
        pod.ray["lifecycle"]["preStop"]["exec"]["command"]
        for pod in valid(overlay).pods
        if pod.role == "worker"
    ]


def test_all_workers_leave_in_the_same_way() -> None:
    assert len({tuple(hook) for overlay in NAMES for hook in hooks(overlay)}) == 1


@pytest.mark.ray
@pytest.mark.slow
def test_the_hook_drains_its_node_and_gives_it_time() -> None:
    """Ray ends a drained node as soon as nothing runs on it, long before the hook's time is over."""
    command = hooks("gpu")[0]
    with ray_nodes() as nodes:
        node = nodes.add(cpus=1, head=True)
        raylet = node.raylet
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        began = time.monotonic()
        with subprocess.Popen(command, env=os.environ | nodes.environment | {"PATH": path}) as hook:
            raylet.wait(timeout=200)
            assert hook.poll() is None, "it gave its node no time"
            hook.kill()
        logs = "".join(each.read_text(errors="replace") for each in nodes.folder.rglob("raylet*.out"))
    assert time.monotonic() - began < 200
    assert "its pod is being deleted" in logs
