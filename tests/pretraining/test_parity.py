"""Every ZeRO stage trains as plain torch DistributedDataParallel does, over 200 steps on real ECGs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.pretraining.parity import CLIP_NORM, MICRO_BATCH, STEPS, Ran, train
from tests.pretraining.processes import Processes
from tests.pretraining.runs import ORDER, largest_difference

GroupOf = Callable[[int], Processes]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def plain(processes: GroupOf) -> Ran:
    """DistributedDataParallel in fp32."""
    ran: Ran = processes(2).run(train, None, "fp32")[0]
    return ran


def test_the_run_accumulates_clips_and_learns(plain: Ran) -> None:
    """Otherwise parity would say nothing of them."""
    assert len(plain.losses) == STEPS
    assert max(len(ORDER.positions_of(rank, 2)) for rank in range(2)) > MICRO_BATCH
    clipped = (plain.norms > CLIP_NORM).mean()
    assert 0.1 < clipped < 1, "some steps are clipped, some are not"
    assert plain.losses[-10:].mean() < 0.9 * plain.losses[:10].mean()


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_fp32_equals_plain_torch(processes: GroupOf, plain: Ran, zero_stage: int) -> None:
    """Ranks and stages add up gradients in other orders, no more: losses are within 1e-5 to the last step."""
    for ran in processes(2).run(train, zero_stage, "fp32"):
        np.testing.assert_allclose(ran.losses, plain.losses, rtol=1e-5)
        np.testing.assert_allclose(ran.norms, plain.norms, rtol=1e-4)
        assert largest_difference(ran.student, plain.student) < 2e-4
        assert largest_difference(ran.teacher, plain.teacher) < 2e-5


@pytest.mark.long
@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_bf16_stays_within_two_per_cent(processes: GroupOf, plain: Ran, zero_stage: int) -> None:
    for ran in processes(2).run(train, zero_stage, "bf16"):
        np.testing.assert_allclose(ran.losses, plain.losses, rtol=2e-2)
        assert largest_difference(ran.teacher, plain.teacher) < 5e-3
