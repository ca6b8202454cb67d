"""Temporary folders: gone with their process, at the latest when the next one starts."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ecgdist.scratch import new_scratch, remove_leftovers, scratch_folder

OTHER = """
import sys, time
from ecgdist.scratch import new_scratch
folder = new_scratch("snapshot")
(folder / "weights").write_bytes(b"some")
print(folder, flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


@pytest.fixture
def other() -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Another process with a folder."""
    process = subprocess.Popen([sys.executable, "-c", OTHER], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield process, Path(process.stdout.readline().strip())
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_folder_goes_with_its_block(temporary: Path) -> None:
    with scratch_folder("resume") as folder:
        (folder / "file").write_bytes(b"content")
        assert folder.parent == temporary
    assert list(temporary.iterdir()) == []
    with pytest.raises(ZeroDivisionError), scratch_folder("resume"):
        raise ZeroDivisionError
    assert list(temporary.iterdir()) == []


def test_what_a_killed_process_left_is_removed(other: tuple[subprocess.Popen[str], Path]) -> None:
    process, folder = other
    process.kill()
    process.wait()
    assert folder.is_dir()
    assert remove_leftovers() == [folder.name]
    assert not folder.exists()


def test_what_a_living_process_uses_stays(other: tuple[subprocess.Popen[str], Path]) -> None:
    mine, (_, theirs) = new_scratch("snapshot"), other
    assert remove_leftovers() == []
    assert mine.is_dir()
    assert (theirs / "weights").read_bytes() == b"some"


def test_folders_of_machines_that_cannot_be_seen_stay_for_a_day(temporary: Path) -> None:
    """Of another container with the same /tmp, or from before a reboot."""
    old, young = (temporary / f"ecgdist-snapshot.{'f' * 16}.1.{n}.abc" for n in (1, 2))
    old.mkdir()
    young.mkdir()
    yesterday = young.stat().st_mtime - 25 * 3600
    os.utime(old, (yesterday, yesterday))
    assert remove_leftovers() == [old.name]
    assert young.is_dir()


def test_folders_of_others_are_left_alone(temporary: Path) -> None:
    for name in ("ecgdist-mine", "ecgdist-snapshot-1", "else"):
        (temporary / name).mkdir()
        os.utime(temporary / name, (0, 0))
    assert remove_leftovers() == []
    assert len(list(temporary.iterdir())) == 3
