"""What is recorded of a run, and what is made of a recording after kills."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecgdist.errors import ConfigError
from ecgdist.pretraining.group import Group
from ecgdist.pretraining.recorder import Recorder
from tests.pretraining.recorded import History, Line, Watch
from tests.pretraining.runs import GLOBAL_BATCH, global_batch


def test_every_batch_is_a_line(tmp_path: Path) -> None:
    watch = Watch(tmp_path / "rows")
    with Recorder(str(watch.folder), Group()) as recorder:
        for step in range(3):
            recorder.add(global_batch(step))
            (line,) = watch.look()
            assert line.step == step, "a line is there at once, for a kill may come before the next"
            assert line.row_ids == tuple(global_batch(step).row_ids)
            assert (line.rank, line.world_size, line.positions) == (0, 1, tuple(range(GLOBAL_BATCH)))
    assert [line.step for line in watch.lines] == [0, 1, 2]


def test_a_line_that_a_kill_cut_short_is_not_read(tmp_path: Path) -> None:
    with Recorder(str(tmp_path), Group()) as recorder:
        recorder.add(global_batch(0))
    (file,) = tmp_path.iterdir()
    file.write_text(file.read_text() + '{"time_s": 12')
    watch = Watch(tmp_path)
    assert [line.step for line in watch.look()] == [0]
    assert watch.look() == []


def test_nothing_is_recorded_unless_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Recorder(None, Group()) as recorder:
        recorder.add(global_batch(0))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"data\.record_rows: .* cannot be written to"):
        Recorder(str(tmp_path / "file"), Group())


def line(time_s: float, step: int, rank: int, rows: str, file: str = "a") -> Line:
    """Two ranks serve two rows each."""
    return Line(time_s, f"{file}-{rank}", 1, step, rank, 2, (2 * rank, 2 * rank + 1), tuple(rows))


UNBROKEN = [line(0, 0, 0, "ab"), line(0, 0, 1, "cd"), line(1, 1, 0, "ef"), line(1, 1, 1, "gh")]


def test_replays_are_counted_and_change_nothing() -> None:
    replayed = [*UNBROKEN, line(2, 1, 0, "ef", "b"), line(2, 1, 1, "gh", "b")]
    history = History.of(replayed)
    assert history == History(History.of(UNBROKEN).batches, replayed=2, changed=[])
    assert history.batches[1] == dict(enumerate("efgh"))
    assert (history.lost(2, 4), history.doubled(2)) == (0, 0)


def test_what_a_restart_changed_lost_or_doubled_is_found() -> None:
    changed = History.of([*UNBROKEN, line(2, 1, 0, "xf", "b")])
    assert changed.changed == [1]
    assert changed.batches != History.of(UNBROKEN).batches
    assert History.of(UNBROKEN[:3]).lost(2, 4) == 2
    assert History.of(UNBROKEN).lost(3, 4) == 4
    doubled = History.of([*UNBROKEN, line(2, 2, 0, "ab"), line(2, 2, 1, "ch")])
    assert doubled.doubled(steps_per_epoch=2) == 0, "the next epoch has every row again"
    assert doubled.doubled(steps_per_epoch=3) == 4
