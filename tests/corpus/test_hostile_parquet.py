"""A corpus from anybody: it runs no code when it is read, and unpacks to no more than a real one.

Extension types whose metadata or values are pickles:

pyarrow and Ray both register extension types by name, and releases of both have unpickled what a Parquet file holds
for them as soon as its schema was read. Whoever makes a corpus makes its manifest, too, so the hashes help nobody.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecgdist.corpus import Corpus, Manifest
from ecgdist.corpus.footer import shard_facts
from ecgdist.errors import DataError
from tests.corpus.corpora import made_ecg, row, write_corpus

EXTENSIONS = [
    "arrow.py_extension_type",
    "ray.data.arrow_tensor",
    "ray.data.arrow_tensor_v2",
    "ray.data.arrow_variable_shaped_tensor",
    "ray.data.arrow_pickled_object",
]

READ_ALL = """
import json
import sys
import numpy as np
import ray.data
from ray.data._internal.tensor_extensions.arrow import ArrowTensorTypeV2
from ecgdist.corpus import Corpus
from ecgdist.errors import DataError

assert ray.data is not None and ArrowTensorTypeV2 is not None  # their types are registered now
ways = [
    lambda corpus: corpus.index.to_pylist(),
    lambda corpus: corpus.columns("labels").to_pydict(),
    lambda corpus: corpus.read_group(0, ["signal", "record_id", "labels"]).to_pydict(),
    lambda corpus: list(corpus.iter_signals(np.array([0, 1]), 2)),
]

def outcome(way, folder):
    try:
        way(Corpus(folder))
    except DataError as error:
        return f"DataError: {error}"
    return "read"

print(json.dumps([[outcome(way, folder) for way in ways] for folder in sys.argv[1:]]))
"""


class Touch:
    """Unpickling this makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[Path]]:
        return Path.touch, (self.marker,)


def disguised(path: Path, name: str, payload: bytes) -> None:
    """Write a Parquet file again whose labels are of an extension type, in the storage that the type expects."""
    table = pq.ParquetFile(path).read()
    labels = table["labels"].combine_chunks()
    if name == "ray.data.arrow_pickled_object":
        labels = pa.array([payload] * len(labels), pa.large_binary())
    elif name == "ray.data.arrow_variable_shaped_tensor":
        shapes = pa.array([[1]] * len(labels), pa.list_(pa.int64()))
        labels = pa.StructArray.from_arrays([labels, shapes], ["data", "shape"])
    marks = {b"ARROW:extension:name": name.encode(), b"ARROW:extension:metadata": payload}
    place = table.schema.get_field_index("labels")
    table = table.set_column(place, pa.field("labels", labels.type, metadata=marks), labels)
    pq.write_table(table.replace_schema_metadata({b"pickle": payload}), path, store_schema=True)
    assert b"ARROW:schema" in path.read_bytes()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def hostile_corpus(folder: Path, name: str, payload: bytes) -> Path:
    """A corpus whose Parquet files are all disguised and whose manifest has their hashes."""
    write_corpus(folder, [row(made_ecg(seed), f"r{seed}") for seed in range(2)])
    shard = folder / "shards" / "00000.parquet"
    for path in (folder / "index.parquet", shard):
        disguised(path, name, payload)
    restate(folder)
    return folder


def restate(folder: Path) -> None:
    """Give the manifest the hashes of what the files are now."""
    shard = folder / "shards" / "00000.parquet"
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["index_sha256"] = sha256(folder / "index.parquet")
    rows = manifest["shards"][0]["row_groups"]
    manifest["shards"][0] = shard_facts(shard, shard.name, rows).model_dump()
    (folder / "manifest.json").write_bytes(Manifest.model_validate(manifest).identified().to_bytes())


def inflate(path: Path) -> None:
    """Write a Parquet file again with a record id of 100 MB in every row, which is a small file."""
    table = pq.ParquetFile(path).read()
    place = table.schema.get_field_index("record_id")
    bomb = pa.array(["0" * 100_000_000] * table.num_rows)
    pq.write_table(table.set_column(place, "record_id", bomb), path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 200_000


@pytest.mark.parametrize("name", ["index.parquet", "shards/00000.parquet"])
def test_a_compressed_bomb_is_not_unpacked(tmp_path: Path, name: str) -> None:
    write_corpus(tmp_path, [row(made_ecg(seed), f"r{seed}") for seed in range(2)])
    inflate(tmp_path / name)
    restate(tmp_path)
    pa.default_memory_pool().release_unused()
    before = pa.total_allocated_bytes()
    corpus = Corpus(tmp_path)
    read = (
        (lambda: corpus.columns("record_id"))
        if name == "index.parquet"
        else (lambda: corpus.read_group(0, ["signal"]))
    )
    with pytest.raises(DataError, match=r"it would unpack to [0-9,]{11} bytes, more than the"):
        read()
    assert pa.total_allocated_bytes() - before < 50_000_000


def test_no_pickle_in_a_parquet_file_is_run(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    payload = pickle.dumps(Touch(marker))
    pickle.loads(payload)  # noqa: S301 - our own payload: it would run
    assert marker.exists()
    marker.unlink()
    folders = [hostile_corpus(tmp_path / name, name, payload) for name in EXTENSIONS]
    command = [sys.executable, "-c", READ_ALL, *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert not marker.exists()
    harmless, *refused = json.loads(done.stdout)
    assert harmless == ["read"] * 4  # pyarrow does not know this type any more and reads its storage
    for outcomes in refused:  # for these Ray has code of its own
        assert len(outcomes) == 4
        assert all(outcome.startswith("DataError: ") and "damaged" in outcome for outcome in outcomes)


def test_the_corpus_is_readable_before_it_is_disguised(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus", [row(made_ecg(seed), f"r{seed}") for seed in range(2)])
    corpus = Corpus(tmp_path / "corpus")
    assert corpus.index.num_rows == 2
    assert corpus.read_group(0, ["record_id"])["record_id"].to_pylist() == ["r0", "r1"]
    np.testing.assert_array_equal(next(corpus.iter_signals(np.array([1]), 1))[1][0], made_ecg(1))
