"""Checkpoints: a damaged or interrupted one is never used, and never in the way."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from ecgdist.errors import ConfigError, DataError, StorageError
from ecgdist.pretraining.checkpoint import CHECKPOINT, STUDENT, TEACHER, CheckpointStore
from ecgdist.pretraining.documents import document, files_below, parse
from ecgdist.pretraining.group import Group
from ecgdist.storage import Location
from tests.pretraining.processes import Processes
from tests.pretraining.resume import go_on, run_through, state_at, writer_for
from tests.pretraining.runs import Setting, SmallRun, slow

GroupOf = Callable[[int], Processes]


def restore_only(where: str) -> Any:
    """The name of the newest whole checkpoint, and warnings."""
    with tempfile.TemporaryDirectory() as scratch:
        restored, warnings = CheckpointStore(Location.of(where)).restore(Path(scratch), Group())
        return restored and restored.name, warnings


@pytest.fixture
def two_checkpoints(processes: GroupOf, tmp_path: Path) -> Path:
    """The `checkpoints` folder of a run that saved after steps 2 and 4."""
    processes(2).run(run_through, Setting(zero_stage=2), str(tmp_path), (2, 4), 2)
    return tmp_path / "checkpoints"


def flip(path: Path) -> None:
    """Change one bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    """Remove one byte in the middle."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + content[len(content) // 2 + 1 :])


def lengthen(path: Path) -> None:
    """Add a byte at the end."""
    path.write_bytes(path.read_bytes() + b"\n")


DAMAGES: dict[str, Callable[[Path], None]] = {
    "flipped": flip,
    "missing byte": cut,
    "extra byte": lengthen,
    "missing file": Path.unlink,
}


@pytest.mark.parametrize("zero_stage", [*slow(0, 1, 2), 3])
def test_any_damage_of_any_file_is_noticed_and_the_checkpoint_before_is_taken(
    processes: GroupOf, tmp_path: Path, zero_stage: int
) -> None:
    """Every file of every kind: the list of files, weights, what DeepSpeed writes, what the ranks noted."""
    processes(2).run(run_through, Setting(zero_stage=zero_stage), str(tmp_path), (2, 4), 2)
    older, newer = sorted((tmp_path / "checkpoints").iterdir())
    files = files_below(newer)
    assert {CHECKPOINT, STUDENT, TEACHER, "engine/latest", "notes/rank-00001.json"} <= set(files)
    assert (
        len([name for name in files if name.endswith("_states.pt")]) == {0: 1, 1: 3, 2: 3, 3: 4}[zero_stage]
    )
    assert not [name for name in files if name.endswith(".py")]
    for name in files:
        whole = (newer / name).read_bytes()
        for kind, damage in DAMAGES.items():
            damage(newer / name)
            found, warnings = restore_only(str(tmp_path))
            assert found == older.name, (name, kind)
            assert len(warnings) == 1
            assert name in warnings[0]
            (newer / name).write_bytes(whole)
    assert restore_only(str(tmp_path)) == (newer.name, [])


def test_what_was_damaged_is_said(two_checkpoints: Path) -> None:
    older, newer = sorted(two_checkpoints.iterdir())
    flip(newer / STUDENT)
    assert restore_only(str(two_checkpoints.parent)) == (
        older.name,
        [
            f"checkpoint {newer.name}: file {STUDENT} differs from its sha256 in {CHECKPOINT}; "
            "the checkpoint before it is taken"
        ],
    )
    (newer / STUDENT).unlink()
    _, (warning,) = restore_only(str(two_checkpoints.parent))
    assert f"file {STUDENT} is missing" in warning


def test_a_list_of_files_that_leads_outside_is_refused(two_checkpoints: Path) -> None:
    """Whoever can write to a run could otherwise write anywhere on the machines that resume it."""
    older, newer = sorted(two_checkpoints.iterdir())
    content = parse(Location.of(newer / CHECKPOINT))
    content["files"]["../../planted"] = content["files"][STUDENT]
    (newer / CHECKPOINT).write_bytes(document(content))
    found, (warning,) = restore_only(str(two_checkpoints.parent))
    assert found == older.name
    assert "outside of its folder" in warning


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"state": {}, "files": {}}', b"\xff\xfe"])
def test_a_damaged_list_of_files_is_noticed(two_checkpoints: Path, content: bytes) -> None:
    older, newer = sorted(two_checkpoints.iterdir())
    (newer / CHECKPOINT).write_bytes(content)
    found, warnings = restore_only(str(two_checkpoints.parent))
    assert found == older.name
    assert len(warnings) == 1
    assert "damaged" in warnings[0]


def test_the_state_in_the_list_of_files_is_hashed_too(two_checkpoints: Path) -> None:
    """A changed step would resume at the wrong place without any other sign."""
    older, newer = sorted(two_checkpoints.iterdir())
    content = json.loads((newer / CHECKPOINT).read_text())
    content["state"]["step"] = 3
    (newer / CHECKPOINT).write_text(json.dumps(content))
    found, warnings = restore_only(str(two_checkpoints.parent))
    assert found == older.name
    assert "damaged" in warnings[0]


@pytest.mark.slow
def test_a_folder_without_training_state_is_an_error(processes: GroupOf, tmp_path: Path) -> None:
    (answer,) = processes(1).run(load_from, str(tmp_path))
    assert isinstance(answer, DataError)
    assert "no training state" in str(answer)


def load_from(folder: str) -> None:
    SmallRun(Setting(zero_stage=1)).engine.load(Path(folder))


def test_nothing_whole_is_an_error_and_not_a_fresh_start(two_checkpoints: Path) -> None:
    for checkpoint in two_checkpoints.iterdir():
        flip(checkpoint / TEACHER)
    with pytest.raises(DataError, match="no checkpoint of this run is whole"):
        restore_only(str(two_checkpoints.parent))


def test_all_processes_take_the_checkpoint_that_the_first_one_found(
    processes: GroupOf, two_checkpoints: Path
) -> None:
    older, newer = sorted(two_checkpoints.iterdir())
    flip(newer / STUDENT)
    answers = processes(2).run(go_on, Setting(zero_stage=2), str(two_checkpoints.parent))
    assert [resumed.name for resumed in answers] == [older.name] * 2
    assert all(len(resumed.warnings) == 1 for resumed in answers)


def test_an_interrupted_checkpoint_is_none(two_checkpoints: Path) -> None:
    older, newer = sorted(two_checkpoints.iterdir())
    (newer / CHECKPOINT).unlink()
    found, warnings = restore_only(str(two_checkpoints.parent))
    assert found == older.name
    assert warnings == [
        f"checkpoint {newer.name} has no {CHECKPOINT}: its upload was interrupted; it is passed over"
    ]


def test_a_run_without_checkpoints_begins_anew(tmp_path: Path) -> None:
    assert restore_only(str(tmp_path / "new")) == (None, [])


def test_storage_that_fails_is_no_damaged_checkpoint(
    two_checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a moment without network would throw away the newest checkpoint."""
    real = Location.download

    def refuse(self: Location, local: Path) -> None:
        if self.name == STUDENT:
            raise StorageError(f"{self}: the storage server cannot be reached")
        real(self, local)

    monkeypatch.setattr(Location, "download", refuse)
    with pytest.raises(StorageError, match="cannot be reached"):
        restore_only(str(two_checkpoints.parent))


