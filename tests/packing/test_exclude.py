"""Records may be left out knowingly; they are counted, and a pattern that matches nothing is an error."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from ecgdist.errors import ConfigError, DataError
from ecgdist.packing.listings import Chunk, Exclusion, listing_line
from ecgdist.sources import Listing, open_source
from ecgdist.sources.own_table import OwnListing
from tests.packing.folders import files_of, georgia_folder, pack_to, ptbxl_folder


@pytest.mark.ray
def test_listed_is_packed_plus_refused_plus_excluded(ray_cluster: None, tmp_path: Path) -> None:
    ptbxl = ptbxl_folder(tmp_path / "ptb-xl", 8)
    wfdb = tmp_path / "wfdb"
    georgia_folder(wfdb / "a", "1", "2")
    georgia_folder(wfdb / "b", "1", "2", "3")
    for lost in ("a/1.mat", "b/1.mat"):
        (wfdb / lost).unlink()
    sources = (f"ptbxl={ptbxl}", f"wfdb={wfdb}")
    corpus = pack_to(
        tmp_path / "corpus", *sources, exclude=("wfdb/a/*", "ptbxl/[12]"), max_refused_share=0.5
    ).corpus
    facts = corpus.manifest.sources
    counts = {name: (s.listed, s.packed, s.refused, s.excluded) for name, s in facts.items()}
    assert counts == {"ptbxl": (8, 6, 0, 2), "wfdb": (5, 2, 1, 2)}
    assert all(s.listed == s.packed + s.refused + s.excluded for s in facts.values())
    ids = [listing.record_id for listing in open_source("ptbxl", str(ptbxl)).list_records()]
    assert corpus.index["record_id"].to_pylist() == [*(i for i in ids if i not in "12"), "b/2", "b/3"]
    assert [row["record_id"] for row in corpus.refused.to_pylist()] == ["b/1"]
    with pytest.raises(ConfigError, match="holds a packing of other records"):
        pack_to(tmp_path / "corpus", *sources, max_refused_share=0.5)
    without = pack_to(tmp_path / "b", f"wfdb={wfdb / 'b'}", max_refused_share=0.5).corpus
    rows = corpus.index["source"].to_pylist().index("wfdb")
    assert without.index["fingerprint"].to_pylist() == corpus.index["fingerprint"].to_pylist()[rows:]


@pytest.mark.ray
def test_a_whole_source_may_be_left_out(ray_cluster: None, tmp_path: Path) -> None:
    folders = [georgia_folder(tmp_path / name, "a", "b") for name in ("one", "two")]
    sources = [f"wfdb:{folder.name}={folder}" for folder in folders]
    corpus = pack_to(tmp_path / "corpus", *sources, exclude=["wfdb:two/*"]).corpus
    assert corpus.manifest.sources["wfdb:two"].excluded == 2
    assert corpus.index["source"].to_pylist() == ["wfdb:one", "wfdb:one"]
    again = pack_to(tmp_path / "again", *sources, exclude=["wfdb:two/[ab]"]).corpus
    assert files_of(again.location) == files_of(corpus.location)
    with pytest.raises(DataError, match="exclude leaves nothing of"):
        pack_to(tmp_path / "nothing", *sources, exclude=["wfdb*"])


def test_a_misspelt_pattern_is_an_error(tmp_path: Path) -> None:
    source = f"ptbxl={ptbxl_folder(tmp_path / 'ptb-xl', 3)}"
    with pytest.raises(
        ConfigError, match=r"no listed record matches 'ptb-xl/\*', '2'; a pattern is compared"
    ):
        pack_to(tmp_path / "corpus", source, exclude=["ptb-xl/*", "ptbxl/1", "2"])
    assert not (tmp_path / "corpus").exists()


def test_every_pattern_that_matches_counts_as_used() -> None:
    exclusion = Exclusion(["a/*", "a/1", "b/?"])
    assert "a/1" in exclusion
    assert "A/1" not in exclusion
    assert "b/12" not in exclusion
    assert "b/2" in exclusion
    assert "a/deep/down" in exclusion
    exclusion.refuse_unused()


def test_two_records_of_one_name_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = f"wfdb={georgia_folder(tmp_path / 'wfdb', 'a', 'b')}"
    monkeypatch.setattr(
        "ecgdist.sources.wfdb_folder.WfdbFolder.list_records",
        lambda _: [Listing("a", "a"), Listing("a", "b")],
    )
    with pytest.raises(DataError, match="source wfdb lists two records of one name"):
        pack_to(tmp_path / "corpus", source)


def test_a_chunk_gives_back_its_listings() -> None:
    listings = [
        Listing("1", "a/1", "p1", 64.5, "male", ("scp:NORM", "scp:SR"), "fold3", None, 17),
        Listing("n\u00e4me \udcfc\n2", "a/\udcfc", refusal=("nan", "a 'detail'\u2028\nof two lines")),
        Listing("3", "3", age=math.inf),
        OwnListing("4", "4.npy", row=2, rate_hz=500.0, unit="mV", leads=("I", "II"), array="a/b"),
    ]
    chunk = Chunk.of([listing_line("wfdb", listing) for listing in listings])
    assert chunk.listings() == [("wfdb", listing) for listing in listings]
