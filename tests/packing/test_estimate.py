"""What `plan pack` reckons is what packing then does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ecgdist.cli import app
from ecgdist.config import build
from ecgdist.corpus import Corpus
from ecgdist.corpus.patients import KEY_VARIABLE
from ecgdist.errors import ConfigError, DataError, StorageError
from ecgdist.packing import PackConfig
from ecgdist.packing.estimate import PackEstimate, estimate_packing, sentences
from ecgdist.sample import sample_folder
from ecgdist.storage import Location
from tests.packing.folders import DATA, RATE_100, edit, files_of, georgia_folder, ptbxl_folder


def estimate(*sources: str, sample: int = 64, **settings: Any) -> PackEstimate:
    values = {"sources": sources, "out": "nowhere", "pack": RATE_100, **settings}
    return estimate_packing(build(PackConfig, values), workers=4, sample=sample)


def test_storage_that_fails_is_told_without_a_name_where_the_packing_is_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = georgia_folder(tmp_path / "wfdb", "Mustermann")

    def denied(place: Location) -> bool:
        raise StorageError(f"{place}: access denied")

    monkeypatch.setattr(Location, "is_file", denied)
    with pytest.raises(StorageError, match="Mustermann"):
        estimate(f"wfdb={folder}")
    monkeypatch.setenv(KEY_VARIABLE, "a key that only the test knows")
    with pytest.raises(StorageError, match=r"reading record wfdb/[0-9a-f]{32}: storage fails") as caught:
        estimate(f"wfdb={folder}")
    assert "Mustermann" not in str(caught.value)


@pytest.mark.ray
@pytest.mark.parametrize("seed", ["0", "1"])
def test_the_bytes_of_the_shipped_ecgs_to_a_tenth(sample_corpus: Corpus, seed: str) -> None:
    command = [
        "plan",
        "pack",
        f"ptbxl={sample_folder()}",
        "--set",
        "pack.rate_hz=100",
        "--json",
        "--seed",
        seed,
    ]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    files = ["index.parquet", *(f"shards/{shard.name}" for shard in sample_corpus.manifest.shards)]
    packed_bytes = sum(len((sample_corpus.location / name).read_bytes()) for name in files)
    assert found["corpus_bytes"] == pytest.approx(packed_bytes, rel=0.1)
    raw = [path for path in (sample_folder() / "records100").rglob("*") if path.is_file()]
    assert found["raw_bytes"] == pytest.approx(sum(path.stat().st_size for path in raw), rel=0.1)
    assert (found["records"], found["rows"], found["refused"]) == (353, 353, 0)
    assert found["hours_by_workers"]["8"] < found["hours_by_workers"]["1"]


def test_a_sample_of_all_is_no_estimate(tmp_path: Path) -> None:
    """Refusals that the listing shows and those that reading shows, longer records, and what is left out."""
    ptbxl = ptbxl_folder(tmp_path / "ptb-xl", 12)
    headers = sorted(ptbxl.rglob("*.hea"))
    headers[4].unlink()
    edit(headers[7], "/mV", "/mmHg")
    before = files_of(tmp_path)
    found = estimate(f"ptbxl={ptbxl}", f"wfdb={DATA / 'wfdb/georgia'}", exclude=["ptbxl/1"])
    source = found.sources["ptbxl"]
    assert (source.listed, source.excluded, source.sampled) == (12, 1, 10)
    assert source.refused_by_reason == {"missing_header": 1, "unknown_unit": 1}
    assert (source.refused, source.rows) == (2, 9)
    assert source.refused_low < source.refused < source.refused_high
    read = [header for header in headers[1:] if header != headers[4]]
    assert source.raw_bytes == sum(h.stat().st_size + h.with_suffix(".dat").stat().st_size for h in read)
    assert (found.records, found.rows) == (12, 10)
    assert found.ecg_per_s_per_core > 0
    assert found.hours_by_workers[1] > found.hours == found.hours_by_workers[4]
    assert files_of(tmp_path) == before
    assert any("packing stops beyond max_refused_share = 0.005" in sentence for sentence in sentences(found))


def test_the_interval_covers_what_the_sample_missed(tmp_path: Path) -> None:
    """20 of 100 records are broken; a sample of 30 never sees exactly that."""
    ptbxl = ptbxl_folder(tmp_path / "ptb-xl", 100)
    for header in sorted(ptbxl.rglob("*.hea"))[::5]:
        edit(header, "/mV", "/mmHg")
    found = estimate(f"ptbxl={ptbxl}", sample=30)
    assert found.sources["ptbxl"].sampled == 30
    assert found.refused_low < 20 < found.refused_high


def test_what_packing_would_refuse_is_refused(tmp_path: Path) -> None:
    georgia_folder(tmp_path / "wfdb", "a")
    with pytest.raises(ConfigError, match="no listed record matches 'b'"):
        estimate(f"wfdb={tmp_path / 'wfdb'}", exclude=["b"])
    with pytest.raises(DataError, match="no ECG to pack"):
        estimate(f"wfdb={tmp_path / 'wfdb'}", exclude=["wfdb/a"])
    done = CliRunner().invoke(app, ["plan", "pack", f"wfdb={tmp_path / 'nothing'}"])
    assert done.exit_code == 1
    assert done.stderr.startswith("error: ")
