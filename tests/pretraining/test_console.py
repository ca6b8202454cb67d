"""What workers say reaches the driver's console, whatever else is lost."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import ray
from rich.console import Console

from ecgdist.errors import TrainingError
from ecgdist.pretraining.console import Mailbox, ProgressView, line
from tests.pretraining.proof_run import ROOT
from tests.ray_nodes import Nodes, ray_nodes

_WAIT_S = 60.0


def until(condition: Callable[[], bool], said: Callable[[], str]) -> None:
    deadline = time.monotonic() + _WAIT_S
    while not condition():
        assert time.monotonic() < deadline, said()
        time.sleep(0.05)


def test_a_row_is_one_line_and_names_the_share_of_the_peak_where_it_is_known() -> None:
    row = {"step": 3, "loss": 1.25, "reconstruction": 1.0, "ecg_per_s": 1234.5, "waiting_share": 0.01}
    row |= {"gradient_norm": 0.5, "learning_rate": 1e-4, "seconds_per_step": 2.0}
    told = (
        "step 3/5  loss 1.2500 (reconstruction 1.0000)  1,234 ECG/s{}  waiting 1%  gradient 0.50  lr 1.0e-04"
    )
    assert line(row, 5) == told.format("") + "  ETA 0:00:04"
    assert line(row | {"mfu": 0.414}, 5) == told.format("  MFU 41%") + "  ETA 0:00:04"


@pytest.mark.ray
def test_the_console_goes_on_when_the_process_that_carries_lines_is_killed(ray_cluster: None) -> None:
    printed = io.StringIO()
    mailbox = Mailbox()

    def train() -> None:
        with ProgressView(Console(file=printed, width=200), mailbox, total_steps=3).showing():
            mailbox.post({"text": "before"})
            until(lambda: "before" in printed.getvalue(), printed.getvalue)
            # Dead before anything else is sent: what reaches a process that is dying is lost with it.
            carrier = psutil.Process(ray.get(mailbox._box.__ray_call__.remote(lambda _: os.getpid())))
            carrier.kill()
            carrier.wait(_WAIT_S)
            mailbox.post({"text": "after"})
            mailbox.give_up(TrainingError("it ends here"))
            assert mailbox.is_given_up

    with pytest.raises(TrainingError, match="it ends here"):
        train()
    mailbox.close()
    assert printed.getvalue().splitlines() == ["before", "after"]


@pytest.mark.ray
def test_a_console_that_hears_nothing_any_more_says_so(ray_cluster: None) -> None:
    printed = io.StringIO()
    mailbox = Mailbox()
    with ProgressView(Console(file=printed, width=200), mailbox, total_steps=3).showing():
        mailbox.close()
        until(lambda: "not shown any more" in printed.getvalue(), printed.getvalue)
        mailbox.post({"text": "nobody hears it, and nobody waits"})
    assert "metrics.jsonl goes on" in printed.getvalue()


DRIVER = """
import sys
import ray
from rich.console import Console
from ecgdist.pretraining.console import Mailbox, ProgressView, line
from ecgdist.raytools import ray_session

@ray.remote(num_cpus=1)
class Worker:
    def node(self):
        return ray.get_runtime_context().get_node_id()

    def say(self, mailbox, text):
        mailbox.post({"text": text})

with ray_session(num_cpus=1):
    mailbox = Mailbox()
    mailbox.post({"text": "it is there"})
    workers = {ray.get(w.node.remote()): w for w in [Worker.remote(), Worker.remote()]}
    box = ray._private.state.actors(mailbox._box._actor_id.hex())
    print("box", box["Address"]["NodeID"], flush=True)
    with ProgressView(Console(width=200), mailbox, total_steps=1).showing():
        for line in sys.stdin:
            node, text = line.split(maxsplit=1)
            ray.get(workers[node].say.remote(mailbox, text))
"""


class Driver:
    """A process that shows what workers on other nodes say."""

    def __init__(self, folder: Path, nodes: Nodes) -> None:
        self.log = folder / "driver.log"
        with self.log.open("wb") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-c", DRIVER], stdin=subprocess.PIPE, stdout=sink, stderr=sink,
                cwd=ROOT, env=os.environ | nodes.environment, text=True,
            )  # fmt: skip

    def await_line(self, text: str) -> str:
        def found() -> list[str]:
            assert self.process.poll() is None, self.log.read_text()
            return [line for line in self.log.read_text().splitlines() if text in line]

        until(lambda: bool(found()), self.log.read_text)
        return found()[0]

    def ask(self, node: str, text: str) -> None:
        """Have the worker on a node say something."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{node} {text}\n")
        self.process.stdin.flush()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(_WAIT_S)


@pytest.mark.slow
@pytest.mark.ray
def test_a_node_that_is_killed_does_not_take_the_console_along(tmp_path: Path) -> None:
    """Of three nodes, the driver's holds what carries the lines, and another one is killed."""
    with ray_nodes() as nodes:
        head = nodes.add(cpus=0, head=True)
        lost, left = nodes.add(cpus=1), nodes.add(cpus=1)
        driver = Driver(tmp_path, nodes)
        assert driver.await_line("box ") == f"box {head.node_id}"
        for name in (lost.node_id, left.node_id):
            driver.ask(name, f"from {name}")
            driver.await_line(f"from {name}")
        nodes.remove(lost)
        driver.ask(left.node_id, "still here")
        driver.await_line("still here")
        driver.close()
        assert driver.process.returncode == 0, driver.log.read_text()
