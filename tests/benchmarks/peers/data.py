"""The same ECGs in every side's own form, and the environments of the sides; made once, in ``.bench``.

The ECGs are the shipped sample at 250 Hz over and over, each time moved along in a circle: they differ, and take as
many bytes as the originals do.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ecgdist.corpus import Corpus
from ecgdist.corpus.schema import FORMAT_VERSION
from ecgdist.packing import PackConfig, pack
from ecgdist.record import STANDARD_LEADS
from ecgdist.sample import sample_folder
from tests.benchmarks.peers.harness import SHAPE

HERE = Path(__file__).parent
BENCH = Path(__file__).parents[3] / ".bench"
COPIES = 38
RATE_HZ = 250
STEP = 61
"""Samples by which each copy is moved on."""
CORPUS = f"corpus-{FORMAT_VERSION}"
READ_SHARDS = ("ours", "dataloader")
OWN_ENVIRONMENT = ("webdataset", "mosaic", "litdata")
SIDES = (*READ_SHARDS, *OWN_ENVIRONMENT, "wfdb")

Signals = npt.NDArray[np.int16]


def python_of(side: str) -> Path:
    """The interpreter that a side runs in; its environment is made when it is first asked for."""
    if side not in OWN_ENVIRONMENT:
        return Path(sys.executable)
    folder = BENCH / "environments" / side
    if not (folder / "whole").exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        requirements = HERE / f"requirements-{side}.txt"
        command = [
            folder / "bin/python",
            "-m",
            "pip",
            "install",
            "-q",
            "--disable-pip-version-check",
            "--no-deps",
        ]
        subprocess.run([*command, "-r", requirements], check=True)
        (folder / "whole").touch()
    return folder / "bin/python"


def folders(
    copies: int = COPIES, sides: Sequence[str] = SIDES, bench: Path = BENCH
) -> tuple[dict[str, Path], Signals]:
    """The folder of every side's data, made if it is not there, and the ECGs; a Ray session is needed."""
    root = bench / f"data-{copies}"
    signals = root / "signals.npy"
    _made(signals, lambda path: np.save(path, _signals(root, copies)))
    content: Signals = np.load(signals, mmap_mode="r")
    _made(root / "wfdb", lambda path: write_wfdb(content, path))
    _made(root / CORPUS, lambda path: _pack(f"wfdb={root / 'wfdb'}", path))
    for side in OWN_ENVIRONMENT:
        if side in sides:
            _made(root / side, lambda path, side=side: _write(side, signals, path))
    return {side: root / (CORPUS if side in READ_SHARDS else side) for side in sides}, content


def write_wfdb(signals: Signals, folder: Path) -> None:
    """One WFDB record (format 16, microvolt) for every ECG."""
    folder.mkdir()
    leads, samples = SHAPE
    for number, signal in enumerate(signals):
        name = f"r{number:06d}"
        signal.T.astype("<i2").tofile(folder / f"{name}.dat")
        sums = signal.sum(axis=1, dtype=np.int64).astype(np.int16)
        lines = [f"{name} {leads} {RATE_HZ} {samples}"]
        lines += [
            f"{name}.dat 16 1.0(0)/uV 16 0 {signal[lead, 0]} {sums[lead]} 0 {STANDARD_LEADS[lead]}"
            for lead in range(leads)
        ]
        (folder / f"{name}.hea").write_text("\n".join(lines) + "\n")


def _made(target: Path, make: Callable[[Path], object]) -> None:
    """Make a file or folder whole or not at all."""
    if target.exists():
        return
    part = target.with_name(f"part-{target.name}")
    shutil.rmtree(part, ignore_errors=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    make(part)
    part.rename(target)


def _signals(root: Path, copies: int) -> Signals:
    _made(root / "sample", lambda path: _pack(f"ptbxl={sample_folder()}", path))
    corpus = Corpus(root / "sample")
    rows = np.arange(corpus.manifest.rows)
    once = np.concatenate([signals for _, signals in corpus.iter_signals(rows, batch_rows=64)])
    return np.concatenate([np.roll(once, STEP * copy, axis=2) for copy in range(copies)])


def _pack(source: str, folder: Path) -> None:
    pack(PackConfig(sources=(source,), out=str(folder)))


def _write(side: str, signals: Path, folder: Path) -> None:
    folder.mkdir()
    command = [python_of(side), HERE / f"read_{side}.py", "write", signals, folder]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
