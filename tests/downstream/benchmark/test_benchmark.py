"""A benchmark as a user starts it, on the shipped ECGs: cut off, it goes on; each figure comes again by its command."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from ecgdist.cli import app
from ecgdist.corpus import Corpus
from tests.downstream.test_leaks import model

MODES = '["linear","random","finetune","xresnet"]'

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture(scope="module")
def words(sample_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A benchmark of four trainings of two steps, two at a time."""
    folder = tmp_path_factory.mktemp("benchmark")
    torch.manual_seed(5)
    pretrained = model(folder / "model", sample_corpus, np.arange(0))
    return [
        "benchmark", "--model", pretrained, "--tasks", "ptbxl-super,ptbxl-age", "--corpus", sample_corpus.location.uri,
        "--out", str(folder / "out"), "--set", f"modes={MODES}", "--set", "label_shares=[0.5]",
        "--set", "label_seeds=[1]", "--set", "steps=2", "--set", "looks=1", "--set", "resamples=100",
        "--set", "concurrent=2",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def found(words: list[str]) -> dict[str, Any]:
    """What it wrote, after it was out of time once."""
    out = Path(words[words.index("--out") + 1])
    late = run(*words, "--set", "hours=0.000001")
    assert late.exit_code == 75, late.output
    assert "4 of 4 trainings are left" in " ".join(late.stderr.split())
    assert not (out / "benchmark.json").exists()
    done = run(*words)
    assert done.exit_code == 0, done.output
    assert "4 trainings, of which 0 have ended already" in done.stdout
    content: dict[str, Any] = json.loads((out / "benchmark.json").read_text())
    return content


def test_every_way_has_figures_and_their_proof(words: list[str], found: dict[str, Any]) -> None:
    for task in found["tasks"]:
        assert [way["mode"] for way in task["ways"]] == json.loads(MODES)
        for way in task["ways"]:
            assert way["error"] is None
            (predictor,) = way["predictors"]
            assert (predictor["seed"], predictor["classifier_sha256"] is None) == (
                1,
                way["mode"] in ("linear", "random"),
            )
        assert len(task["differences"]) == 6
    out = Path(words[words.index("--out") + 1])
    text = (out / "benchmark.md").read_text()
    for said in (
        found["corpus_id"],
        found["model_hash"],
        found["command"],
        "Not a medical device",
        "fine-tuned",
    ):
        assert said in text
    assert (out / "benchmark.svg").read_text().startswith("<?xml")


def test_the_command_of_a_predictor_gives_its_figures_again(found: dict[str, Any]) -> None:
    for task in found["tasks"]:
        metric = task["metrics"][0]
        for way in task["ways"]:
            (predictor,) = way["predictors"]
            result = run(*shlex.split(predictor["command"])[1:], "--json")
            assert result.exit_code == 0, result.output
            again = json.loads(result.stdout)
            assert again["split_digest"] == predictor["split_digest"]
            arm = again["random_encoder" if way["mode"] == "random" else "pretrained"]["metrics"]
            figure = (arm if metric == "mae" else arm["macro"])[metric]["value"]
            assert figure == pytest.approx(predictor["figures"][metric], abs=1e-6)


def test_what_is_trained_is_not_trained_again_and_ways_may_be_added(
    words: list[str], found: dict[str, Any]
) -> None:
    out = Path(words[words.index("--out") + 1])
    written = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/model/config.json")}
    assert len(written) == 4
    more = [word.replace('"random"', '"scratch"') for word in words]
    done = run(*more)
    assert done.exit_code == 0, done.output
    assert "6 trainings, of which 4 have ended already" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in written} == written
    again = json.loads((out / "benchmark.json").read_text())
    for task, before in zip(again["tasks"], found["tasks"], strict=True):
        assert {way["mode"]: way for way in task["ways"]}["finetune"] == before["ways"][2]
    other = run(*words, "--set", "finetune.layer_decay=0.5")
    assert other.exit_code == 1
    assert "this benchmark cannot go on with other settings" in " ".join(other.stderr.split())
