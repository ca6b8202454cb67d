"""The usual DataLoader over WFDB files: one `rdrecord` per ECG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import harness
import numpy as np
import torch
import wfdb
from torch.utils.data import DataLoader, Dataset


class Records(Dataset[tuple[int, torch.Tensor]]):
    def __init__(self, where: str) -> None:
        self.paths = sorted(str(path.with_suffix("")) for path in Path(where).glob("*.hea"))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> tuple[int, torch.Tensor]:
        record = wfdb.rdrecord(self.paths[number])
        return number, torch.from_numpy(np.ascontiguousarray(record.p_signal.T, dtype=np.float32))


def read(job: dict[str, Any]) -> harness.Batches:
    records = Records(job["where"])
    if job.get("only"):
        records.paths = records.paths[: job["only"]]
    loader = DataLoader(
        records, job["batch"], shuffle=True, num_workers=job["workers"], persistent_workers=True
    )
    for _ in range(job["epochs"]):
        yield from loader


if __name__ == "__main__":
    harness.main(read)
