"""Four ways to break a run with SIGKILL, again and again, until it ends by itself."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

from ecgdist.pretraining.checkpoint import CHECKPOINT
from tests.packing.kills import descendants
from tests.pretraining.proof_run import ProofRun
from tests.ray_nodes import Nodes

_LAST_SHARE = 0.95
"""Of the steps are done at the last kill, at most."""
_START_S = 15.0
"""About the time from a kill to the first batch after it."""
_PAUSE_S = 0.5
"""About the time of a step or two."""
_DEADLINE_S = 420.0
"""Longest wait for a step, or for a checkpoint to be written."""
_GONE_S = 120.0
"""Longest time that what a dead driver has started may live on."""


@dataclass(frozen=True)
class Kill:
    """One kill.

    Attributes:
        victim: what was killed.
        moment: ``training``, ``starting`` (while a restart is under way) or ``saving`` (while a checkpoint is written).
        step: the highest step that was begun.
    """

    victim: str
    moment: str
    time_s: float
    step: int


class Breaker:
    """Draws moments and watches for them.

    Attributes:
        kills: so far.
    """

    def __init__(self, run: ProofRun, kills: int, seed: int, saving: int = 0) -> None:
        """Plan `kills` moments, at least `saving` of them while a checkpoint is written."""
        self.run, self.draw = run, random.Random(seed)
        moments = ["saving"] * saving + ["starting"] * (kills // 6)
        moments += ["training"] * (kills - len(moments))
        self.draw.shuffle(moments)
        shares = sorted(self.draw.uniform(0.0, _LAST_SHARE) for _ in moments)
        self._planned = list(zip(moments, shares, strict=True))
        self.kills: list[Kill] = []

    def moments(self, process: Callable[[], subprocess.Popen[bytes]]) -> Iterator[str]:
        """The moments, each when it has come; the caller kills at once, and calls `note`."""
        for moment, share in self._planned:
            if moment == "starting" and self.kills:
                time.sleep(self.draw.uniform(0.0, _START_S))
            else:
                self._await(process(), lambda share=share: self.run.step >= share * self.run.steps)  # type: ignore[misc]
                # A step that is being trained after the last restart, not one of before.
                self._await(process(), self._trains)
                moment = "training" if moment == "starting" else moment
            if moment == "saving":
                self._await(process(), self.run.unfinished_checkpoints, pause_s=0.001)
            elif moment == "training":
                time.sleep(self.draw.uniform(0.0, _PAUSE_S))
            if process().poll() is not None:
                raise self.run.failure(process())
            yield moment

    def note(self, victim: str, moment: str, saving: list[str]) -> None:
        """Write a kill down, by what was being saved just after it."""
        self.run.watch.look()
        self.kills.append(Kill(victim, "saving" if saving else moment, time.time(), self.run.step))

    def _trains(self) -> bool:
        if not self.kills:
            return bool(self.run.watch.lines)
        return self.run.watch.lines[-1].time_s > self.kills[-1].time_s + 0.5

    def _await(
        self, process: subprocess.Popen[bytes], condition: Callable[[], object], pause_s: float = 0.02
    ) -> None:
        deadline = time.monotonic() + _DEADLINE_S
        looked = 0.0
        while not condition():
            if time.monotonic() - looked > 0.02:
                looked = time.monotonic()
                if self.run.watch.look():
                    deadline = looked + _DEADLINE_S
                if process.poll() is not None or looked > deadline:
                    raise self.run.failure(process)
            time.sleep(pause_s)


def kill_workers(run: ProofRun, breaker: Breaker) -> list[Kill]:
    """Kill one of the training processes; Ray Train starts all of them again."""
    with run.driver() as driver:
        for moment in breaker.moments(lambda: driver):
            workers = run.training() or _starting(driver)
            saving = run.unfinished_checkpoints() if moment == "saving" else []
            if workers:
                _kill(breaker.draw.choice(workers))
            breaker.note("worker" if workers else "nothing", moment, _still(run, saving))
        run.finish(driver)
    return breaker.kills


def kill_nodes(run: ProofRun, breaker: Breaker, nodes: Nodes) -> list[Kill]:
    """Kill the raylet of one of two nodes; another node comes, a few seconds later."""
    with _cluster(run, nodes), run.driver() as driver:
        for moment in breaker.moments(lambda: driver):
            node = breaker.draw.choice(nodes.nodes[1:])
            saving = run.unfinished_checkpoints() if moment == "saving" else []
            _kill(node.raylet)
            breaker.note("raylet", moment, _still(run, saving))
            time.sleep(breaker.draw.uniform(0.0, 5.0))
            nodes.remove(node)
            nodes.add(cpus=2)
        run.finish(driver)
    return breaker.kills


def kill_drivers(run: ProofRun, breaker: Breaker) -> list[Kill]:
    """Kill the driver and give the same command again at once, while what it had started may still be there."""
    current: list[subprocess.Popen[bytes]] = []
    orphans: list[psutil.Process] = []
    moments = breaker.moments(lambda: current[-1])
    while True:
        with run.driver() as driver:
            current.append(driver)
            moment = next(moments, None)
            if moment is None:
                run.finish(driver)
                break
            orphans += descendants(driver.pid)[1:]
            saving = run.unfinished_checkpoints() if moment == "saving" else []
            driver.kill()
            driver.wait()
            breaker.note("driver", moment, _still(run, saving))
    _, left = psutil.wait_procs(orphans, timeout=_GONE_S)
    if left:
        raise RuntimeError(f"dead drivers' processes live on: {left}")
    return breaker.kills


def kill_clusters(run: ProofRun, breaker: Breaker, nodes: Nodes) -> list[Kill]:
    """Kill every process of every node and the driver, start the cluster, and give the same command again."""
    current: list[subprocess.Popen[bytes]] = []
    moments = breaker.moments(lambda: current[-1])
    while True:
        with _cluster(run, nodes), run.driver() as driver:
            current.append(driver)
            moment = next(moments, None)
            if moment is None:
                run.finish(driver)
                return breaker.kills
            saving = run.unfinished_checkpoints() if moment == "saving" else []
            driver.kill()
            nodes.end()
            breaker.note("cluster", moment, _still(run, saving))


@contextmanager
def _cluster(run: ProofRun, nodes: Nodes) -> Iterator[None]:
    """A head that only holds the cluster together, and two nodes with room for one worker each."""
    nodes.add(cpus=0, head=True)
    nodes.add(cpus=2)
    nodes.add(cpus=2)
    try:
        yield
    finally:
        nodes.end()


def _still(run: ProofRun, saving: list[str]) -> list[str]:
    """Checkpoints of `saving` that did not become whole: those were being written at the kill."""
    return [name for name in saving if not (run.run / "checkpoints" / name / CHECKPOINT).exists()]


def _starting(driver: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Worker processes that have not trained yet."""
    return [process for process in descendants(driver.pid) if "RayTrainWorker" in " ".join(_words(process))]


def _words(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.NoSuchProcess:
        return []


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return
