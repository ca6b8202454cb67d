"""Packing keeps the first recordings of each reason of refusal, the same whatever the shards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import wfdb

from ecgdist.errors import DataError
from tests.packing.folders import georgia_folder, pack_to

pytestmark = pytest.mark.ray


def write(folder: Path, name: str, signal_mv: np.ndarray) -> None:
    wfdb.wrsamp(
        name, 100, ["mV"] * 2, ["I", "II"], p_signal=signal_mv, fmt=["16"] * 2, write_dir=str(folder),
        adc_gain=[200.0] * 2, baseline=[0] * 2,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two good records, four with a gap, one that is short, one whose signal is missing."""
    folder = georgia_folder(tmp_path / "wfdb", "a", "m", "z")
    (folder / "z.mat").unlink()
    wave = np.sin(np.arange(1000) / 10)[:, None] * np.array([[0.5, 1.0]])
    for number, name in enumerate("cfir"):
        gap = wave.copy()
        gap[10 * number : 10 * number + 5, 1] = np.nan
        write(folder, name, gap)
    write(folder, "d", wave[:200])
    return folder


def test_the_first_of_each_reason_are_kept_whatever_the_shards(
    ray_cluster: None, folder: Path, tmp_path: Path
) -> None:
    source = f"wfdb={folder}"
    corpora = [
        pack_to(tmp_path / f"{size}", source, records_per_shard=size, max_refused_share=0.9).corpus
        for size in (1, 3, 100)
    ]
    for corpus in corpora:
        corpus.verify()
        found = [(example.reason, example.record_id) for example in corpus.refused_examples]
        assert found == [("nan", "c"), ("too_short", "d"), ("nan", "f"), ("nan", "i")]
        assert corpus.manifest.refused == {"missing_signal": 1, "nan": 4, "too_short": 1}
        gap = corpus.refused_examples[2]
        assert gap.leads == ("I", "II")
        assert np.flatnonzero(np.isnan(gap.signal_mv[1])).tolist() == [10, 11, 12, 13, 14]
    files = [(tmp_path / f"{size}/examples.parquet").read_bytes() for size in (1, 3, 100)]
    assert files[0] == files[1] == files[2]
    names = pq.read_schema(tmp_path / "1/examples.parquet").names
    assert names == ["source", "record_id", "reason", "lead_mask", "rate_hz", "signal"]


def test_a_rule_admits_what_the_default_refuses(ray_cluster: None, folder: Path, tmp_path: Path) -> None:
    rules = {"rules": {"max_nan_share": 0.01}}
    corpus = pack_to(tmp_path / "corpus", f"wfdb={folder}", pack=rules, max_refused_share=0.3).corpus
    assert corpus.manifest.refused == {"missing_signal": 1, "too_short": 1}
    filled = {
        row["record_id"]: row["nan_share"]
        for row in corpus.index.to_pylist()
        if "nan_filled" in row["quality"]
    }
    assert list(filled) == list("cfir")
    assert filled["c"] == pytest.approx(5 / 2000)


def test_without_a_signal_there_is_no_example(ray_cluster: None, tmp_path: Path) -> None:
    folder = georgia_folder(tmp_path / "wfdb", "a", "b")
    (folder / "b.mat").unlink()
    corpus = pack_to(tmp_path / "corpus", f"wfdb={folder}", max_refused_share=0.5).corpus
    assert corpus.refused_examples == []
    assert not (tmp_path / "corpus/examples.parquet").exists()


def test_a_changed_example_is_noticed(ray_cluster: None, folder: Path, tmp_path: Path) -> None:
    corpus = pack_to(tmp_path / "corpus", f"wfdb={folder}", max_refused_share=0.9).corpus
    path = tmp_path / "corpus/examples.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(DataError, match=r"examples\.parquet differs"):
        corpus.verify()
