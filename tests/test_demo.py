"""The main job end to end: what ``ecgdist demo`` leaves behind, and what can be done with it."""

from __future__ import annotations

import csv
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import wfdb
from typer.testing import CliRunner, Result

import ecgdist
from ecgdist.cli import app
from ecgdist.corpus import Corpus
from ecgdist.pretraining.export import read_plan
from ecgdist.report.page import Reconstruction
from ecgdist.report.run import masked_ecg
from ecgdist.sample import sample_folder
from ecgdist.storage import Location
from tests.conftest import DEMO_STEPS

pytestmark = pytest.mark.ray


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_it_says_what_it_does(demo: tuple[Path, str]) -> None:
    folder, printed = demo
    assert "353 ECGs in 4 shards, 4 built now, 0 records refused" in printed
    assert "265 ECGs (left out by data.exclude_splits: 44 in fold7, 44 in fold8)" in printed
    assert "2 workers, ZeRO stage 2, fp32" in printed
    progress = re.findall(
        rf"^step (\d+)/{DEMO_STEPS}  loss ([\d.]+) \(reconstruction [\d.]+, contrastive [\d.]+\)",
        printed,
        re.M,
    )
    assert [int(step) for step, _ in progress] == [10, 20]
    assert f"model written to {folder / 'run/model'}" in printed
    assert "macro AUROC" in printed
    assert f"open {folder / 'run/report/index.html'}" in printed


