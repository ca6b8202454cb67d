"""A run that gets notice saves what it has and leaves; the same command goes on with the next step.

`python -m tests.pretraining.leaving` is the long form, whose figures `LEAVING.md` has.
"""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from ecgdist.corpus import Corpus
from ecgdist.errors import RunStopped
from ecgdist.jobs.stop import stop_run
from ecgdist.pretraining.checkpoint import CheckpointStore
from ecgdist.pretraining.job import pretrain
from ecgdist.storage import Location
from tests.pretraining.leaving import KINDS, NOTICE_S, STEPS_EACH, give_notices
from tests.pretraining.proof import unbroken_run
from tests.pretraining.proof_run import GLOBAL_BATCH
from tests.pretraining.recorded import History, Watch
from tests.pretraining.test_job import config

FULL_COUNT = (pytest.mark.long, pytest.mark.timeout(7200))
_WAIT_S = 120.0


def after_steps(watch: Watch, steps: int, act: Callable[[], object]) -> threading.Thread:
    """Do something once so many more steps have begun than now."""
    begun = len({line.step for line in watch.lines})

    def wait_and_act() -> None:
        deadline = time.monotonic() + _WAIT_S
        while len({line.step for line in watch.lines}) < begun + steps and time.monotonic() < deadline:
            watch.look()
            time.sleep(0.05)
        act()

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    return thread


@pytest.mark.ray
@pytest.mark.slow
def test_no_step_is_lost_or_done_twice(sample_corpus: Corpus, tmp_path: Path) -> None:
    """Stopped by `ecgdist jobs stop`, started again, and stopped by SIGTERM to the driver."""
    rows = tmp_path / "rows"
    rows.mkdir()
    data = {"lanes": 4, "global_batch": 32, "shuffle_rows": 64, "exclude_splits": ["fold8"]}
    settings = config(
        sample_corpus,
        tmp_path / "run",
        steps=4000,
        data=data | {"record_rows": str(rows)},
        checkpoint={"every_steps": None, "every_minutes": None},
    )
    run, watch, printed = Location.of(settings.out), Watch(rows), io.StringIO()
    asking: list[Callable[[], object]] = [
        lambda: stop_run(run, _WAIT_S, lambda _: None),
        lambda: os.kill(os.getpid(), signal.SIGTERM),
    ]
    for ask, reason in zip(asking, ("ecgdist jobs stop", "SIGTERM"), strict=True):
        asker = after_steps(watch, 3, ask)
        with pytest.raises(RunStopped) as stopped:
            pretrain(settings, Console(file=printed, width=200))
        asker.join()
        watch.look()
        done = 1 + max(line.step for line in watch.lines)
        name = CheckpointStore(run).names()[-1]
        assert name.startswith(f"step-{done:08d}-"), "the last step that was done is in the checkpoint"
        assert f"stopped after step {done} of 4000 ({reason}), saved as {name}" in str(stopped.value)
    history = History.of(watch.lines)
    assert history.replayed == 0
    assert history.lost(done, GLOBAL_BATCH) == 0
    assert "SIGTERM: saving a checkpoint, then stopping" in printed.getvalue()


@pytest.mark.ray
@pytest.mark.parametrize(
    ("kind", "tries"),
    [
        *(pytest.param(kind, 2, marks=pytest.mark.long) for kind in KINDS),
        *(pytest.param(kind, 20, marks=FULL_COUNT) for kind in KINDS),
    ],
)
def test_a_checkpoint_is_committed_before_the_end_that_was_announced(
    kind: str, tries: int, tmp_path: Path
) -> None:
    unbroken = unbroken_run(tmp_path, (tries + 1) * STEPS_EACH[kind])
    notices, verdict = give_notices(kind, unbroken, tmp_path / "noticed", tries, seed=0)
    assert len(notices) == tries
    assert all(notice.committed_s < NOTICE_S and notice.lost <= 1 for notice in notices), notices
    assert verdict.replayed == 0
    assert verdict.holds, verdict
