"""What one rank wishes, all ranks learn in the same step."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ecgdist.pretraining.group import Group
from ecgdist.pretraining.votes import Votes
from tests.pretraining.processes import Processes
from tests.pretraining.runs import Setting, SmallRun, rank_batch, slow

WISHES = [
    [Votes(), Votes(), Votes()],
    [Votes(save=True), Votes(), Votes()],
    [Votes(), Votes(stop=True), Votes()],
    [Votes(), Votes(stop=True), Votes(stop=True, save=True)],
]
AGREED = [Votes(), Votes(save=True), Votes(stop=True), Votes(save=True, stop=True)]


def vote(wishes: list[list[Votes]]) -> list[Votes]:
    """One step for every row of wishes, of which each rank hands in its own."""
    run, group = SmallRun(Setting(zero_stage=1)), Group()
    return [run.step(rank_batch(step, group), row[group.rank]).votes for step, row in enumerate(wishes)]


@pytest.mark.parametrize("world_size", [*slow(1), 3])
def test_what_any_rank_wishes_is_agreed_by_all_in_that_step(
    world_size: int, processes: Callable[[int], Processes]
) -> None:
    wishes = [row[:world_size] for row in WISHES]
    expected = AGREED if world_size == 3 else [AGREED[0], AGREED[1], AGREED[0], AGREED[0]]
    assert processes(world_size).run(vote, wishes) == [expected] * world_size