def test_old_and_interrupted_checkpoints_are_removed(processes: GroupOf, tmp_path: Path) -> None:
    interrupted = tmp_path / "checkpoints" / "step-00000001-dead"
    interrupted.mkdir(parents=True)
    (interrupted / STUDENT).write_bytes(b"half")
    processes(1).run(run_through, Setting(), str(tmp_path), (1, 2, 3, 4, 5), 3)
    left = sorted(path.name[:13] for path in (tmp_path / "checkpoints").iterdir())
    assert left == ["step-00000003", "step-00000004", "step-00000005"]


def save_after_going_back(where: str, keep_last: int) -> str:
    """Go on from the checkpoint that is whole, take one step, and save."""
    run = SmallRun(Setting(zero_stage=2))
    with tempfile.TemporaryDirectory() as scratch:
        store = CheckpointStore(Location.of(where))
        restored, _ = store.restore(Path(scratch), run.group)
        assert restored is not None
        state = state_at(restored.state.step + 1, run.group.world_size)
        with writer_for(where, run.group, keep_last=keep_last) as writer:
            return writer.save(run.engine, run.teacher, state)


@pytest.mark.parametrize("keep_last", [1, 2])
def test_a_new_checkpoint_is_not_removed_in_favour_of_a_damaged_later_one(
    processes: GroupOf, two_checkpoints: Path, keep_last: int
) -> None:
    older, newer = sorted(two_checkpoints.iterdir())
    flip(newer / STUDENT)
    saved = processes(2).run(save_after_going_back, str(two_checkpoints.parent), keep_last)[0]
    assert [path.name for path in sorted(two_checkpoints.iterdir())] == [older.name, saved][-keep_last:]


def test_another_corpus_or_setting_is_refused_with_every_difference() -> None:
    began = state_at(10, 2, engine={"zero_stage": 1}, data={"lanes": 4})
    began.refuse_other_run(state_at(0, 3, engine={"zero_stage": 1}, data={"lanes": 4}))
    asked = state_at(0, 2, engine={"zero_stage": 2}, data={"lanes": 8}).model_copy(
        update={"corpus_id": "other"}
    )
    with pytest.raises(ConfigError) as raised:
        began.refuse_other_run(asked)
    for difference in (
        "corpus_id was 'c0ffee', is now 'other'",
        "data.lanes was 4, is now 8",
        "engine.zero_stage was 1, is now 2",
    ):
        assert difference in str(raised.value)
    assert "seed" not in str(raised.value)


def test_weights_and_teacher_are_published_without_pickle(two_checkpoints: Path) -> None:
    for checkpoint in two_checkpoints.iterdir():
        student, teacher = load_file(checkpoint / STUDENT), load_file(checkpoint / TEACHER)
        assert all(weight.dtype == "float32" for weight in [*student.values(), *teacher.values()])
        assert set(teacher) <= set(student)
        assert json.loads((checkpoint / CHECKPOINT).read_text())["state"]["world_size"] == 2
