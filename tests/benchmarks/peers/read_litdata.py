"""LitData: optimized chunks, shuffled by the library."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import Any

import harness
import numpy as np
import torch
from litdata import StreamingDataLoader, StreamingDataset, optimize
from litdata.streaming import downloader

# Its fastest reader takes a server without TLS only if it is told to, and there is no public way to say so.
downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = "true"


def sample(source: str, number: int) -> dict[str, Any]:
    return {"number": number, "signal": torch.from_numpy(np.array(np.load(source, mmap_mode="r")[number]))}


def write(source: str, where: str) -> None:
    rows = len(np.load(source, mmap_mode="r"))
    optimize(partial(sample, source), list(range(rows)), where, chunk_bytes="64MB", num_workers=1)


def read(job: dict[str, Any]) -> harness.Batches:
    where, options = job["where"], {}
    if where.startswith("s3://"):
        options = {
            "cache_dir": job["cache"],
            "storage_options": {
                "endpoint_url": os.environ["AWS_ENDPOINT_URL"],
                "aws_access_key_id": os.environ["AWS_ACCESS_KEY_ID"],
                "aws_secret_access_key": os.environ["AWS_SECRET_ACCESS_KEY"],
                "region_name": os.environ["AWS_DEFAULT_REGION"],
            },
        }
    dataset = StreamingDataset(where, shuffle=True, drop_last=False, **options)
    loader = StreamingDataLoader(
        dataset,
        batch_size=job["batch"],
        num_workers=job["workers"],
        prefetch_factor=4,
        persistent_workers=True,
    )
    for _ in range(job["epochs"]):
        for batch in loader:
            yield batch["number"], batch["signal"]


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(sys.argv[2], sys.argv[3])
    else:
        harness.main(read)
