"""A folder belongs to one packing: of the same records, settings and key, from the same folders, by one version."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ecgdist.errors import ConfigError
from ecgdist.packing import claim
from ecgdist.sample import sample_folder
from tests.packing.folders import files_of, georgia_folder, pack_to, ptbxl_folder
from tests.packing.test_resume import stopped_packing

pytestmark = pytest.mark.ray


@pytest.mark.parametrize("change", ["settings", "shards", "records", "key"])
def test_a_folder_belongs_to_one_packing(
    ray_cluster: None, tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ptbxl_folder(tmp_path / "ptb-xl", 3)
    pack_to(tmp_path / "corpus", f"ptbxl={folder}")
    before = files_of(tmp_path / "corpus")
    settings: dict[str, object] = {}
    if change == "settings":
        settings["pack"] = {"rate_hz": 50.0}
    elif change == "shards":
        settings["records_per_shard"] = 2
    elif change == "records":
        ptbxl_folder(folder, 4)
    else:
        monkeypatch.setenv("ECGDIST_PATIENT_KEY", "a key of sixteen characters")
    with pytest.raises(ConfigError, match="corpus holds a packing of other records, settings or patient key"):
        pack_to(tmp_path / "corpus", f"ptbxl={folder}", **settings)
    assert files_of(tmp_path / "corpus") == before


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "thesis.tex").write_text("my only copy")
    with pytest.raises(ConfigError, match="exists and is not empty; choose another --out"):
        pack_to(tmp_path / "corpus", f"ptbxl={sample_folder()}")
    with pytest.raises(ConfigError, match="exists and is not empty"):
        pack_to(tmp_path / "corpus" / "thesis.tex", f"ptbxl={sample_folder()}")
    assert [path.name for path in (tmp_path / "corpus").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    "content", [b"\xff not ours", b"", b"{}", b'{"plan": "0123456789abcdef0123456789abcdef"}']
)
def test_a_damaged_claim_is_left_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/packing.json").write_bytes(content)
    with pytest.raises(
        ConfigError, match=r"corpus/packing\.json was damaged, or written by another version of ecgdist than"
    ):
        pack_to(tmp_path / "corpus", f"ptbxl={sample_folder()}")
    assert files_of(tmp_path / "corpus").keys() == {"packing.json"}


def test_another_version_does_not_go_on(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "corpus"
    source = stopped_packing(out, tmp_path / "wfdb")
    before = files_of(out)
    monkeypatch.setattr(claim, "version", lambda _: "99.0")
    with pytest.raises(
        ConfigError, match=r"unfinished packing of ecgdist \S+, and this is 99\.0: finish it with"
    ):
        pack_to(out, source, records_per_shard=2)
    assert files_of(out) == before
    monkeypatch.undo()
    assert pack_to(out, source, records_per_shard=2).built == 1
    monkeypatch.setattr(claim, "version", lambda _: "99.0")
    assert pack_to(out, source, records_per_shard=2).built == 0, (
        "a corpus that is whole is one for all versions"
    )


@pytest.mark.parametrize("is_whole", [False, True])
def test_another_folder_with_the_same_tables_is_another_packing(
    ray_cluster: None, tmp_path: Path, is_whole: bool
) -> None:
    folder, out = tmp_path / "clinic-of-maria-mustermann", tmp_path / "corpus"
    source = stopped_packing(out, folder)
    if is_whole:
        pack_to(out, source, records_per_shard=2)
    before = files_of(out)
    shutil.copytree(folder, tmp_path / "other")
    with pytest.raises(
        ConfigError, match="holds a packing of another folder of wfdb, which lists the same records"
    ):
        pack_to(out, f"wfdb={tmp_path / 'other'}", records_per_shard=2)
    assert files_of(out) == before
    assert "mustermann" not in (out / "packing.json").read_text()
    (tmp_path / "link").symlink_to(folder)
    same = pack_to(out, f"wfdb={tmp_path / 'link'}", records_per_shard=2)
    assert same.built == (0 if is_whole else 1), "a link to the folder is the folder"


def test_a_claim_tells_folders_apart_by_the_patient_key(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the key nobody can find out a folder's path by trying."""
    source = f"wfdb={georgia_folder(tmp_path / 'wfdb', 'a')}"
    digests = set()
    for name in ("one", "two", "one-again"):
        monkeypatch.setenv("ECGDIST_PATIENT_KEY", f"the key of hospital {name.removesuffix('-again')}")
        pack_to(tmp_path / name, source)
        digests.add(json.loads((tmp_path / name / "packing.json").read_bytes())["sources"]["wfdb"])
    assert len(digests) == 2
