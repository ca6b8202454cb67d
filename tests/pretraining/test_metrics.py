"""Metrics: every step of a run has at most one row, whatever happened to its workers."""

from __future__ import annotations

import json
import os
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboardX.proto import event_pb2

from ecgdist.errors import StorageError
from ecgdist.pretraining import metrics
from ecgdist.pretraining.metrics import METRICS, TENSORBOARD, MetricsLog, read_metrics
from ecgdist.storage import Location
from tests.conftest import S3Server
from tests.faulty_s3 import faulty_s3


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


def test_an_error_ends_a_log_without_waiting_for_storage_and_leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    run = Location.of(tmp_path / "run")
    with pytest.raises(ZeroDivisionError), MetricsLog(run, 0) as log:
        log.add({"step": 1, "loss": 1 / 0})
    assert read_metrics(run) == []
    with MetricsLog(run, 0) as log:
        log.add({"step": 1, "loss": 0.5})
    assert losses(run) == {1: 0.5}
    assert list((tmp_path / "scratch").iterdir()) == []


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


def events(path: Path) -> Iterator[event_pb2.Event]:
    """What TensorBoard reads: records of 8 bytes of length, 4 of checksum, an event, and 4 of checksum."""
    content = path.read_bytes()
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        yield event_pb2.Event.FromString(content[12 : 12 + length])
        content = content[16 + length :]


def test_tensorboard_is_told_which_steps_are_trained_again(tmp_path: Path) -> None:
    run = Location.of(tmp_path)
    write(run, 0, range(1, 6), 0.5)
    first = set((tmp_path / TENSORBOARD).iterdir())
    write(run, 3, range(4, 8), 0.25)
    (second,) = set((tmp_path / TENSORBOARD).iterdir()) - first
    found = list(events(second))
    starts = [event.step for event in found if event.session_log.status == event.session_log.START]
    assert starts == [4], "from here on TensorBoard forgets what the first file says"
    shown = [(event.step, value.tag, value.simple_value) for event in found for value in event.summary.value]
    assert shown == [(step, "loss", 0.25) for step in range(4, 8)]


@pytest.mark.s3
def test_metrics_go_to_object_storage(s3: S3Server) -> None:
    run = Location.of(f"s3://ecg/metrics/{os.urandom(4).hex()}")
    write(run, 0, range(1, 4), 0.5)
    write(run, 2, range(3, 5), 0.25)
    assert losses(run) == {1: 0.5, 2: 0.5, 3: 0.25, 4: 0.25}
    assert len([name for name in run.list_files() if name.startswith(TENSORBOARD)]) == 2


def test_what_will_not_pass_is_said_at_the_next_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_FLUSH_EVERY_S", -1.0)
    log = MetricsLog(Location.of(tmp_path / "run"), 0)
    (tmp_path / "run").touch()  # a file, where the folder should be

    def report() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            log.flush_now_and_then()
            time.sleep(0.01)

    with pytest.raises(StorageError, match="File exists"):
        report()
    log._discard(wait=True)


@pytest.mark.s3
def test_rows_wait_for_storage_that_is_away(
    tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Now and then nobody waits for them; at the end they are waited for."""
    run = Location.of(f"s3://ecg/{tmp_path.name}/run")
    with faulty_s3(s3.endpoint, one_in=0, latency_s=0.0) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        log = MetricsLog(run, 0)
        log.add({"step": 1, "loss": 0.5})
        proxy.draw = lambda method: "reset"  # type: ignore[method-assign]
        log.flush_now_and_then()
        deadline = time.monotonic() + 60
        while not proxy.done["reset"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        coming_back = threading.Timer(1.0, lambda: setattr(proxy, "draw", lambda method: None))
        coming_back.start()
        log.flush()
        coming_back.join()
        assert losses(run) == {1: 0.5}
        log.close()
