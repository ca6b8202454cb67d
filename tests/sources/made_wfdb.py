"""Files that tests make in a published layout, where no real one can be had.

Their samples are those of a real ECG, `real_ecg`; only files and headers are made, and their tests say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

_REAL = Path(__file__).parents[1] / "data" / "ptb-xl" / "records500" / "00000" / "00001_hr.dat"


def real_ecg() -> npt.NDArray[np.int16]:
    """PTB-XL's first ECG, ``(12, 5000)`` at 500 Hz in whole microvolts, standard lead order."""
    return np.fromfile(_REAL, "<i2").reshape(5000, 12).T


def make_record(
    path: Path,
    digital: npt.NDArray[np.int16],
    leads: Sequence[str],
    rate_hz: int = 500,
    gain: str = "1000/mV",
    comments: Sequence[str] = (),
    suffix: str = ".dat",
) -> None:
    """Write a header and its signal file: WFDB format 16, or with the suffix ``.mat`` MATLAB 4 as the Challenge has it.

    Args:
        path: of both files, without suffix.
        digital: ``(leads, samples)``.
        leads: name of each row.
        rate_hz: sampling rate.
        gain: of every lead, as the header writes it.
        comments: lines of the header, with their ``#``.
        suffix: ``.dat`` or ``.mat``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = digital.T.astype("<i2").tobytes()
    offset = ""
    if suffix == ".mat":
        offset = "+24"
        shape = np.array([30, *digital.shape, 0, 4], dtype="<i4")
        samples = shape.tobytes() + b"val\0" + samples
    path.with_suffix(suffix).write_bytes(samples)
    lines = [f"{path.name} {len(leads)} {rate_hz} {digital.shape[1]}"]
    for name, row in zip(leads, digital, strict=True):
        checksum = int(np.array(row.sum(dtype=np.int64)).astype(np.int16))
        lines.append(f"{path.name}{suffix} 16{offset} {gain} 16 0 {row[0]} {checksum} 0 {name}")
    path.with_suffix(".hea").write_text("\n".join([*lines, *comments, ""]), encoding="utf-8")
