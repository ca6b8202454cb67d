"""Packing: every listed record is packed or refused by name, and the same records give the same bytes."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ecgdist.config import build
from ecgdist.corpus import Corpus
from ecgdist.errors import ConfigError, DataError
from ecgdist.preprocessing import Preprocessing
from ecgdist.record import STANDARD_LEADS, bits_to_mask, mask_to_bits
from ecgdist.sources import open_source
from ecgdist.storage import Location
from tests.conftest import S3Server
from tests.packing.folders import DATA, edit, files_of, georgia_folder, pack_to, ptbxl_folder

pytestmark = pytest.mark.ray


@pytest.fixture
def two_sources(ray_cluster: None, tmp_path: Path) -> tuple[str, str]:
    """23 PTB-XL records, of which 3 are refused, and the WFDB test files, of which 1 is."""
    folder = ptbxl_folder(tmp_path / "ptb-xl", 23)
    headers = sorted(folder.rglob("*.hea"))
    headers[4].unlink()  # refused when it is listed
    headers[9].with_suffix(".dat").unlink()
    edit(headers[15], "/mV", "/mmHg")
    return f"ptbxl={folder}", f"wfdb={DATA / 'wfdb'}"


def test_listed_is_packed_plus_refused_and_each_refusal_is_named(
    two_sources: tuple[str, str], tmp_path: Path
) -> None:
    corpus = pack_to(tmp_path / "corpus", *two_sources, max_refused_share=0.2).corpus
    corpus.verify()
    sources = corpus.manifest.sources
    assert {name: (s.listed, s.packed, s.refused) for name, s in sources.items()} == {
        "ptbxl": (23, 20, 3),
        "wfdb": (6, 5, 1),
    }
    assert corpus.manifest.refused == {"missing_header": 1, "missing_signal": 2, "unknown_unit": 1}
    refused = corpus.refused.to_pylist()
    assert Counter(row["reason"] for row in refused) == corpus.manifest.refused
    listed = {
        (kind, listing.record_id)
        for kind, uri in (text.split("=") for text in two_sources)
        for listing in open_source(kind, uri).list_records()
    }
    names = zip(corpus.index["source"].to_pylist(), corpus.index["record_id"].to_pylist(), strict=True)
    packed = set(names)
    turned_away = {(row["source"], row["record_id"]) for row in refused}
    assert packed | turned_away == listed
    assert not packed & turned_away
    assert sources["ptbxl"].licence == "CC BY 4.0"
    assert "10.1038/s41597-020-0495-6" in sources["ptbxl"].citation


def test_a_corpus_holds_what_packing_a_recording_gives(two_sources: tuple[str, str], tmp_path: Path) -> None:
    corpus = pack_to(tmp_path / "corpus", *two_sources, max_refused_share=0.2).corpus
    preprocessing = build(Preprocessing, {"pack": corpus.manifest.pack})
    expected = {}
    for kind, uri in (text.split("=") for text in two_sources):
        source = open_source(kind, uri)
        packed = set(corpus.index["record_id"].to_pylist())
        for listing in source.list_records():
            if listing.record_id in packed:
                recording = source.read_record(listing)
                for segment in preprocessing.pack_recording(recording):
                    expected[kind, listing.record_id, segment.segment] = (recording, segment)
    facts = corpus.index.to_pylist()
    assert len(facts) == len(expected) == corpus.manifest.rows
    for (row,), signals in corpus.iter_signals(np.arange(len(facts)), batch_rows=1):
        fact = facts[row]
        recording, segment = expected[fact["source"], fact["record_id"], fact["segment"]]
        np.testing.assert_array_equal(signals[0], segment.signal_uv)
        assert fact["lead_mask"] == mask_to_bits(segment.lead_mask)
        assert fact["valid_samples"] == segment.valid_samples
        assert fact["quality"] == list(segment.quality)
        assert (fact["age"], fact["sex"], fact["split"]) == (recording.age, recording.sex, recording.split)
        assert tuple(fact["labels"]) == recording.labels


def test_long_short_and_few_lead_records(ray_cluster: None, tmp_path: Path) -> None:
    """MIT-BIH record 100: two leads for 10.003 s, here in segments of 4 s."""
    pack = {"rate_hz": 100.0, "duration_s": 4.0, "min_duration_s": 1.0}
    corpus = pack_to(tmp_path / "corpus", f"wfdb={DATA / 'wfdb/mitdb'}", pack=pack).corpus
    facts = corpus.index.to_pylist()
    assert [(fact["record_id"], fact["segment"], fact["valid_samples"]) for fact in facts] == [
        ("100", 0, 400), ("100", 1, 400), ("100", 2, 200),
    ]  # fmt: skip
    assert (corpus.manifest.sources["wfdb"].packed, corpus.manifest.rows) == (1, 3)
    present = {
        lead for lead, on in zip(STANDARD_LEADS, bits_to_mask(facts[0]["lead_mask"]), strict=True) if on
    }
    assert present == {"II", "V5"}
    ((_, signals),) = corpus.iter_signals(np.arange(3), batch_rows=3)
    absent = [index for index, lead in enumerate(STANDARD_LEADS) if lead not in present]
    assert not signals[:, absent].any()
    assert not signals[2, :, 200:].any()
    assert signals[2, :, :200].any()


def test_the_same_records_give_the_same_bytes_anywhere(
    two_sources: tuple[str, str], tmp_path: Path, s3: S3Server
) -> None:
    places = [tmp_path / "one", tmp_path / "other/folder", Location.of(f"s3://ecg/{tmp_path.name}/same")]
    packed = [pack_to(place, *two_sources, max_refused_share=0.2).corpus for place in places]
    first, *others = [files_of(place) for place in places]
    assert len(first) == 4 + 3
    assert others == [first, first]
    assert len({corpus.corpus_id for corpus in packed}) == 1
    assert Corpus(places[2]).index.equals(packed[0].index)


def test_the_same_command_again_builds_nothing(two_sources: tuple[str, str], tmp_path: Path) -> None:
    first = pack_to(tmp_path / "corpus", *two_sources, max_refused_share=0.2)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "corpus").rglob("*")}
    again = pack_to(tmp_path / "corpus", *two_sources, max_refused_share=0.2)
    assert (first.built, again.built) == (3, 0)
    assert again.corpus.corpus_id == first.corpus.corpus_id
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "corpus").rglob("*")} == before


def test_more_refusals_may_be_allowed_later(ray_cluster: None, tmp_path: Path) -> None:
    """The allowed share decides whether packing stops, not what is packed."""
    folder = georgia_folder(tmp_path / "wfdb", "a", "b")
    (folder / "b.mat").unlink()
    with pytest.raises(DataError):
        pack_to(tmp_path / "corpus", f"wfdb={folder}")
    assert pack_to(tmp_path / "corpus", f"wfdb={folder}", max_refused_share=0.5).corpus.manifest.rows == 1


def test_too_many_refusals_stop_packing_with_the_list(ray_cluster: None, tmp_path: Path) -> None:
    folder = ptbxl_folder(tmp_path / "ptb-xl", 20)
    headers = sorted(folder.rglob("*.hea"))
    for header in headers[:6]:
        edit(header, "/mV", "/mmHg")
    headers[7].with_suffix(".dat").write_bytes(b"short")
    with pytest.raises(DataError) as caught:
        pack_to(tmp_path / "corpus", f"ptbxl={folder}", records_per_shard=50, max_refused_share=0.3)
    message = str(caught.value)
    assert "7 of 20 records are refused, more than max_refused_share = 0.3 allows" in message
    assert "unknown_unit 6, truncated_signal 1" in message
    first = [listing.record_id for listing in open_source("ptbxl", str(folder)).list_records()][:5]
    assert re.findall(r"ptbxl/(\S+): unknown_unit: unit 'mmHg' is not a voltage", message) == first
    assert "set max_refused_share higher" in message
    (listed,) = re.findall(r"All of them are in (\S+)\. ", message)
    with Path(listed).open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert Counter(row["reason"] for row in table) == {"unknown_unit": 6, "truncated_signal": 1}
    assert [row["record_id"] for row in table if row["reason"] == "unknown_unit"][:5] == first
    assert not (tmp_path / "corpus" / "manifest.json").exists()
    with pytest.raises(DataError, match=r"is not a corpus: it has no manifest\.json"):
        Corpus(tmp_path / "corpus")


def test_exactly_the_allowed_share_is_allowed(ray_cluster: None, tmp_path: Path) -> None:
    """29 of 100 is 0.29, though 0.29 * 100 is less than 29 in floating point."""
    folder = ptbxl_folder(tmp_path / "ptb-xl", 100)
    for header in sorted(folder.rglob("*.hea"))[:29]:
        header.with_suffix(".dat").unlink()
    result = pack_to(tmp_path / "corpus", f"ptbxl={folder}", records_per_shard=50, max_refused_share=0.29)
    assert result.corpus.manifest.refused == {"missing_signal": 29}


def test_a_shard_without_a_packed_record_has_no_file(ray_cluster: None, tmp_path: Path) -> None:
    folder = georgia_folder(tmp_path / "wfdb", "a", "b", "c", "d", "e", "f")
    for name in "cd":
        (folder / f"{name}.mat").unlink()
    corpus = pack_to(tmp_path / "corpus", f"wfdb={folder}", records_per_shard=2, max_refused_share=0.5).corpus
    corpus.verify()
    assert [shard.name for shard in corpus.manifest.shards] == ["00000.parquet", "00002.parquet"]
    assert corpus.index["record_id"].to_pylist() == ["a", "b", "e", "f"]
    assert corpus.read_group(1, ["record_id"])["record_id"].to_pylist() == ["e", "f"]


def test_a_corpus_of_refusals_is_none(ray_cluster: None, tmp_path: Path) -> None:
    folder = georgia_folder(tmp_path / "wfdb", "a")
    (folder / "a.mat").unlink()
    with pytest.raises(DataError, match="every listed record was refused"):
        pack_to(tmp_path / "corpus", f"wfdb={folder}", max_refused_share=1.0)
    assert not (tmp_path / "corpus" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([], "name at least one source as KIND=URI"),
        (["/data/ptb-xl"], "'/data/ptb-xl' is not of the form KIND=URI"),
        (["ptbxl="], "is not of the form KIND=URI"),
        (["holter=/data"], "unknown source kind 'holter'; use one of ptbxl, ptbxl100"),
    ],
)
def test_sources_are_written_as_kind_and_uri(tmp_path: Path, sources: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        pack_to(tmp_path / "corpus", *sources)
    assert not (tmp_path / "corpus").exists()


def test_the_manifest_states_how_it_was_packed(sample_corpus: Corpus) -> None:
    content = json.loads((sample_corpus.location / "manifest.json").read_bytes())
    assert content["pack"]["rate_hz"] == 100.0
    assert content["leads"] == list(STANDARD_LEADS)
    assert content["unit"] == "uV"
    assert sum(shard["rows"] for shard in content["shards"]) == content["rows"] == 353
    assert all(sum(shard["row_groups"]) == shard["rows"] for shard in content["shards"])
    assert not any(name.startswith("parts/") for name in sample_corpus.location.list_files())
