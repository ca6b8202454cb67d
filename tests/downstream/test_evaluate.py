"""`ecgdist evaluate`: figures with their proof, as a document of a published form, and again by the command in it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from typer.testing import CliRunner

from ecgdist.cli import app
from ecgdist.config import build
from ecgdist.corpus import Corpus
from ecgdist.downstream.evaluate import EvaluateConfig
from ecgdist.downstream.evaluation import SCHEMA_VERSION
from ecgdist.downstream.schema import evaluation_schema, published_schema, read_evaluation
from ecgdist.errors import DataError
from ecgdist.modelfolder import load
from tests.corpus.corpora import made_ecg, row, write_corpus
from tests.downstream.test_leaks import TASK, model

COUNT = 90
FOLDS = ("one", "two", "three")
AGE = TASK.replace("multilabel", "regression").replace(
    'labels: {A: ["x:a"], B: ["x:b"]}', "target: age, unit: years"
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Corpus, str]:
    """A folder with two tasks, a labelled corpus of 90 ECGs, and a model that has seen none of them."""
    folder = tmp_path_factory.mktemp("evaluate")
    rows = [
        row(
            made_ecg(n),
            f"r{n}",
            labels=["x:a"] if n // 3 % 2 else ["x:b"],
            split=FOLDS[n % 3],
            age=20.0 + n % 60,
            sex="female",
        )
        for n in range(COUNT)
    ]
    corpus = write_corpus(folder / "corpus", rows)
    (folder / "labels.yaml").write_text(TASK)
    (folder / "age.yaml").write_text(AGE)
    lines = [f"r{n},{n // 3 % 2},{('train', 'validation', 'test')[n % 3]}" for n in range(COUNT)]
    (folder / "own.csv").write_text("\n".join(["record_id,A,split", *lines]))
    return folder, corpus, model(folder / "model", corpus, np.arange(0))


def evaluate(made: tuple[Path, Corpus, str], task: str, *more: str) -> dict[str, Any]:
    folder, corpus, trained = made
    command = [
        "evaluate",
        trained,
        "--task",
        str(folder / task),
        "--corpus",
        str(corpus.location),
        "--json",
        *more,
    ]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.fixture(scope="module", params=["labels.yaml", "age.yaml", "own.csv"])
def document(request: pytest.FixtureRequest, made: tuple[Path, Corpus, str]) -> dict[str, Any]:
    """An evaluation of every kind of task."""
    changes = ("--set", "resamples=120", "--set", "seed=3", "--set", "specificity=0.8")
    return evaluate(made, request.param, *changes)


def test_the_document_has_the_published_form(document: dict[str, Any]) -> None:
    validator = jsonschema.Draft202012Validator(published_schema())
    validator.check_schema(published_schema())
    validator.validate(document)
    assert document["schema_version"] == SCHEMA_VERSION
    assert not validator.is_valid({key: value for key, value in document.items() if key != "provenance"})
    assert not validator.is_valid(document | {"schema_version": 0})


def test_the_published_form_is_that_of_the_classes() -> None:
    """If not: python -m ecgdist.downstream.schema > ecgdist/downstream/evaluation.schema.json"""
    assert published_schema() == evaluation_schema()


def test_the_command_in_the_document_gives_the_same_document(document: dict[str, Any]) -> None:
    command = shlex.split(document["provenance"]["command"])
    assert command[:2] == ["ecgdist", "evaluate"]
    again = CliRunner().invoke(app, [*command[1:], "--json"])
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout) == document
    for change in ("resamples=120", "seed=3", "specificity=0.8"):
        assert change in command


def test_the_document_says_what_it_was_made_from(
    document: dict[str, Any], made: tuple[Path, Corpus, str]
) -> None:
    proof = document["provenance"]
    assert proof["corpus_id"] == made[1].corpus_id
    assert proof["model_hash"] == load(made[2]).model_hash
    assert set(proof["versions"]) == {"ecgdist", "torch", "numpy", "scipy", "scikit-learn", "python"}
    assert proof["seeds"] == {"untrained encoder": 3, "bootstrap": 3}
    assert len(document["split_digest"]) == len(proof["task_digest"]) == 64


def test_it_is_read_again_as_it_was_written(document: dict[str, Any]) -> None:
    text = json.dumps(document).encode()
    found = read_evaluation(text, "x.json")
    assert json.loads(found.model_dump_json()) == document
    assert found.tables()
    with pytest.raises(DataError, match=r"x\.json is no evaluation of schema version 1 .*evaluate again"):
        read_evaluation(text.replace(b'"schema_version": 1', b'"schema_version": 7'), "x.json")
    with pytest.raises(DataError, match="is no evaluation of schema version 1"):
        read_evaluation(b"{}", "x.json")


def test_figures_are_printed_with_the_command(made: tuple[Path, Corpus, str]) -> None:
    folder, corpus, trained = made
    for task, words in (
        ("labels.yaml", ("macro AUROC", "macro sensitivity", "no figures by subgroup, all are too small")),
        ("age.yaml", ("MAE (years)", "R²", "no figures by subgroup")),
    ):
        arguments = ["evaluate", trained, "--task", str(folder / task), "--corpus", str(corpus.location)]
        result = CliRunner().invoke(app, [*arguments, "--set", "resamples=100"])
        assert result.exit_code == 0, result.output
        printed = " ".join(result.output.split())
        assert all(word in printed for word in words)
        assert f"again: ecgdist evaluate {trained}" in printed


def test_a_command_names_what_differs_from_the_defaults_only() -> None:
    values = {"model": "a model", "task": "age", "corpus": "c"}
    assert (
        build(EvaluateConfig, values).command
        == "ecgdist evaluate 'a model' --task age --corpus c --mode linear"
    )
    folds = {"train": ["a"], "validation": ["b"], "test": ["c d"]}
    changed = build(EvaluateConfig, values | {"folds": folds, "allow_leak": True})
    result = CliRunner().invoke(app, [*shlex.split(changed.command)[1:], "--dry-run"])
    assert result.exit_code == 0, result.output
    assert "c d" in result.output
    assert "allow_leak: true" in result.output


def test_a_wrong_task_is_refused_before_anything_is_read(
    made: tuple[Path, Corpus, str], tmp_path: Path
) -> None:
    (tmp_path / "bad.yaml").write_text("{name: bad, kind: survival}")
    (tmp_path / "bad.csv").write_text("record_id,A\nr1,maybe\n")
    (tmp_path / "both.yaml").write_text(TASK.replace("folds:", "seeded: {}, folds:"))
    for name, said in (
        ("bad.yaml", "kind = 'survival': a task is one of multilabel, regression"),
        ("bad.csv", "A is 'maybe'; write a number"),
        ("both.yaml", "a task has either folds or seeded"),
    ):
        result = CliRunner().invoke(
            app, ["evaluate", "/nowhere", "--task", str(tmp_path / name), "--corpus", "c"]
        )
        assert result.exit_code == 1
        assert said in " ".join(result.stderr.split())


def test_a_number_that_the_corpus_does_not_have(made: tuple[Path, Corpus, str]) -> None:
    folder, corpus, trained = made
    (folder / "lvef.yaml").write_text(AGE.replace("target: age", "target: lvef"))
    result = CliRunner().invoke(
        app, ["evaluate", trained, "--task", str(folder / "lvef.yaml"), "--corpus", str(corpus.location)]
    )
    assert result.exit_code == 1
    assert "has no numbers named 'lvef'" in " ".join(result.stderr.split())
