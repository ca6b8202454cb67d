"""What is wrong with a task, a model folder or a corpus is one sentence, whichever command meets it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ecgdist.cli import app
from tests.downstream.classifiers import Made, made
from tests.downstream.test_leaks import TASK, labelled, model

__all__ = ["made"]

A, B = {"labels": ["x:a"]}, {"labels": ["x:b"]}


def refused(*arguments: str) -> str:
    """What a command says that exits with 1."""
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    return " ".join(result.stderr.split())


def commands(model: str, task: str, corpus: str, out: Path) -> dict[str, list[str]]:
    """The commands that take a model, a task and a corpus."""
    where = ["--task", task, "--corpus", corpus]
    return {
        "evaluate": ["evaluate", model, *where, "--set", "resamples=100"],
        "fit-head": ["fit-head", model, *where, "--out", str(out / "head"), "--set", "resamples=100"],
        "finetune": ["finetune", "--model", model, *where, "--out", str(out / "run"), "--set", "steps=1"],
        "benchmark": [
            "benchmark", "--model", model, "--tasks", task, "--corpus", corpus, "--out", str(out / "b"),
            "--set", 'modes=["linear"]', "--set", "resamples=100",
        ],
    }  # fmt: skip


@pytest.mark.parametrize("command", ["evaluate", "fit-head", "finetune", "benchmark"])
def test_a_model_folder_of_another_version_is_refused(made: Made, tmp_path: Path, command: str) -> None:
    shutil.copytree(made.model, tmp_path / "m")
    content = json.loads((tmp_path / "m/config.json").read_text())
    (tmp_path / "m/config.json").write_text(json.dumps(content | {"format_version": 99}))
    words = commands(str(tmp_path / "m"), made.task, str(made.corpus.location), tmp_path)[command]
    assert "has model format 99; this version reads 3" in refused(*words)


@pytest.mark.parametrize("command", ["evaluate", "fit-head", "finetune", "benchmark"])
def test_a_corpus_that_leaked_into_pretraining_is_refused(made: Made, tmp_path: Path, command: str) -> None:
    leaky = model(tmp_path / "m", made.corpus, np.arange(36))
    said = refused(*commands(leaky, made.task, str(made.corpus.location), tmp_path)[command])
    assert "12 of 12 test patients are in the pretraining corpus" in said
    assert "allow_leak=true" in said


@pytest.mark.parametrize("command", ["evaluate", "fit-head", "finetune", "benchmark"])
def test_codes_that_the_corpus_has_not_are_refused(made: Made, tmp_path: Path, command: str) -> None:
    (tmp_path / "t.yaml").write_text(TASK.replace("x:a", "x:aa").replace("x:b", "x:bb"))
    words = commands(made.model, str(tmp_path / "t.yaml"), str(made.corpus.location), tmp_path)[command]
    assert (
        "task mine: the corpus has no record from made with a label of the task; `ecgdist inspect"
        in refused(*words)
    )


@pytest.mark.parametrize(
    ("fold", "said"),
    [
        (0, "training records"),
        (1, "validation records"),
        (2, "test records"),
    ],
)
def test_a_split_without_positives_is_named(made: Made, tmp_path: Path, fold: int, said: str) -> None:
    """A is true of no record of one fold, and B of all of them."""
    changed = {f"r{n}": B for n in range(36) if n % 3 == fold}
    corpus = labelled(tmp_path / "c", **changed)
    found = commands(made.model, made.task, str(corpus.location), tmp_path)
    for name in ("evaluate", "fit-head"):
        assert f"no label has both positive and negative {said}" in refused(*found[name])