def test_the_metrics_are_a_row_every_ten_steps(demo: tuple[Path, str]) -> None:
    rows = [json.loads(line) for line in (demo[0] / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [10, 20]
    assert [row["samples"] for row in rows] == [640, 1280]
    for row in rows:
        assert row["loss"] == pytest.approx(row["reconstruction"] + row["contrastive"], rel=1e-6)
        assert row["workers"] == 2
        assert np.isfinite(list(row.values())).all()
    assert list((demo[0] / "run/tensorboard").iterdir())


def test_the_model_takes_an_array(demo: tuple[Path, str]) -> None:
    model = ecgdist.load(demo[0] / "run/model")
    record = wfdb.rdrecord(str(sample_folder() / "records100/00000/00001_lr"))
    embedding = model.embed(record.p_signal.T, record.fs, record.sig_name)
    assert embedding.shape == (model.dim,)
    backwards = model.embed(record.p_signal.T[::-1] * 1000, record.fs, record.sig_name[::-1], unit="uV")
    np.testing.assert_allclose(backwards, embedding, rtol=0, atol=1e-5)


def test_the_model_carries_its_origin(demo: tuple[Path, str]) -> None:
    folder = demo[0]
    model, corpus = ecgdist.load(folder / "run/model"), Corpus(folder / "corpus")
    origin = model.config.provenance
    assert (origin.corpus_id, origin.steps, origin.rows) == (corpus.corpus_id, DEMO_STEPS, 265)
    trained = {
        key
        for key, split in zip(
            corpus.index["patient_key"].to_pylist(), corpus.index["split"].to_pylist(), strict=True
        )
        if split not in ("fold7", "fold8")
    }
    assert model.patients == trained
    card = (folder / "run/model/README.md").read_text()
    assert corpus.corpus_id in card
    assert model.model_hash in card
    assert "CC BY 4.0" in card


def test_the_probe_comes_with_its_proof(demo: tuple[Path, str]) -> None:
    folder, printed = demo
    figures = json.loads((folder / "run/evaluation.json").read_text())
    assert figures["provenance"]["corpus_id"] == Corpus(folder / "corpus").corpus_id
    assert figures["provenance"]["model_hash"] == ecgdist.load(folder / "run/model").model_hash
    assert figures["counts"]["test"] == {"records": 88, "patients": 82}
    assert len(figures["split_digest"]) == 64
    auroc = figures["pretrained"]["metrics"]["macro"]["auroc"]
    assert 0 <= auroc["low"] <= auroc["value"] <= auroc["high"] <= 1
    assert f"{auroc['value']:.3f}" in printed
    assert "1000 resamples" in figures["method"]
    assert any("sample is small" in warning for warning in figures["warnings"])


@pytest.mark.slow
def test_the_probe_can_be_run_again(demo: tuple[Path, str]) -> None:
    folder = demo[0]
    result = run(
        "evaluate",
        str(folder / "run/model"),
        "--task",
        "ptbxl-super",
        "--corpus",
        str(folder / "corpus"),
        "--json",
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == json.loads((folder / "run/evaluation.json").read_text())


def test_patients_of_pretraining_are_not_tested_on(demo: tuple[Path, str]) -> None:
    folder = demo[0]
    folds = "folds={train: [fold7], validation: [fold8], test: [fold1, fold2]}"
    model, corpus = str(folder / "run/model"), str(folder / "corpus")
    arguments = ["evaluate", model, "--task", "ptbxl-super", "--corpus", corpus, "--set", folds]
    refused = run(*arguments)
    assert refused.exit_code == 1
    assert "test patients are in the pretraining corpus" in refused.stderr
    allowed = run(*arguments, "--set", "allow_leak=true", "--set", "resamples=100", "--json")
    assert allowed.exit_code == 0, allowed.output
    assert json.loads(allowed.stdout)["warnings"][0].startswith("LEAK: ")


def test_a_corpus_of_another_rate_is_refused(demo: tuple[Path, str], sample_corpus: Corpus) -> None:
    result = run(
        "evaluate",
        str(demo[0] / "run/model"),
        "--task",
        "ptbxl-super",
        "--corpus",
        str(sample_corpus.location),
    )
    assert result.exit_code == 1
    assert "holds 10 s at 100 Hz, the model takes 10 s at 250 Hz" in result.stderr


def test_the_report_shows_the_run(demo: tuple[Path, str]) -> None:
    folder = demo[0]
    page = (folder / "run/report/index.html").read_text()
    figures = json.loads((folder / "run/evaluation.json").read_text())
    for wanted in (
        Corpus(folder / "corpus").corpus_id,
        ecgdist.load(folder / "run/model").model_hash,
        f"{figures['pretrained']['metrics']['macro']['auroc']['value']:.3f}",
        "deepspeed 0",
        "not trained on",
        "25 mm/s",
    ):
        assert wanted in page
    assert not re.search(r"""(src|href)\s*=\s*["']?https?://""", page)


def test_the_reconstruction_is_on_the_scale_of_the_signal(demo: tuple[Path, str]) -> None:
    run_folder = Location.of(demo[0] / "run")
    drawn = masked_ecg(run_folder, read_plan(run_folder))
    assert isinstance(drawn, Reconstruction)
    shown = ~drawn.hidden
    np.testing.assert_allclose(drawn.reconstruction_mv[:, shown], drawn.original_mv[:, shown], atol=1e-4)
    assert drawn.hidden.sum() == 23 * 75  # 30 patches, of which floor(30 / 4) stay visible
    assert np.abs(drawn.reconstruction_mv).max() < 5 * np.abs(drawn.original_mv).max()


@pytest.mark.slow
def test_run_again_it_changes_nothing(demo: tuple[Path, str]) -> None:
    folder = demo[0]
    before = (folder / "run/model/model.safetensors").read_bytes()
    result = run("demo", "--out", str(folder), "--steps", str(DEMO_STEPS))
    assert result.exit_code == 0, result.output
    assert "0 built now" in result.output
    assert "is finished" in result.output
    assert (folder / "run/model/model.safetensors").read_bytes() == before


@pytest.mark.slow
def test_export_gives_the_same_model(demo: tuple[Path, str], tmp_path: Path) -> None:
    folder = demo[0]
    assert run("export", str(folder / "run"), "--out", str(tmp_path / "model")).exit_code == 0
    ours, theirs = ecgdist.load(tmp_path / "model"), ecgdist.load(folder / "run/model")
    assert ours.model_hash == theirs.model_hash
    for name, weight in ours.encoder.state_dict().items():
        assert torch.equal(weight, theirs.encoder.state_dict()[name])
    again = run("export", str(folder / "run"), "--out", str(tmp_path / "model"))
    assert again.exit_code == 1
    assert "exists and is not empty" in again.stderr


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(3000)
def test_its_model_is_used_on_labels(demo: tuple[Path, str], tmp_path: Path) -> None:
    """What `make demo-labels` runs, on the model of a short demo."""
    root = Path(__file__).parents[1]
    (tmp_path / "jobs").symlink_to(root / "jobs")
    (tmp_path / "demo").mkdir()
    for part in ("corpus", "run"):
        (tmp_path / "demo" / part).symlink_to(demo[0] / part)
    recipe = re.search(r"^demo-labels:.*\n((?:\t.*\n)+)", (root / "Makefile").read_text(), re.M)
    assert recipe is not None
    commands = re.findall(r"^\t\$\(BIN\)/ecgdist (.*)$", recipe.group(1), re.M)
    assert [command.split()[0] for command in commands] == ["benchmark", "sweep"]
    for command in commands:
        program = [str(Path(sys.executable).with_name("ecgdist")), *shlex.split(command)]
        done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=1500)
        assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "demo/benchmark/benchmark.json").read_text())
    ways = {task["task"]: {(way["mode"], way["share"]) for way in task["ways"]} for task in found["tasks"]}
    asked = {(mode, share) for mode in ("linear", "random", "finetune", "scratch") for share in (0.1, 1.0)}
    assert ways == {"ptbxl-super": asked, "ptbxl-age": asked}
    with (tmp_path / "demo/sweep/trials.csv").open() as table:
        assert len(list(csv.DictReader(table))) == 12
    assert json.loads((tmp_path / "demo/sweep/evaluation.json").read_text())["task"] == "ptbxl-super"
