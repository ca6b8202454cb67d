"""WebDataset: one tar per 512 ECGs, shuffled by shard and in a buffer."""

from __future__ import annotations

import glob
import io
import os
import sys
import tarfile
from typing import Any
from urllib.parse import urlparse

import boto3
import harness
import numpy as np
import torch
import webdataset
from webdataset.gopen import gopen_schemes

ROWS_PER_SHARD = 512
BUFFER = 1024


def write(signals: np.ndarray, where: str) -> None:
    for start in range(0, len(signals), ROWS_PER_SHARD):
        with tarfile.open(f"{where}/{start // ROWS_PER_SHARD:05d}.tar", "w") as tar:
            for number in range(start, min(start + ROWS_PER_SHARD, len(signals))):
                content = signals[number].tobytes()
                member = tarfile.TarInfo(f"{number:06d}.i16")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def open_s3(url: str, mode: str, bufsize: int = 8192, **_: Any) -> Any:
    """The body of an object as a stream; WebDataset itself would call a command for it."""
    place = urlparse(url)
    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    return client.get_object(Bucket=place.netloc, Key=place.path.lstrip("/"))["Body"]


def shards(where: str) -> list[str]:
    if not where.startswith("s3://"):
        return sorted(glob.glob(f"{where}/*.tar"))
    place = urlparse(where)
    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    page = client.list_objects_v2(Bucket=place.netloc, Prefix=place.path.strip("/") + "/")
    return [f"s3://{place.netloc}/{item['Key']}" for item in page["Contents"]]


def number_of(key: str) -> int:
    return int(key.rpartition("/")[2])


def signal_of(content: bytes) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(content, np.int16).reshape(harness.SHAPE).copy())


def read(job: dict[str, Any]) -> harness.Batches:
    gopen_schemes["s3"] = open_s3
    urls = shards(job["where"])
    dataset = (
        webdataset.WebDataset(
            urls, shardshuffle=len(urls), workersplitter=webdataset.split_by_worker, empty_check=False
        )
        .shuffle(BUFFER)
        .to_tuple("__key__", "i16")
        .map_tuple(number_of, signal_of)
        .batched(job["batch"])
    )
    loader = webdataset.WebLoader(
        dataset, batch_size=None, num_workers=job["workers"], prefetch_factor=4, persistent_workers=True
    )
    for _ in range(job["epochs"]):
        yield from loader


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(np.load(sys.argv[2], mmap_mode="r"), sys.argv[3])
    else:
        harness.main(read)
