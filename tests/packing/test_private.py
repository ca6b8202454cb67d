"""A private packing gives nothing away: not in the corpus, not in logs, messages or reports."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ecgdist.config import build
from ecgdist.corpus import Corpus
from ecgdist.corpus.patients import KEY_VARIABLE, PatientHasher
from ecgdist.errors import ConfigError, DataError, RecordRefused, StorageError
from ecgdist.packing import PackConfig
from ecgdist.packing.plan import Plan
from ecgdist.packing.privacy import capped_age, is_private, keyed_record_id, refuse_free_text
from ecgdist.packing.shards import read_all
from ecgdist.record import Recording
from ecgdist.sources.wfdb_folder import WfdbFolder
from tests.packing.folders import georgia_folder, pack_to
from tests.packing.planted import (
    Planted,
    plant_code15,
    plant_own,
    plant_ptbxl,
    plant_ukbiobank,
    plant_wfdb,
)
from tests.packing.test_privacy import every_written_text

KEY = "a key that only the test knows"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """Where a cluster of the test's own keeps its logs; its sockets need a short path."""
    folder = Path(tempfile.mkdtemp(prefix="r"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.ray
@pytest.mark.slow
def test_five_hundred_secrets_are_nowhere(tmp_path: Path, ray_folder: Path) -> None:
    planted = Planted(seed=20261124)
    folders = {
        "wfdb": plant_wfdb(tmp_path / "wfdb", planted, 36),
        "ptbxl": plant_ptbxl(tmp_path / "ptb-xl", planted, 28),
        "npy": plant_own(tmp_path / "npy", planted, "npy", 24),
        "hdf5": plant_own(tmp_path / "hdf5", planted, "hdf5", 24),
        "ukbiobank": plant_ukbiobank(tmp_path / "ukbiobank", planted, 8),
        "code15": plant_code15(tmp_path / "code15", planted, 8),
    }
    broken = tmp_path / "broken"
    georgia_folder(broken, "a")
    (broken / f"{planted.name()}.hea").symlink_to("/proc/self/mem")  # storage fails in reading it
    assert len(planted.secrets) >= 500
    sources = [f"{kind}={folder}" for kind, folder in folders.items()]
    out = tmp_path / "corpus"
    pack = ["pack", "--set", "records_per_shard=20", "--private"]
    commands = [
        [*pack, *sources, "--out", str(out), "--set", "max_refused_share=0.01"],
        [*pack, *sources, "--out", str(out), "--set", "max_refused_share=0.5"],
        [*pack, *sources, "--out", str(out), "--exclude", "wfdb/*", "--set", "max_refused_share=0.5"],
        [*pack, f"wfdb={broken}", "--out", str(tmp_path / "none"), "--set", "follow_links=true"],
        ["inspect", str(out), "--verify"],
        ["inspect", str(out), "--json"],
        ["plan", "pack", *sources, "--private", "--json"],
        ["inspect", str(out), "--html", str(tmp_path / "report.html")],
    ]
    done = subprocess.run(
        [sys.executable, "-m", "tests.packing.commands", json.dumps(commands)],
        cwd=ROOT,
        env={**os.environ, KEY_VARIABLE: KEY, "RAY_TMPDIR": str(ray_folder)},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    said = done.stdout + done.stderr
    assert re.findall(r"^exit \d", said, re.M) == [f"exit {code}" for code in (1, 0, 1, 1, 0, 0, 0, 0)]
    assert re.search(
        r"The first: (wfdb/[0-9a-f]{32}: \w+; ){4}wfdb/[0-9a-f]{32}: \w+ \(private = false says more\)\. All of them",
        said,
    ), said
    assert re.search(r"error: reading record wfdb/[0-9a-f]{32}: Input/output error", said), said

    corpus = Corpus(out)
    assert corpus.manifest.private
    assert set(corpus.manifest.refused) >= {"unknown_lead", "unknown_unit", "unreadable_header"}
    refused = {name: facts.refused for name, facts in corpus.manifest.sources.items()}
    assert refused == {"wfdb": 12, "ptbxl": 7, "npy": 6, "hdf5": 6, "ukbiobank": 3, "code15": 4}
    logs = "\n".join(path.read_text(errors="replace") for path in ray_folder.rglob("*.*") if path.is_file())
    assert "raylet" in logs  # the search sees what is there
    written = "\n".join(every_written_text(folder) for folder in (out, tmp_path / "none"))
    headers = "\n".join(path.read_text(errors="replace") for path in folders["wfdb"].rglob("*.hea"))
    assert planted.found_in(headers)  # the search finds what is there
    for text in (said, logs, written, (tmp_path / "report.html").read_text(encoding="utf-8")):
        assert planted.found_in(text) == []
        assert KEY not in text
    assert corpus.manifest.patient_key_fingerprint in written


def private_plan(source: str, out: Path) -> Plan:
    return Plan.of(build(PackConfig, {"sources": [source], "out": str(out), "private": True}))


@pytest.mark.parametrize(
    ("failure", "kind", "said"),
    [
        (ValueError("Mustermann"), DataError, r"ValueError in test_private\.py, line \d+; this is a defect"),
        (DataError("Mustermann"), DataError, "it is not as its layout says"),
        (StorageError("Mustermann"), StorageError, "storage fails"),
        (ConfigError("Mustermann"), DataError, "it is not as its layout says"),
    ],
)
def test_errors_are_told_without_what_they_quote(
    failure: Exception, kind: type[Exception], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setenv(KEY_VARIABLE, KEY)
    source = f"wfdb={georgia_folder(tmp_path / 'wfdb', 'a')}"
    plan = private_plan(source, tmp_path / "corpus")
    monkeypatch.setattr(WfdbFolder, "_read", fail)
    with pytest.raises(kind, match=rf"reading record wfdb/[0-9a-f]{{32}}: {said}") as caught:
        list(read_all(plan.work, plan.chunks[0].listings()))
    assert "Mustermann" not in str(caught.value)
    assert caught.value.__cause__ is None
    failure = RecordRefused("some_reason", "Mustermann") if isinstance(failure, ConfigError) else failure
    monkeypatch.setattr(WfdbFolder, "list_records", fail)
    with pytest.raises(kind, match=f"listing source wfdb in {tmp_path}/wfdb: ") as caught:
        private_plan(source, tmp_path / "corpus")
    assert "Mustermann" not in str(caught.value)


@pytest.mark.ray
def test_the_same_record_has_one_id_in_every_corpus(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (georgia_folder(tmp_path / name, "a", "b") for name in ("one", "two"))
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    ids = [keyed_record_id(PatientHasher(KEY.encode()), "wfdb", name) for name in "ab"]
    for folder in (one, two):
        corpus = pack_to(tmp_path / f"corpus-{folder.name}", f"wfdb={folder}").corpus
        assert corpus.index["record_id"].to_pylist() == ids
        assert not set(ids) & set(corpus.index["patient_key"].to_pylist())
    shown = pack_to(tmp_path / "shown", f"wfdb={one}", private=False).corpus
    assert shown.index["record_id"].to_pylist() == ["a", "b"]
    assert not shown.manifest.private
    with pytest.raises(ConfigError, match="holds a packing of other records"):
        pack_to(tmp_path / "shown", f"wfdb={one}")


def test_private_by_default_where_a_key_is_set() -> None:
    own, public = PatientHasher(KEY.encode()), PatientHasher()
    assert [is_private(wanted, own) for wanted in (None, True, False)] == [True, True, False]
    assert [is_private(wanted, public) for wanted in (None, False)] == [False, False]
    with pytest.raises(ConfigError, match=f"private = true needs a key of your own: set {KEY_VARIABLE}"):
        is_private(True, public)


@pytest.mark.parametrize(
    ("labels", "split", "flags", "reason"),
    [
        (("scp:NORM", "scp:LAO/LAE", "snomed:426783006", "code15:1dAVb", "aha:1+308"), "fold3", ("mended",), None),
        (("scp:Mustermann",), None, (), "bad_label"),
        (("scp:NORM MI",), None, (), "bad_label"),
        (("snomed:Mustermann",), None, (), "bad_label"),
        (("NORM",), None, (), "bad_label"),
        (("x:" + "A" * 41,), None, (), "bad_label"),
        ((), "Mustermann", (), "bad_split"),
        ((), "fold 3", (), "bad_split"),
        ((), None, ("Maria M",), "bad_flag"),
    ],
)  # fmt: skip
def test_only_short_codes_are_labels_and_splits(
    labels: tuple[str, ...], split: str | None, flags: tuple[str, ...], reason: str | None
) -> None:
    signal = np.zeros((1, 10))
    recording = Recording("1", "wfdb", signal, 500.0, ("I",), labels=labels, split=split, flags=flags)
    if reason is None:
        refuse_free_text(recording)
        return
    with pytest.raises(RecordRefused) as caught:
        refuse_free_text(recording)
    assert caught.value.reason == reason


def test_ages_above_89_are_one_class() -> None:
    assert [capped_age(age) for age in (None, 0.5, 89.0, 89.5, 90.0, 104.0)] == [None, 0.5, 89, 90, 90, 90]
