"""A run that is killed again and again is the run that never was: same batches, same weights, same metrics.

Here each way of killing twice; `python -m tests.pretraining.proof` is the long form, whose figures `PROOF.md` has.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pretraining.breaking import Kill
from tests.pretraining.proof import Recovery, break_run, recoveries, unbroken_run
from tests.pretraining.proof_run import ProofRun
from tests.pretraining.recorded import Line

SHORT, LONG = 36, 240
"""Steps: 4 epochs, and 26."""


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> ProofRun:
    return unbroken_run(tmp_path_factory.mktemp("short"), SHORT)


@pytest.mark.ray
@pytest.mark.parametrize(
    "mode",
    [
        pytest.param("worker", marks=pytest.mark.slow),
        *(pytest.param(mode, marks=pytest.mark.long) for mode in ("node", "driver", "cluster")),
    ],
)
def test_two_kills_change_nothing(mode: str, unbroken: ProofRun, tmp_path: Path) -> None:
    verdict = break_run(mode, unbroken, tmp_path / "broken", kills=2, seed=0, saving=1)
    assert len(verdict.kills) == 2
    assert verdict.holds, verdict
    assert unbroken.history().replayed == 0


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.timeout(7200)
def test_twenty_kills_change_nothing(tmp_path: Path) -> None:
    unbroken = unbroken_run(tmp_path, LONG)
    verdict = break_run("worker", unbroken, tmp_path / "broken", kills=20, seed=1, saving=4)
    assert len(verdict.kills) == 20
    assert sum(kill.moment == "saving" for kill in verdict.kills) >= 3
    assert verdict.replayed > 0
    assert verdict.holds, verdict


def test_recovery_is_counted_from_the_kill_to_another_process() -> None:
    def line(time_s: float, step: int, file: str) -> Line:
        return Line(time_s, file, 1, step, 0, 1, (0,), ("a",))

    lines = [
        line(0, 0, "a"),
        line(1, 1, "a"),
        line(2.5, 2, "a"),
        line(12, 1, "b"),
        line(13, 2, "b"),
        line(14, 3, "b"),
    ]
    kills = [Kill("worker", "training", 2.0, 1), Kill("worker", "starting", 5.0, 2)]
    assert recoveries(lines, kills) == [Recovery(7.0, 9.0)], (
        "the first kill was not overcome before the second"
    )
