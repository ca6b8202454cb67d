"""Give a run notice again and again, and see what each costs: `python -m tests.pretraining.leaving --folder new`.

A notice is SIGTERM to the driver (then the same command is given again), SIGTERM to a training process, or the drain
of one of two nodes, which is gone 30 s later. No checkpoint is written but those that notices cause.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from ecgdist.errors import RunStopped
from ecgdist.pretraining.checkpoint import CHECKPOINT, CheckpointStore
from tests.pretraining.proof import Verdict, compare, spread, unbroken_run
from tests.pretraining.proof_run import ProofRun
from tests.ray_nodes import Node, Nodes, ray_nodes

KINDS = {
    "driver": "SIGTERM to the driver, then the same command again",
    "worker": "SIGTERM to a training process",
    "drain": "one of two nodes is drained, and gone 30 s later; another one comes",
}
NOTICE_S = 30.0
"""Time between a notice and the end."""
_DEADLINE_S = 240.0
_MOST_STEPS = 8
"""Steps between a start and the notice, at most."""
STEPS_EACH = {"driver": 12, "worker": 12, "drain": 60}
"""Steps between two starts, at most: Ray looks every second whether a node is drained, and tells two seconds later."""
_DRAIN = """
import sys, time
from ray._raylet import GcsClient
from ray.core.generated.autoscaler_pb2 import DrainNodeReason
client = GcsClient(address=sys.argv[1])
print("ready", flush=True)
node, ends_ms = sys.stdin.read(), int((time.time() + float(sys.argv[2])) * 1000)
print(client.drain_node(node, DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION, "test", ends_ms))
"""


@dataclass(frozen=True)
class Notice:
    """One notice, and what came of it.

    Attributes:
        step: the highest step that was begun when it was given.
        committed_s: seconds from it to the commit of a checkpoint.
        lost: steps that were done and are not in the checkpoint.
    """

    kind: str
    step: int
    committed_s: float
    lost: int


class Giver:
    """Gives notice to one run.

    Attributes:
        notices: given so far.
    """

    def __init__(self, run: ProofRun, seed: int) -> None:
        self.run, self.draw = run, random.Random(seed)
        self.notices: list[Notice] = []

    def await_moment(self, driver: subprocess.Popen[bytes], files: set[str]) -> None:
        """Wait until processes that are not in `files` have trained a few steps, and a little longer."""
        steps = self.draw.randint(1, _MOST_STEPS)
        self._await(
            driver, lambda: len({n.step for n in self.run.watch.lines if n.file not in files}) >= steps
        )
        time.sleep(self.draw.uniform(0.0, 0.5))

    def observe(self, kind: str, driver: subprocess.Popen[bytes], give: Callable[[], object]) -> None:
        """Give a notice, and wait for the checkpoint that it causes."""
        self.run.watch.look()
        before, step = set(self.names()), self.run.step
        files = self.files()
        given_s = time.time()
        give()
        self._await(driver, lambda: set(self.names()) - before, alive=kind != "driver")
        name = self.names()[-1]
        committed_s = (Path(self.run.out) / "checkpoints" / name / CHECKPOINT).stat().st_mtime
        self.run.watch.look()
        done = 1 + max(line.step for line in self.run.watch.lines if line.file in files)
        saved = int(name.split("-")[1])
        self.notices.append(Notice(kind, step, committed_s - given_s, done - saved))
        print(self.notices[-1], flush=True)

    def names(self) -> list[str]:
        return CheckpointStore(self.run.run).names()

    def files(self) -> set[str]:
        """Files of the recording: every process that trained has one."""
        return {line.file for line in self.run.watch.lines}

    def _await(
        self, driver: subprocess.Popen[bytes], condition: Callable[[], object], alive: bool = True
    ) -> None:
        deadline = time.monotonic() + _DEADLINE_S
        while not condition():
            self.run.watch.look()
            if time.monotonic() > deadline or (alive and driver.poll() is not None):
                raise self.run.failure(driver)
            time.sleep(0.05)


def to_drivers(run: ProofRun, tries: int, seed: int) -> list[Notice]:
    """SIGTERM to the driver, which says in its exit status that it was stopped; then the same command again."""
    giver = Giver(run, seed)
    for _ in range(tries):
        files = giver.files()
        with run.driver() as driver:
            giver.await_moment(driver, files)
            giver.observe("driver", driver, driver.terminate)
            assert driver.wait(NOTICE_S) == RunStopped.exit_status
    with run.driver() as driver:
        run.finish(driver)
    return giver.notices


def to_workers(run: ProofRun, tries: int, seed: int) -> list[Notice]:
    """SIGTERM to one of the training processes; all save and leave, and start again under the same driver."""
    giver = Giver(run, seed)
    with run.driver() as driver:
        for _ in range(tries):
            giver.await_moment(driver, old := giver.files())
            mine = {n.process for n in run.watch.lines if n.file not in old}
            victim = psutil.Process(giver.draw.choice(sorted(mine)))
            giver.observe("worker", driver, victim.terminate)
        run.finish(driver)
    return giver.notices


def to_nodes(run: ProofRun, tries: int, seed: int) -> list[Notice]:
    """Drain one of two nodes, and kill it when the notice says; another one comes."""
    giver = Giver(run, seed)
    with ExitStack() as stack:
        nodes = stack.enter_context(ray_nodes())
        run.environment |= nodes.environment
        nodes.add(cpus=0, head=True)
        nodes.add(cpus=2)
        nodes.add(cpus=2)
        driver = stack.enter_context(run.driver())
        for _ in range(tries):
            with drainer(nodes) as drain:
                giver.await_moment(driver, giver.files())
                node = giver.draw.choice(nodes.nodes[1:])
                ends = time.monotonic() + NOTICE_S
                giver.observe("drain", driver, partial(drain, node))
            time.sleep(max(0.0, ends - time.monotonic()))
            nodes.remove(node)
            nodes.add(cpus=2)
        run.finish(driver)
    return giver.notices


@contextmanager
def drainer(nodes: Nodes) -> Iterator[Callable[[Node], None]]:
    """What a provider's notice becomes: the node takes no more work, and is gone soon. Connected beforehand."""
    words = [sys.executable, "-c", _DRAIN, nodes.environment["RAY_ADDRESS"], str(NOTICE_S)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, env=os.environ | nodes.environment, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield lambda node: _expect(process.communicate(node.node_id)[0], "True")


def _expect(said: str, word: str) -> None:
    assert word in said, said


def give_notices(
    kind: str, unbroken: ProofRun, folder: Path, tries: int, seed: int
) -> tuple[list[Notice], Verdict]:
    """The unbroken run again, given notice so many times, and compared with it."""
    began = time.monotonic()
    run = ProofRun(folder, unbroken.corpus, unbroken.steps)
    run.configure(checkpoint={"every_steps": None, "every_minutes": None}, workers={"cpus_each": 1.5})
    notices = {"driver": to_drivers, "worker": to_workers, "drain": to_nodes}[kind](run, tries, seed)
    return notices, compare(kind, unbroken, run, [], time.monotonic() - began)


def main() -> None:
    parser = argparse.ArgumentParser()
    for kind, meaning in KINDS.items():
        parser.add_argument(f"--{kind}", type=int, default=7, help=f"notices: {meaning}")
    parser.add_argument("--folder", type=Path, required=True, help="a new one, for the corpus and the runs")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    tries = {kind: getattr(arguments, kind) for kind in KINDS if getattr(arguments, kind)}
    unbroken = unbroken_run(arguments.folder, max((n + 1) * STEPS_EACH[kind] for kind, n in tries.items()))
    for kind, number in tries.items():
        notices, verdict = give_notices(kind, unbroken, arguments.folder / kind, number, arguments.seed)
        in_time = sum(notice.committed_s < NOTICE_S for notice in notices)
        print(
            f"{kind}: {in_time} of {len(notices)} committed within {NOTICE_S:.0f} s, "
            f"after {spread([notice.committed_s for notice in notices])}; steps lost, at most: "
            f"{max(notice.lost for notice in notices)}; rank-steps replayed: {verdict.replayed}; "
            f"same batches, weights, metrics: {verdict.same_batches}, {verdict.same_weights}, {verdict.same_metrics}",
            flush=True,
        )


if __name__ == "__main__":
    main()
