"""What the benchmark of the stream compares are the same ECGs: each side gives every one of them once, bit by bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.benchmarks.peers import data, harness, read_dataloader, read_ours
from tests.benchmarks.results import cell, table, write_section
from tests.benchmarks.stream_peers import run_side

BATCH = 32
Read = Callable[[dict[str, object]], harness.Batches]
IN_PACKAGE = ("ours", "dataloader", "wfdb")


@pytest.fixture(scope="session")
def small(
    ray_cluster: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Path], data.Signals]:
    """353 ECGs in the forms that need no environment of their own."""
    return data.folders(1, IN_PACKAGE, tmp_path_factory.mktemp("bench"))


def job(where: Path, rows: int, epochs: int = 1) -> dict[str, object]:
    return {
        "where": str(where), "rows": rows, "epochs": epochs, "timed_epochs": epochs,
        "batch": BATCH, "workers": 2, "hashes": True,
    }  # fmt: skip


def require_right(found: dict[str, object], signals: data.Signals) -> None:
    """All ECGs that came are those of their numbers, and fewer than a batch did not come."""
    hashes = found["hashes"]
    assert isinstance(hashes, dict)
    assert len(signals) - BATCH < len(hashes) <= len(signals)
    assert len(signals) - len(hashes) == found["missing"]
    assert all(text == harness.hash_of(signals[int(number)]) for number, text in hashes.items())


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("read", [read_ours.read, read_dataloader.read], ids=["ours", "dataloader"])
def test_sides_over_the_shards_give_every_ecg_once(
    small: tuple[dict[str, Path], data.Signals], read: Read
) -> None:
    folders, signals = small
    require_right(harness.measure(read, job(folders["ours"], len(signals))), signals)


@pytest.mark.ray
@pytest.mark.slow
def test_wfdb_file_by_file_gives_every_ecg_once(small: tuple[dict[str, Path], data.Signals]) -> None:
    folders, signals = small
    found = run_side("wfdb", job(folders["wfdb"], len(signals)), {})
    require_right(found, signals)
    assert found["missing"] == 0


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.parametrize("side", data.OWN_ENVIRONMENT)
def test_other_libraries_give_every_ecg_once(side: str, ray_cluster: None) -> None:
    """In environments that this makes, which takes minutes and a network the first time."""
    folders, signals = data.folders(1, [side])
    require_right(run_side(side, job(folders[side], len(signals)), {}), signals)


def test_an_ecg_that_comes_twice_is_an_error() -> None:
    def twice(_: dict[str, object]) -> harness.Batches:
        yield [0, 1], torch.zeros(2, *harness.SHAPE)
        yield [1], torch.zeros(1, *harness.SHAPE)

    with pytest.raises(RuntimeError, match="an ECG came 2 times in 1 epochs"):
        harness.measure(twice, {"epochs": 1, "timed_epochs": 1, "rows": 2})


def test_a_section_is_replaced_and_the_others_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = tmp_path / "RESULTS.md"
    monkeypatch.setattr("tests.benchmarks.results.RESULTS", results)
    write_section("One", "first", ["old"])
    write_section("Two", "second", [table(["", "ECG/s"], [["ours", cell([3.0, 1.0, 2.0])]])])
    write_section("One", "first", ["new"])
    text = results.read_text(encoding="utf-8")
    assert "old" not in text
    assert text.index("## One") < text.index("new") < text.index("## Two")
    assert "| ours | 2 (1 to 3) |" in text
