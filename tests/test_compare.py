"""`ecgdist compare`: every arm with every seed, judged alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from ecgdist.cli import app
from ecgdist.compare import SCRATCH, CompareConfig, compare
from ecgdist.config import build
from ecgdist.corpus import Corpus
from ecgdist.errors import ConfigError, DataError
from tests.test_readme import blocks

PRETRAIN: dict[str, Any] = {
    "corpus": "corpus",
    "steps": 2,
    "log_every_steps": 1,
    "data": {"lanes": 8, "global_batch": 64, "shuffle_rows": 256, "exclude_splits": ["fold7", "fold8"]},
    "encoder": {"size": "tiny"},
    "objective": {"contrastive": {"temperature": 0.1}},
}
CONFIG = {"out": "/out", "task": "ptbxl-super", "pretrain": PRETRAIN}


def test_the_arms_differ_in_nothing_but_their_weights() -> None:
    config = build(CompareConfig, CONFIG)
    runs = {arm: config.run(arm, 2) for arm in config.arms}
    weights = {
        arm: (run.objective.generative.weight, run.objective.contrastive.weight) for arm, run in runs.items()
    }
    assert weights == {"GL": (1, 0), "CL": (0, 1), "HL": (1, 1)}
    assert {run.out for run in runs.values()} == {f"/out/runs/{arm}-seed-2" for arm in runs}
    assert all(run.objective.contrastive.temperature == 0.1 and run.seed == 2 for run in runs.values())
    rest = [run.model_dump(exclude={"objective", "out"}) for run in runs.values()]
    assert rest[0] == rest[1] == rest[2]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"arms": {"a/b": {}}}, "an arm cannot be called 'a/b'"),
        ({"arms": {SCRATCH: {}}}, "another name than scratch"),
        ({"arms": {"CL": {"contrastive": {"method": "byol", "temperature": 0.1}}}}, "arm CL: .*byol divides"),
        ({"pretrain": PRETRAIN | {"seed": 1}}, "pretrain.seed is set for each arm and seed"),
        ({"pretrain": PRETRAIN | {"stepz": 1}}, "did you mean steps"),
        ({"seeds": [1, 1]}, "names one twice"),
        ({"seeds": []}, "seeds"),
    ],
)
def test_a_comparison_that_means_nothing_is_refused(values: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build(CompareConfig, CONFIG | values)


def test_a_task_without_labels_is_refused_before_anything_is_trained() -> None:
    with pytest.raises(
        ConfigError, match="task ptbxl-age predicts a number; a comparison needs a task with labels"
    ):
        compare(build(CompareConfig, CONFIG | {"task": "ptbxl-age"}), Console())


@pytest.mark.ray
def test_arms_that_would_have_seen_the_test_patients_are_refused_before_anything_is_trained(
    sample_corpus: Corpus, tmp_path: Path
) -> None:
    pretrain = PRETRAIN | {
        "corpus": sample_corpus.location.uri,
        "data": {**PRETRAIN["data"], "exclude_splits": ["fold8"]},
    }
    values = CONFIG | {"out": str(tmp_path / "out"), "pretrain": pretrain}
    with pytest.raises(DataError, match=r"\d+ of \d+ test patients are in the pretraining corpus"):
        compare(build(CompareConfig, values), Console())
    assert not (tmp_path / "out").exists()


@pytest.mark.ray
@pytest.mark.slow
def test_every_arm_is_trained_and_judged_and_the_same_command_goes_on(
    sample_corpus: Corpus, tmp_path: Path
) -> None:
    """The README's comparison, with fewer steps and seeds."""
    file, out = tmp_path / "compare.yaml", tmp_path / "out"
    file.write_text(blocks("yaml")[3])
    changes = ("seeds=[0]", "resamples=100", "pretrain.steps=2", "pretrain.log_every_steps=1")
    command = ["compare", str(file), "--out", str(out), "--corpus", str(sample_corpus.location)]
    command += [word for change in changes for word in ("--set", change)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    found = json.loads((out / "comparison.json").read_text())
    assert [arm["arm"] for arm in found["arms"]] == [SCRATCH, "GL", "CL", "HL", "SimCLR", "WCR"]
    assert len({tuple(arm["model_hashes"]) for arm in found["arms"]}) == 6
    assert len(found["differences"]) == 15
    assert found["retrieval_batch"] == 64
    for arm in found["arms"]:
        assert 0 < arm["macro"]["auroc"]["low"] <= arm["macro"]["auroc"]["value"] <= 1
        assert (arm["training"] is None) == (arm["arm"] == SCRATCH)
        if arm["training"]:
            rows = [
                json.loads(line)
                for line in (out / f"runs/{arm['arm']}-seed-0/metrics.jsonl").read_text().splitlines()
            ]
            assert arm["training"]["minutes"] == pytest.approx(
                sum(row["seconds_per_step"] for row in rows) / 60
            )
    text = (out / "comparison.md").read_text()
    assert "| HL |" in text
    assert (out / "comparison.svg").read_bytes().startswith(b"<?xml")
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 0, again.output
    assert again.output.count("is finished") == 5
    assert (out / "comparison.md").read_text() == text
