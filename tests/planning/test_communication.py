"""What workers send each other: closed forms against a ring that is run, message by message."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from ecgdist.config import build
from ecgdist.planning.communication import Network, Traffic, all_reduce_s, gather_s, step_traffic
from ecgdist.planning.layout import RunLayout
from ecgdist.pretraining.config import PretrainConfig

NETWORK = Network(bytes_per_s=1e9, latency_s=1e-3)
ITEM = 4


def ring(
    values: Sequence[np.ndarray], reduce: bool, gather: bool
) -> tuple[list[np.ndarray], list[float], float]:
    """Run a ring: what every worker has in the end, the bytes that each has sent, and how long it took."""
    workers = len(values)
    parts = [[part.copy() for part in np.split(value, workers)] for value in values]
    sent, seconds = [0.0] * workers, 0.0
    for phase in (["reduce"] if reduce else []) + (["gather"] if gather else []):
        for turn in range(workers - 1):
            moving = []
            for rank in range(workers):
                which = (rank - turn + (phase == "gather")) % workers
                moving.append((rank, which, parts[rank][which].copy()))
                sent[rank] += parts[rank][which].size * ITEM
            for rank, which, part in moving:
                there = (rank + 1) % workers
                parts[there][which] = parts[there][which] + part if phase == "reduce" else part
            seconds += moving[0][2].size * ITEM / NETWORK.bytes_per_s + NETWORK.latency_s
    return [np.concatenate(own) for own in parts], sent, seconds


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 8])
def test_a_ring_all_reduce_takes_what_the_closed_form_says(workers: int) -> None:
    values = list(np.random.default_rng(0).integers(0, 100, (workers, 24 * workers)).astype(np.float64))
    result, sent, seconds = ring(values, reduce=True, gather=True)
    assert all(np.array_equal(one, sum(values)) for one in result)
    num_bytes = values[0].size * ITEM
    assert sent == pytest.approx([2 * (workers - 1) / workers * num_bytes] * workers)
    assert all_reduce_s(num_bytes, workers, NETWORK) == pytest.approx(seconds)
    assert Traffic(((num_bytes, True),)).sent_bytes(workers) == pytest.approx(sent[0])


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
def test_a_scatter_and_a_gather_take_half_of_it_each(workers: int) -> None:
    values = [np.ones(24 * workers) for _ in range(workers)]
    _, sent, seconds = ring(values, reduce=True, gather=False)
    num_bytes = values[0].size * ITEM
    assert gather_s(num_bytes, workers, NETWORK) == pytest.approx(seconds)
    assert Traffic(((num_bytes, False),)).sent_bytes(workers) == pytest.approx(sent[0])


def layout(**engine: object) -> RunLayout:
    values = {
        "corpus": "none",
        "out": "run",
        "steps": 10,
        "data": {"lanes": 8, "global_batch": 64},
        "encoder": {"size": "small"},
        "engine": {"micro_batch": 8, **engine},
    }
    return RunLayout.of_rows(build(PretrainConfig, values), 1000)


def test_each_stage_sends_what_zero_and_deepspeed_make_it() -> None:
    run = layout()
    whole, small, teacher = (4 * n for n in (run.parameters, run.whole_under_3, run.teacher_parameters))
    assert 0 < small < 0.1 * whole
    assert step_traffic(run, 0, 2) == Traffic(((whole, True),))
    by_stage = [step_traffic(run, stage, 2) for stage in range(4)]
    assert [one.reduced_bytes for one in by_stage] == [whole, whole, 4 * whole, 0], "32 rows in parts of 8"
    assert [one.gathered_bytes for one in by_stage[:3]] == [0, whole, whole]
    assert by_stage[3].gathered_bytes == pytest.approx(8 * (whole - small) + 4 * whole + small + teacher)
    assert step_traffic(run, 2, 8).reduced_bytes == whole, "8 rows are one part"


def test_bf16_halves_it_and_one_worker_sends_nothing() -> None:
    full, half = layout(), layout(precision="bf16")
    for stage in range(4):
        assert step_traffic(half, stage, 4).sent_bytes(4) == pytest.approx(
            step_traffic(full, stage, 4).sent_bytes(4) / 2
        )
        assert NETWORK.seconds(step_traffic(full, stage, 1), 1) == 0


def test_a_step_takes_all_its_operations_one_after_the_other() -> None:
    traffic = Traffic(((1e6, True), (2e6, False)))
    expected = 2 * 3 * (0.25e6 / 1e9 + 1e-3) + 3 * (0.5e6 / 1e9 + 1e-3)
    assert NETWORK.seconds(traffic, 4) == pytest.approx(expected)
