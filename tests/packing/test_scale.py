"""Memory of a packing does not grow with its records; `python -m tests.packing.scale` says how it is at 200,000."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecgdist.corpus import Corpus
from ecgdist.sample import sample_folder
from tests.packing.scale import (
    DRIVER_MB,
    WORKER_MB,
    largest,
    make_folder,
    pack_watched,
    real_recordings,
)


@pytest.mark.long
@pytest.mark.ray
def test_memory_stays_flat(tmp_path: Path) -> None:
    make_folder(tmp_path / "source", real_recordings([f"ptbxl={sample_folder()}"]), 20_000, seed=1)
    # Small shards, so that there are a hundred tasks.
    _, memory = pack_watched(
        tmp_path / "source",
        tmp_path / "corpus",
        "--set",
        "records_per_shard=200",
        "--set",
        "max_refused_share=0.01",
    )
    facts = Corpus(tmp_path / "corpus").manifest.sources["wfdb"]
    assert facts.listed == 20_000 == facts.packed + facts.refused
    for values, bound_mb in ((memory.driver_mb, DRIVER_MB), (memory.largest_worker_mb, WORKER_MB)):
        assert max(values) < bound_mb
        assert largest(values, 3, 4) < largest(values, 1, 4) + 100
