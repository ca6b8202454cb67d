"""`ecgdist embed`: every row of a corpus once, parts kept by what they are and not by their names."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from ecgdist.cli import app
from ecgdist.config import build
from ecgdist.corpus import Corpus, Manifest
from ecgdist.downstream.embed import EmbedConfig, EmbedResult, embed
from ecgdist.downstream.embedpart import embed_shard, embedded
from ecgdist.downstream.evaluate import features
from ecgdist.errors import DataError
from ecgdist.modelfolder import WEIGHTS, load, save_model
from ecgdist.storage import Location
from tests.corpus.corpora import made_ecg, row, write_corpus
from tests.downstream.test_leaks import labelled, model

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def trained(sample_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model folder for the shipped ECGs, 15 shards of them."""
    return model(tmp_path_factory.mktemp("embed") / "model", sample_corpus, np.arange(3))


def run(trained: str, corpus: Corpus, out: Path) -> EmbedResult:
    values = {"model": trained, "corpus": str(corpus.location), "out": str(out), "workers": 1}
    return embed(build(EmbedConfig, values))


@pytest.fixture(scope="module")
def whole(trained: str, sample_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished folder of embeddings, of paths that mean something in this process only. Not to be changed."""
    folder = tmp_path_factory.mktemp("embed")
    (folder / "c").symlink_to(sample_corpus.location.uri)
    (folder / "m").symlink_to(trained)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = CliRunner().invoke(app, ["embed", "m", "c", "--out", "out", "--workers", "1"])
    assert result.exit_code == 0, result.output
    assert "353 embeddings in 15 parts, 15 made now; in out" in result.stdout
    return folder / "out"


def age(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_every_row_has_the_embedding_that_an_evaluation_uses(
    whole: Path, trained: str, sample_corpus: Corpus
) -> None:
    table = pq.read_table(whole / "parts")
    assert table.num_rows == sample_corpus.manifest.rows == 353
    found = table["embedding"].combine_chunks().flatten().to_numpy().reshape(353, -1)
    expected = features(load(trained), sample_corpus, np.arange(353), 50)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    index = sample_corpus.columns("record_id", "segment", "source", "patient_key", "split")
    assert table.drop_columns("embedding").to_pydict() == index.to_pydict()


def test_the_manifest_says_what_it_is(whole: Path, trained: str, sample_corpus: Corpus) -> None:
    said = json.loads((whole / "manifest.json").read_text())
    assert (said["corpus_id"], said["model_hash"]) == (sample_corpus.corpus_id, load(trained).model_hash)
    assert (said["rows"], said["dim"], len(said["parts"])) == (353, 128, 15)
    assert {"torch", "ray", "pyarrow", "ecgdist"} <= set(said["versions"])
    assert sorted(path.name for path in whole.iterdir() if not path.name.startswith(".")) == [
        "embedding.json",
        "manifest.json",
        "parts",
    ]


def test_run_again_it_makes_nothing(whole: Path, trained: str, sample_corpus: Corpus) -> None:
    before = age(whole / "parts") | age(whole)
    assert run(trained, sample_corpus, whole).made == 0
    assert age(whole / "parts") | age(whole) == before


def test_parts_are_kept_by_what_they_are_not_by_their_names(
    whole: Path, trained: str, sample_corpus: Corpus, tmp_path: Path
) -> None:
    """Of a finished folder: one part damaged, one replaced by another one, one removed."""
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    parts = sorted((out / "parts").iterdir())
    content = bytearray(parts[2].read_bytes())
    content[len(content) // 2] ^= 1
    parts[2].write_bytes(content)
    shutil.copy(parts[0], parts[5])
    parts[7].unlink()
    before = age(out / "parts")
    result = run(trained, sample_corpus, out)
    assert result.made == 3
    assert result.damaged == ("parts/part-00002.parquet", "parts/part-00005.parquet")
    for path in sorted((whole / "parts").iterdir()):
        assert (out / "parts" / path.name).read_bytes() == path.read_bytes()
    changed = {name for name, when in age(out / "parts").items() if before.get(name) != when}
    assert changed == {f"part-{n:05d}.parquet" for n in (2, 5, 7)}


@pytest.mark.slow
def test_what_was_finished_before_a_stop_is_not_made_again(
    whole: Path, trained: str, sample_corpus: Corpus, tmp_path: Path
) -> None:
    """A part without its note, and one whose note is another model's, are."""
    out = tmp_path / "out"
    (out / "parts").mkdir(parents=True)
    shutil.copy(whole / "embedding.json", out)
    for n in range(12):
        embed_shard(load(trained), sample_corpus, n, 64, Location.of(out))
    (out / "notes/part-00003.json").unlink()
    foreign = json.loads((out / "notes/part-00004.json").read_text()) | {"model_hash": "0" * 64}
    (out / "notes/part-00004.json").write_text(json.dumps(foreign))
    (out / "notes/part-00005.json").write_text("{")
    before = age(out / "parts")
    result = run(trained, sample_corpus, out)
    assert result.made == 3 + 3
    assert result.damaged == tuple(f"parts/part-{n:05d}.parquet" for n in (3, 4, 5))
    kept = {name for name, when in age(out / "parts").items() if before.get(name) == when}
    assert kept == {f"part-{n:05d}.parquet" for n in (0, 1, 2, 6, 7, 8, 9, 10, 11)}
    assert not (out / "notes").exists()


def test_another_model_or_corpus_is_refused(
    whole: Path, trained: str, sample_corpus: Corpus, tmp_path: Path
) -> None:
    other = model(tmp_path / "m", sample_corpus, np.arange(3))
    with pytest.raises(DataError, match=r"holds other embeddings: model_hash .*choose another --out"):
        run(other, sample_corpus, whole)
    corpus = labelled(tmp_path / "c")
    with pytest.raises(DataError, match="holds other embeddings: corpus_id"):
        run(trained, corpus, whole)
    with pytest.raises(DataError, match="exists and holds no embeddings"):
        run(trained, sample_corpus, tmp_path / "c")


def test_a_damaged_manifest_is_named(
    whole: Path, trained: str, sample_corpus: Corpus, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    for content in ("{", "[]", '{"rows": 1}'):
        (out / "manifest.json").write_text(content)
        with pytest.raises(
            DataError, match=r"manifest\.json is damaged .*remove it and run the same command"
        ):
            run(trained, sample_corpus, out)


def test_a_corpus_of_another_rate_is_refused(trained: str, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "c", [row(made_ecg(0, 50.0), "r0")], rate_hz=50.0)
    with pytest.raises(DataError, match="holds 10 s at 50 Hz, the model takes 10 s at 100 Hz"):
        run(trained, corpus, tmp_path / "e")
    assert not (tmp_path / "e").exists()


def test_rows_are_counted_against_the_manifest(tmp_path: Path) -> None:
    """A manifest that says of two shards what its index does not."""
    corpus = labelled(tmp_path / "c")
    trained = load(model(tmp_path / "m", corpus, np.arange(0)))
    (shard,) = corpus.manifest.shards
    parts = [shard.model_copy(update={"rows": rows, "row_groups": (rows,)}) for rows in (30, 6)]
    lying: Manifest = corpus.manifest.model_copy(update={"shards": tuple(parts)}).identified()
    (tmp_path / "c/manifest.json").write_bytes(lying.to_bytes())
    with pytest.raises(DataError, match="has 36 rows of shard 0, its manifest 30; pack the corpus again"):
        embedded(trained, Corpus(tmp_path / "c"), 0, 64)


@pytest.mark.slow
def test_an_embedding_that_is_no_number_stops_it_and_names_the_record(tmp_path: Path) -> None:
    corpus = labelled(tmp_path / "c")
    good = load(model(tmp_path / "m", corpus, np.arange(0)))
    weights = load_file(tmp_path / "m" / WEIGHTS)
    name = "transformer.norm.bias"
    save_model(
        Location.of(tmp_path / "nan"),
        good.config,
        weights | {name: torch.full_like(weights[name], torch.nan)},
        [],
        good.waveforms,
    )
    with pytest.raises(DataError, match=r"the embedding of record r0 \(shard 0\) is not finite"):
        run(str(tmp_path / "nan"), corpus, tmp_path / "e")
    assert not (tmp_path / "e/parts").exists()


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on(
    whole: Path, trained: str, sample_corpus: Corpus, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "ecgdist.cli", "embed", trained, str(sample_corpus.location)]
    command += ["--out", str(out), "--workers", "1"]
    environment = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    deadline = time.monotonic() + 300
    while len(list((out / "notes").glob("part-*.json")) if out.exists() else []) < 1:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    finished = [path.stem for path in (out / "notes").glob("part-*.json")]
    before = age(out / "parts")
    result = run(trained, sample_corpus, out)
    # An actor may have finished another part before it was gone.
    assert 0 < result.made <= 15 - len(finished)
    after = age(out / "parts")
    assert all(after[f"{name}.parquet"] == before[f"{name}.parquet"] for name in finished)
    for path in sorted((whole / "parts").iterdir()):
        assert (out / "parts" / path.name).read_bytes() == path.read_bytes()
