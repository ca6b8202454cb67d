"""Folders of a generic kind: a name says whose records they are, and so which ids belong together."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from ecgdist.config import load
from ecgdist.corpus import Corpus
from ecgdist.corpus.patients import KEY_VARIABLE, PatientHasher
from ecgdist.downstream.evaluate import index_table
from ecgdist.errors import ConfigError
from ecgdist.packing import PackConfig, pack
from ecgdist.packing.privacy import keyed_record_id
from tests.packing.folders import georgia_folder, pack_to, ptbxl_folder
from tests.sources.made import made_ecg_uv, own_row, write_csv, write_hdf5

pytestmark = pytest.mark.ray


def own_folder(path: Path, kind: str, seed: int) -> Path:
    """Two records, a and b, of patients 1 and 2."""
    path.mkdir()
    rows = []
    for patient, record in enumerate("ab", start=1):
        signal_mv = made_ecg_uv(seed + patient, 2500) / 1000
        if kind == "npy":
            np.save(path / f"{record}.npy", signal_mv)
        else:
            write_hdf5(path / f"{record}.hdf5", ecg=signal_mv)
        rows.append(own_row(record, f"{record}.{kind}", patient_id=patient))
    write_csv(path / "records.csv", rows)
    return path


def patients(corpus: Corpus) -> dict[str, list[str]]:
    """The patient keys of each source, in the order of records."""
    keys: dict[str, list[str]] = {}
    for row in corpus.index.to_pylist():
        keys.setdefault(row["source"], []).append(row["patient_key"])
    return keys


def test_patient_1_of_one_name_is_not_patient_1_of_another(ray_cluster: None, tmp_path: Path) -> None:
    mayo, charite = (
        own_folder(tmp_path / name, "npy", seed) for seed, name in ((10, "mayo"), (20, "charite"))
    )
    sources = (f"npy:mayo={mayo}", f"npy:charite={charite}")
    corpus = pack_to(tmp_path / "corpus", *sources).corpus
    keys = patients(corpus)
    assert set(keys) == {"npy:mayo", "npy:charite"}
    assert len({*keys["npy:mayo"], *keys["npy:charite"]}) == 4
    facts = corpus.manifest.sources
    assert {name: (each.kind, each.dataset) for name, each in facts.items()} == {
        "npy:mayo": ("npy", "mayo"),
        "npy:charite": ("npy", "charite"),
    }
    alone = pack_to(tmp_path / "alone", f"npy:mayo={mayo}").corpus
    assert patients(alone) == {"npy:mayo": keys["npy:mayo"]}, "a name means the same in every corpus"
    unnamed = pack_to(tmp_path / "unnamed", f"npy={mayo}").corpus
    assert not set(patients(unnamed)["npy"]) & set(keys["npy:mayo"])


def test_one_name_in_two_layouts_is_one_data_set(ray_cluster: None, tmp_path: Path) -> None:
    npy, hdf5 = (own_folder(tmp_path / kind, kind, seed) for seed, kind in ((10, "npy"), (20, "hdf5")))
    corpus = pack_to(tmp_path / "corpus", f"npy:mayo={npy}", f"hdf5:mayo={hdf5}").corpus
    keys = patients(corpus)
    assert keys["npy:mayo"] == keys["hdf5:mayo"]
    assert len(set(keys["npy:mayo"])) == 2
    table = index_table(corpus)
    assert set(table["source"]) == {"mayo"}
    assert table["record_id"].is_unique


@pytest.mark.parametrize("kind", ["wfdb", "npy", "hdf5"])
@pytest.mark.parametrize("name", ["", ":mayo"])
def test_two_folders_without_names_of_their_own_are_refused(tmp_path: Path, kind: str, name: str) -> None:
    sources = [f"{kind}{name}={tmp_path / folder}" for folder in ("one", "two")]
    said = (
        f"two folders are called {kind}{name}, so patient 1 of one would be patient 1 of the other, too; "
        f"give each a name of its own: {kind}:NAME=URI, for example {kind}:clinic-2={tmp_path}/two"
    )
    with pytest.raises(ConfigError, match=re.escape(said)):
        pack_to(tmp_path / "corpus", *sources)
    assert not (tmp_path / "corpus").exists()


def test_a_folder_is_named_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="named twice; every record would be in the corpus twice"):
        pack_to(tmp_path / "corpus", f"wfdb:one={tmp_path}/a", f"wfdb:two={tmp_path}/b/../a")


def test_two_folders_of_a_published_data_set_share_it(ray_cluster: None, tmp_path: Path) -> None:
    one, two = (ptbxl_folder(tmp_path / name, 2) for name in ("one", "two"))
    corpus = pack_to(tmp_path / "corpus", f"ptbxl={one}", f"ptbxl={two}").corpus
    assert patients(corpus)["ptbxl"] == patients(corpus)["ptbxl-2"]
    assert corpus.manifest.sources["ptbxl-2"].dataset == "ptbxl"


def test_a_named_source_in_yaml_and_in_patterns(ray_cluster: None, tmp_path: Path) -> None:
    one, two = (georgia_folder(tmp_path / name, "a", "b") for name in ("one", "two"))
    sources = [f"wfdb:one={one}", f"wfdb:two-2={two}"]
    file = tmp_path / "pack.yaml"
    values = {"sources": sources, "out": str(tmp_path / "corpus"), "exclude": ["wfdb:two-2/b"]}
    file.write_text(yaml.safe_dump(values))
    corpus = pack(load(PackConfig, file)).corpus
    rows = corpus.index.to_pylist()
    assert [(row["source"], row["record_id"]) for row in rows] == [
        ("wfdb:one", "a"),
        ("wfdb:one", "b"),
        ("wfdb:two-2", "a"),
    ]
    assert len({row["patient_key"] for row in rows}) == 3


def test_keyed_ids_of_two_names_differ(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (georgia_folder(tmp_path / name, "a") for name in ("one", "two"))
    monkeypatch.setenv(KEY_VARIABLE, key := "a key that only the test knows")
    corpus = pack_to(tmp_path / "corpus", f"wfdb:one={one}", f"wfdb:two={two}").corpus
    hasher = PatientHasher(key.encode())
    assert corpus.index["record_id"].to_pylist() == [
        keyed_record_id(hasher, name, "a") for name in ("one", "two")
    ]
