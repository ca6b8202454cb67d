"""Groups of processes, started when a test first asks for one and kept for the tests of one file."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.pretraining.processes import Processes


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], Processes]]:
    """``processes(2)`` is a group of two processes; one that broke in an earlier test is replaced."""
    groups: dict[int, Processes] = {}

    def of_size(world_size: int) -> Processes:
        if world_size in groups and not groups[world_size].alive:
            groups.pop(world_size).close()
        if world_size not in groups:
            groups[world_size] = Processes(world_size, tmp_path_factory.mktemp(f"group-of-{world_size}"))
        return groups[world_size]

    yield of_size
    for group in groups.values():
        group.close()
