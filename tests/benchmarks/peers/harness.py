"""What every side does: read epochs of ECGs as float32 batches, and say how fast they came.

A side is a program ``read_NAME.py JOB`` that knows nothing of the package, except those that read its shards. JOB is
JSON: ``where`` the data lies, ``epochs`` and how many of them are timed (``timed_epochs``), ``rows`` of an epoch,
``batch``, ``workers``, and ``cache``, an empty folder. It prints ``ready`` once it has imported what it needs, waits
for a line, and prints its figures as JSON.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

SHAPE = (12, 2500)
"""Leads and samples of an ECG: 10 s at 250 Hz."""

Batches = Iterator[tuple[Any, torch.Tensor]]
"""Numbers of ECGs, and their ``(b, 12, 2500)`` int16 microvolt."""


def main(read: Callable[[dict[str, Any]], Batches]) -> None:
    """Read what the job asks for and print the figures."""
    torch.set_num_threads(1)
    job = json.loads(sys.argv[1])
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(measure(read, job)), flush=True)


def measure(read: Callable[[dict[str, Any]], Batches], job: dict[str, Any]) -> dict[str, Any]:
    """Seconds to the first float32 batch, ECG/s after it, and what was read.

    The rate is that of the first ``timed_epochs``: a side that holds many ECGs has read them before its first batch,
    and gives the last of them faster than it reads.

    Returns:
        ``first_s``, ``rate``, ``rows``; ``missing``, how many ECGs did not come in every epoch; and if
        ``job["hashes"]`` is true, ``hashes`` of all float32 ECGs by number.
    """
    began = time.perf_counter()
    seen: list[Any] = []
    hashes: dict[int, str] = {}
    first_s = timed_s = 0.0
    rows = timed_rows = 0
    for numbers, signal_uv in read(job):
        batch = signal_uv.float()
        if not seen:
            first_s = time.perf_counter() - began
        seen.append(np.array(numbers))
        rows += len(batch)
        if rows <= job["timed_epochs"] * job["rows"]:
            timed_s, timed_rows = time.perf_counter() - began - first_s, rows - len(seen[0])
        if job.get("hashes"):
            for number, signal in zip(np.asarray(numbers).tolist(), batch.numpy(), strict=True):
                hashes[number] = hash_of(signal)
    counts = np.bincount(np.concatenate(seen), minlength=job["rows"])
    if counts.max() > job["epochs"]:
        raise RuntimeError(f"an ECG came {counts.max()} times in {job['epochs']} epochs")
    return {
        "first_s": first_s,
        "rate": timed_rows / timed_s,
        "rows": int(counts.sum()),
        "missing": int((counts < job["epochs"]).sum()),
        "hashes": hashes,
    }


def hash_of(signal: np.ndarray) -> str:
    """Of one ECG as float32 microvolt."""
    return hashlib.sha256(np.ascontiguousarray(signal, dtype=np.float32)).hexdigest()
