"""Metrics: every step of a run has at most one row, whatever happened to its workers."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ecgdist.pretraining.metrics import METRICS, TENSORBOARD, MetricsLog, read_metrics
from ecgdist.storage import Location
from tests.conftest import S3Server


def write(run: Location, start_step: int, steps: range, loss: float) -> None:
    log = MetricsLog(run, start_step)
    for step in steps:
        log.add({"step": step, "loss": loss, "note": "text is no curve"})
    log.close()


def losses(run: Location) -> dict[int, float]:
    rows = read_metrics(run)
    assert len({row["step"] for row in rows}) == len(rows)
    return {row["step"]: row["loss"] for row in rows}


def test_a_run_that_has_not_reported_has_no_rows(tmp_path: Path) -> None:
    assert read_metrics(Location.of(tmp_path)) == []


def test_rows_are_json_lines_in_order(tmp_path: Path) -> None:
    write(Location.of(tmp_path), 0, range(1, 4), 0.5)
    lines = (tmp_path / METRICS).read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]


def test_rows_can_be_read_while_the_run_goes_on(tmp_path: Path) -> None:
    run = Location.of(tmp_path)
    log = MetricsLog(run, 0)
    log.add({"step": 1, "loss": 0.5})
    assert losses(run) == {}
    log.flush()
    assert losses(run) == {1: 0.5}
    log.close()


def test_going_on_drops_the_rows_of_steps_that_are_trained_again(tmp_path: Path) -> None:
    run = Location.of(tmp_path)
    write(run, 0, range(1, 6), 0.5)
    write(run, 3, range(4, 8), 0.25)
    assert losses(run) == {1: 0.5, 2: 0.5, 3: 0.5, 4: 0.25, 5: 0.25, 6: 0.25, 7: 0.25}


def test_beginning_anew_drops_all_rows(tmp_path: Path) -> None:
    """Workers that were lost before the first checkpoint."""
    run = Location.of(tmp_path)
    write(run, 0, range(1, 6), 0.5)
    write(run, 0, range(1, 3), 0.25)
    assert losses(run) == {1: 0.25, 2: 0.25}


def test_tensorboard_shows_every_step_once(tmp_path: Path) -> None:
    run = Location.of(tmp_path)
    write(run, 0, range(1, 6), 0.5)
    write(run, 3, range(4, 8), 0.25)
    board = EventAccumulator(str(tmp_path / TENSORBOARD))
    board.Reload()
    shown = [(event.step, event.value) for event in board.Scalars("loss")]
    assert shown == [(1, 0.5), (2, 0.5), (3, 0.5), (4, 0.25), (5, 0.25), (6, 0.25), (7, 0.25)]
    assert board.Tags()["scalars"] == ["loss"]


@pytest.mark.s3
def test_metrics_go_to_object_storage(s3: S3Server) -> None:
    run = Location.of(f"s3://ecg/metrics/{os.urandom(4).hex()}")
    write(run, 0, range(1, 4), 0.5)
    write(run, 2, range(3, 5), 0.25)
    assert losses(run) == {1: 0.5, 2: 0.5, 3: 0.25, 4: 0.25}
    assert len([name for name in run.list_files() if name.startswith(TENSORBOARD)]) == 2
