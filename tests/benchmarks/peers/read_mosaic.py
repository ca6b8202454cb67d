"""Mosaic Streaming: MDS shards, shuffled by the library."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import harness
import numpy as np
import torch
from torch.utils.data import DataLoader

# Its datasets of images, which nothing here uses, want torchvision, whose wheels fit no CPU build of torch.
sys.modules["streaming.vision"] = ModuleType("streaming.vision")

from streaming import MDSWriter, StreamingDataset  # noqa: E402


def write(signals: np.ndarray, where: str) -> None:
    columns = {"number": "int", "signal": f"ndarray:int16:{','.join(map(str, harness.SHAPE))}"}
    with MDSWriter(out=where, columns=columns) as writer:
        for number, signal in enumerate(signals):
            writer.write({"number": number, "signal": np.array(signal)})


def read(job: dict[str, Any]) -> harness.Batches:
    where = job["where"]
    place = {"remote": where, "local": job["cache"]} if where.startswith("s3://") else {"local": where}
    dataset = StreamingDataset(**place, shuffle=True, batch_size=job["batch"], num_canonical_nodes=1)
    loader = DataLoader(
        dataset, job["batch"], num_workers=job["workers"], prefetch_factor=4, persistent_workers=True
    )
    for _ in range(job["epochs"]):
        for batch in loader:
            yield batch["number"], torch.as_tensor(batch["signal"])


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(np.load(sys.argv[2], mmap_mode="r"), sys.argv[3])
    else:
        harness.main(read)
