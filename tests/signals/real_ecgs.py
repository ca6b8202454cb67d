"""ECGs that ship with the package, for tests."""

from __future__ import annotations

from functools import cache

import numpy as np
import wfdb

from ecgdist.record import Recording
from ecgdist.sample import sample_folder


@cache
def recordings(count: int) -> tuple[Recording, ...]:
    """The first `count` shipped PTB-XL ECGs: 12 leads, 10 s, 100 Hz."""
    paths = sorted(sample_folder().rglob("*.hea"))[:count]
    records = [wfdb.rdrecord(str(path.with_suffix(""))) for path in paths]
    return tuple(
        Recording(path.stem, "ptbxl", record.p_signal.T * 1000.0, record.fs, tuple(record.sig_name))
        for path, record in zip(paths, records, strict=True)
    )


def signals_uv(count: int) -> np.ndarray:
    """``(count, 12, 1000)`` float64 microvolt."""
    return np.stack([recording.signal_uv for recording in recordings(count)])
