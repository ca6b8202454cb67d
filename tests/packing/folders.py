"""Source folders and corpora that the tests of packing share."""

from __future__ import annotations

import csv
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ecgdist.config import build
from ecgdist.packing import PackConfig, PackResult, pack
from ecgdist.packing.claim import CLAIM
from ecgdist.sample import sample_folder
from ecgdist.storage import Location

DATA = Path(__file__).parents[1] / "data"
TABLE = "ptbxl_database.csv"
RATE_100 = {"rate_hz": 100.0}


def ptbxl_folder(
    path: Path, count: int, change: Callable[[int, dict[str, str]], dict[str, str]] = lambda number, row: row
) -> Path:
    """A PTB-XL folder with the first `count` shipped ECGs; `change` may edit the row of each."""
    with (sample_folder() / TABLE).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[:count]
    for row in rows:
        for suffix in (".hea", ".dat"):
            target = path / (row["filename_lr"] + suffix)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(sample_folder() / (row["filename_lr"] + suffix), target)
    write_table(path, [change(number, row) for number, row in enumerate(rows)])
    return path


def write_table(path: Path, rows: list[dict[str, str]]) -> None:
    with (path / TABLE).open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def georgia_folder(path: Path, *names: str) -> Path:
    """A WFDB folder with copies of one real 500 Hz record under several names."""
    path.mkdir(parents=True, exist_ok=True)
    for name in names:
        text = (DATA / "wfdb/georgia/E07500.hea").read_text(encoding="utf-8")
        (path / f"{name}.hea").write_text(text.replace("E07500", name), encoding="utf-8")
        shutil.copyfile(DATA / "wfdb/georgia/E07500.mat", path / f"{name}.mat")
    return path


def edit(path: Path, old: str, new: str) -> None:
    """Replace text in a file; it must be there."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def pack_to(out: Path | Location | str, *sources: str, **settings: Any) -> PackResult:
    """Pack at 100 Hz, ten records a shard, unless the settings say otherwise."""
    values = {"sources": sources, "out": str(out), "pack": RATE_100, "records_per_shard": 10, **settings}
    return pack(build(PackConfig, values))


def corpus_files(folder: Path | Location | str) -> dict[str, str]:
    """`files_of` a corpus but for the claim, which tells from which folders it was packed."""
    return {name: digest for name, digest in files_of(folder).items() if name != CLAIM}


def files_of(folder: Path | Location | str) -> dict[str, str]:
    """SHA-256 of every file below a folder, by name."""
    where = Location.of(folder)
    return {name: hashlib.sha256((where / name).read_bytes()).hexdigest() for name in where.list_files()}
