"""A run may go on with fewer or more workers at any checkpoint, also with a number that does not divide the lanes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.pretraining.elastic import MOMENTS, stretch
from tests.pretraining.processes import Processes
from tests.pretraining.runs import LANES, Setting

SIZES, STEPS = (4, 2, 3, 4), 3
"""Workers of one stretch after the other, and steps of each."""


@pytest.mark.parametrize(
    "zero_stage",
    [pytest.param(n, marks=pytest.mark.slow if n in (0, 3) else pytest.mark.long) for n in range(4)],
)
def test_four_two_three_four_workers(
    processes: Callable[[int], Processes], tmp_path: Path, zero_stage: int
) -> None:
    assert any(LANES % size for size in SIZES), "one count at least leaves lanes over"
    setting = Setting(zero_stage=zero_stage, micro_batch=3)
    end = STEPS * len(SIZES)
    unbroken = processes(SIZES[0]).run(stretch, setting, str(tmp_path / "unbroken"), 0, end)[0]
    losses, saved = [], None
    for number, size in enumerate(SIZES):
        start = number * STEPS
        ranks = processes(size).run(stretch, setting, str(tmp_path / "resized"), start, start + STEPS)
        for each in ranks:
            assert each.losses == ranks[0].losses
            if saved is not None:
                assert each.loaded.keys() == saved.keys()
                for name, values in saved.items():
                    np.testing.assert_array_equal(
                        each.loaded[name], values, err_msg=f"{name}, {size} workers"
                    )
        losses += ranks[0].losses
        saved = ranks[0].ended
    assert {name.split()[0] for name in saved} >= {"weight", *MOMENTS, "steps", "teacher"}
    assert losses == pytest.approx(unbroken.losses, rel=1e-4)
    assert len(set(losses)) == end
