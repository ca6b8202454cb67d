"""A longer run keeps its memory, files, threads and disk; `python -m tests.pretraining.soak` prints the figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pretraining.soak import KEEP_LAST, soak

pytestmark = pytest.mark.ray


@pytest.mark.parametrize(
    ("steps", "checkpoints"),
    [
        pytest.param(800, 80, marks=pytest.mark.slow),
        pytest.param(20_000, 2_000, marks=[pytest.mark.long, pytest.mark.timeout(7200)]),
    ],
)
def test_memory_files_threads_and_disk_stay_where_they_are(
    steps: int, checkpoints: int, tmp_path: Path
) -> None:
    found = soak(tmp_path, steps, checkpoints)
    assert found.steps == steps
    (worker,) = [life for life in found.lives if life.name.startswith("ray::RayTrainWorker")]
    assert max(worker.steps) > 0.8 * steps, "it was watched to its end"
    for life in found.lives:
        _, files = life.settled(life.files)
        _, threads = life.settled(life.threads)
        # What is opened for one checkpoint is closed before a few more are written.
        assert files.max() - files.min() < 40, life.name
        assert threads.max() - threads.min() < 30, life.name
    # The one being written, the newest whole ones, and one that is being removed.
    assert found.most_checkpoints <= KEEP_LAST + 2
    assert found.scratch_left == []
