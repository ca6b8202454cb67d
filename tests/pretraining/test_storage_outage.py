"""Object storage that is away, failing or slow in the middle of training: the run waits, and goes on as if nothing was.

Corpus and run folder are in a bucket behind a proxy (`tests.faulty_s3`); drivers, workers and read tasks find it by
their environment, as they would find a real one.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ecgdist.s3 import TIMEOUT
from ecgdist.storage import Location
from tests.conftest import S3Server
from tests.faulty_s3 import FaultyS3, faulty_s3
from tests.pretraining.proof import compare, unbroken_run
from tests.pretraining.proof_run import ProofRun

STEPS = 60
SHORT_S, LONG_S = 20.0, 60.0
_WAIT_S = 240.0
"""Longest wait for a step, or for workers to be started again."""

pytestmark = [pytest.mark.ray, pytest.mark.s3]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> ProofRun:
    """On local disk, without a fault."""
    return unbroken_run(tmp_path_factory.mktemp("outage"), STEPS)


def in_a_bucket(unbroken: ProofRun, folder: Path, server: S3Server, proxy: FaultyS3) -> ProofRun:
    """The same run, whose corpus and folder are behind the proxy."""
    bucket = f"s3://ecg/{folder.name}"
    corpus = Location.of(unbroken.corpus)
    for name in corpus.list_files():
        (Location.of(f"{bucket}/corpus") / name).upload((corpus / name).uri)
    run = ProofRun(folder / "behind", f"{bucket}/corpus", STEPS, out=f"{bucket}/run")
    run.configure(checkpoint={"every_steps": 20})
    run.environment |= server.environment | {"AWS_ENDPOINT_URL": proxy.endpoint, TIMEOUT: "2"}
    return run


def check(run: ProofRun, unbroken: ProofRun, starts: int = 1) -> None:
    """It is the unbroken run, and its workers were started so often."""
    verdict = compare("storage", unbroken, run, [], 0.0)
    assert verdict.holds, verdict
    assert starts > 1 or verdict.replayed == 0
    assert len({line.file for line in run.watch.lines}) == 2 * starts


def wait(run: ProofRun, driver: subprocess.Popen[bytes], condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _WAIT_S
    while not condition():
        run.watch.look()
        if driver.poll() is not None or time.monotonic() > deadline:
            raise run.failure(driver)
        time.sleep(0.05)


def await_step(run: ProofRun, driver: subprocess.Popen[bytes], step: int) -> None:
    wait(run, driver, lambda: run.step >= step)


def refuse(proxy: FaultyS3) -> None:
    """Every connection is reset."""
    proxy.draw = lambda method: "reset"  # type: ignore[method-assign]


def swallow(proxy: FaultyS3) -> None:
    """No request is ever answered."""
    proxy.mute = re.compile(".")


def come_back(proxy: FaultyS3) -> None:
    proxy.draw = lambda method: None  # type: ignore[method-assign]
    proxy.mute = None


@pytest.mark.parametrize("go_away", [refuse, pytest.param(swallow, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    "seconds", [pytest.param(SHORT_S, marks=pytest.mark.slow), pytest.param(LONG_S, marks=pytest.mark.long)]
)
def test_a_run_waits_for_storage_that_is_away(
    go_away: Callable[[FaultyS3], None], seconds: float, unbroken: ProofRun, tmp_path: Path, s3: S3Server
) -> None:
    with faulty_s3(s3.endpoint, one_in=0, latency_s=0.0) as proxy:
        run = in_a_bucket(unbroken, tmp_path, s3, proxy)
        # Little is read ahead, so that reading is under way all the time.
        run.configure(
            data={"stream": {"object_store_bytes": 1_000_000, "kept_rows": 0, "items_per_segment": 16}}
        )
        with run.driver() as driver:
            await_step(run, driver, STEPS // 3)
            go_away(proxy)
            time.sleep(seconds)
            run.watch.look()
            assert driver.poll() is None, run.failure(driver)
            assert run.step < STEPS - 1, "storage came back in the middle of the run"
            come_back(proxy)
            run.finish(driver)
    check(run, unbroken)


@pytest.mark.parametrize(
    "seconds", [pytest.param(0.0, marks=pytest.mark.long), pytest.param(LONG_S, marks=pytest.mark.long)]
)
def test_workers_that_are_started_while_storage_is_away_wait_for_it(
    seconds: float, unbroken: ProofRun, tmp_path: Path, s3: S3Server
) -> None:
    """A worker is killed during the outage. Nothing else fails: there is no second failure that the run would survive.

    When its successors say that they wait, the retries that every request has are over.
    """
    with faulty_s3(s3.endpoint, one_in=0, latency_s=0.0) as proxy:
        run = in_a_bucket(unbroken, tmp_path, s3, proxy)
        run.configure(
            data={"stream": {"object_store_bytes": 1_000_000, "kept_rows": 0, "items_per_segment": 16}},
            workers={"max_failures": 1},
        )
        with run.driver() as driver:
            await_step(run, driver, STEPS // 2)
            refuse(proxy)
            run.training()[0].kill()
            wait(run, driver, lambda: "workers wait for storage" in run.log.read_text())
            time.sleep(seconds)
            assert driver.poll() is None, run.failure(driver)
            come_back(proxy)
            run.finish(driver)
    check(run, unbroken, starts=2)


@pytest.mark.parametrize(
    ("one_in", "latency_s"),
    [
        pytest.param(20, 0.0, marks=pytest.mark.slow, id="failing"),
        pytest.param(0, 0.3, marks=pytest.mark.long, id="slow"),
    ],
)
def test_a_run_goes_on_with_storage_that_fails_or_is_slow(
    one_in: int, latency_s: float, unbroken: ProofRun, tmp_path: Path, s3: S3Server
) -> None:
    with faulty_s3(s3.endpoint, one_in=one_in, latency_s=latency_s) as proxy:
        run = in_a_bucket(unbroken, tmp_path, s3, proxy)
        with run.driver() as driver:
            run.finish(driver)
        assert proxy.done.total() > 0 or latency_s
    check(run, unbroken)
