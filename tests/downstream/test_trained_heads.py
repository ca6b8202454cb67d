"""Heads of fine-tuning: `predict` takes their folders, and says of a file what an evaluation says of its record."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from ecgdist.cli import app
from ecgdist.config import build
from ecgdist.downstream.classifier import load_classifier, save_classifier, seen_by_head
from ecgdist.downstream.headcard import HEAD_CONFIG, HeadConfig
from ecgdist.downstream.heads import ReadoutHead
from ecgdist.errors import ConfigError
from ecgdist.modelcard import NOT_A_DEVICE
from ecgdist.modelfolder import load
from ecgdist.models.readout import READOUTS
from ecgdist.storage import Location
from tests.corpus.corpora import made_ecg
from tests.downstream.classifiers import Made, made
from tests.downstream.test_leaks import TASK, labelled

__all__ = ["made"]

AGE = TASK.replace("kind: multilabel", "kind: regression").replace(
    'labels: {A: ["x:a"], B: ["x:b"]}', "target: age, unit: years"
)


def trained(made: Made, folder: Path, kind: str, **changes: Any) -> str:
    """A model folder with a readout of random weights, as `finetune` publishes one."""
    model = load(made.model)
    said = load_classifier(made.classifier).config.model_dump() | {
        "kind": kind, "metrics": None, "method": None, "seed": None,
        "validation": {"validation_auroc": 0.75}, "step": 40, **changes,
    }  # fmt: skip
    config = build(HeadConfig, said)
    torch.manual_seed(3)
    readout = READOUTS[kind](model.dim, len(config.outputs))
    torch.nn.init.normal_(readout.linear.weight, std=0.3)
    save_classifier(model, config, ReadoutHead(readout, config), None, Location.of(folder))
    return str(folder)


def run(*arguments: str) -> Any:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def number(made: Made) -> dict[str, Any]:
    """What a head says of itself that predicts an age; beside it that task, and a corpus with ages."""
    (made.folder / "age.yaml").write_text(AGE)
    labelled(made.folder / "aged", **{f"r{n}": {"age": 30.0 + n} for n in range(36)})
    # Outputs of one record alone and in a batch differ by 1e-6 on some processors, so by 5e-6 years.
    return {"outputs": ["age"], "unit": "years", "thresholds": [], "offset": 50.0, "scale": 5.0}


@pytest.mark.parametrize("kind", ["probe", "linear", "attention", "age"])
def test_a_file_has_the_prediction_that_an_evaluation_gives_its_record(
    made: Made, number: dict[str, Any], tmp_path: Path, kind: str
) -> None:
    task, corpus = made.task, str(made.corpus.location)
    if kind == "probe":
        folder = made.classifier
    elif kind == "age":
        folder = trained(made, tmp_path / "m", "linear", **number)
        task, corpus = str(made.folder / "age.yaml"), str(made.folder / "aged")
    else:
        folder = trained(made, tmp_path / "m", kind)
    where = ["--task", task, "--corpus", corpus, "--set", "resamples=100"]
    table = tmp_path / "predictions.parquet"
    run("evaluate", folder, *where, "--mode", "trained", "--predictions", str(table), "--json")
    found = pq.read_table(table).to_pydict()
    assert len(found["record_id"]) == 12
    files = []
    for name in found["record_id"]:
        np.save(tmp_path / f"{name}.npy", made_ecg(int(name[1:])) / 1000)
        files.append(str(tmp_path / f"{name}.npy"))
    options = ["--rate", "100", "--unit", "mV", "--leads", "I,II,III,aVR,aVL,aVF,V1,V2,V3,V4,V5,V6"]
    said = json.loads(run("predict", folder, *files, *options, "--json").stdout)
    for place, each in enumerate(said["files"]):
        values = {one["label"]: one["probability"] for one in each["labels"]}
        values |= {one["name"]: one["value"] for one in each["numbers"]}
        assert len(values) == (1 if kind == "age" else 2)
        for name, value in values.items():
            assert value == pytest.approx(found[f"pretrained:{name}"][place], abs=1e-5)


def test_what_is_printed_and_drawn_of_a_number(made: Made, number: dict[str, Any], tmp_path: Path) -> None:
    folder = trained(made, tmp_path / "m", "attention", **number)
    np.save(tmp_path / "a.npy", made_ecg(2) / 1000)
    options = ["--rate", "100", "--unit", "mV", "--plot", str(tmp_path / "a.png")]
    leads = ["--leads", "I,II,III,aVR,aVL,aVF,V1,V2,V3,V4,V5,V6"]
    lines = run("predict", folder, str(tmp_path / "a.npy"), *options, *leads).stdout.splitlines()
    (value,) = (line for line in lines if line.startswith("  age: "))
    assert value.endswith(" years")
    assert lines[-2].startswith("task mine; numbers are those of logistic")
    assert lines[-1] == NOT_A_DEVICE
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_the_card_says_that_nobody_looked_at_the_test_split(made: Made, tmp_path: Path) -> None:
    card = (Path(trained(made, tmp_path / "m", "linear")) / "README.md").read_text()
    for said in (NOT_A_DEVICE, "validation_auroc 0.7500 after step 40", "the test split was not looked at"):
        assert said in card
    assert "AUROC |" not in card


def test_what_the_encoder_has_seen_is_not_kept_twice(made: Made, tmp_path: Path) -> None:
    folder = trained(made, tmp_path / "m", "linear")
    assert seen_by_head(folder) is None
    assert not any(path.name.startswith(("head_p", "head_w")) for path in Path(folder).iterdir())


def test_another_task_than_the_heads_is_refused(made: Made, number: dict[str, Any], tmp_path: Path) -> None:
    folder = trained(made, tmp_path / "m", "linear", **number)
    task = ["--task", made.task, "--corpus", str(made.corpus.location)]
    result = CliRunner().invoke(app, ["evaluate", folder, *task, "--mode", "trained"])
    assert result.exit_code == 1
    assert "predicts age, not task mine" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"unit": "years"}, "a number is one output, without a threshold"),
        ({"outputs": ["A", "A"]}, "names one twice"),
        ({"kind": "forest"}, "kind"),
    ],
    ids=str,
)
def test_what_a_head_says_of_itself_must_go_together(
    made: Made, changes: dict[str, Any], sentence: str
) -> None:
    values = load_classifier(made.classifier).config.model_dump()
    with pytest.raises(ConfigError, match=sentence):
        build(HeadConfig, values | changes)


def test_a_changed_threshold_is_noticed(made: Made, tmp_path: Path) -> None:
    shutil.copytree(trained(made, tmp_path / "m", "linear"), tmp_path / "copy")
    content = json.loads((tmp_path / "copy" / HEAD_CONFIG).read_text())
    (tmp_path / "copy" / HEAD_CONFIG).write_text(json.dumps(content | {"thresholds": [0.1, 0.2]}))
    result = CliRunner().invoke(app, ["predict", str(tmp_path / "copy"), "ecg.hea"])
    assert result.exit_code == 1
    assert "was changed after the head was fitted" in " ".join(result.stderr.split())
