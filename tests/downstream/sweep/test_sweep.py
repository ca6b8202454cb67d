"""A sweep as a user starts it, and killed: what is done is not done again, what was cut goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
import yaml

from ecgdist.config import build
from ecgdist.corpus import Corpus
from ecgdist.downstream.schema import read_evaluation
from ecgdist.downstream.sweep.config import SweepConfig
from ecgdist.downstream.sweep.job import sweep
from ecgdist.errors import DataError
from tests.downstream.test_leaks import model
from tests.packing.kills import descendants

TRIALS = 4
_DEADLINE_S = 400


@pytest.fixture(scope="module")
def config(sample_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of four trials, two at a time, with halving."""
    folder = tmp_path_factory.mktemp("sweep")
    torch.manual_seed(5)
    pretrained = model(folder / "model", sample_corpus, np.arange(0))
    content = {
        "finetune": {
            "model": pretrained,
            "task": "ptbxl-super",
            "corpus": sample_corpus.location.uri,
            "steps": 12,
            "evaluate_epochs": 0.3,
            "data": {"lanes": 2, "global_batch": 32},
        },
        "space": {"optimizer.learning_rate": {"low": 1e-5, "high": 1e-2, "log": True}},
        "trials": TRIALS,
        "concurrent": 2,
        "seed": 1,
        "resamples": 100,
        "halving": {"grace_samples": 64, "factor": 2},
    }
    (folder / "sweep.yaml").write_text(yaml.safe_dump(content))
    return folder / "sweep.yaml"


def start(config: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ecgdist.cli", "sweep", str(config), "--out", str(out)]
    with (out.parent / "log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def finish(process: subprocess.Popen[bytes], out: Path) -> dict[str, Any]:
    assert process.wait(_DEADLINE_S) == 0, (out.parent / "log").read_text()[-3000:]
    found: dict[str, Any] = json.loads((out / "results.json").read_text())
    return found


@pytest.fixture(scope="module")
def unbroken(config: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A sweep that nothing disturbs."""
    out = tmp_path_factory.mktemp("unbroken") / "sweep"
    return out, finish(start(config, out), out)


@pytest.mark.ray
@pytest.mark.slow
def test_what_comes_out(unbroken: tuple[Path, dict[str, Any]]) -> None:
    out, result = unbroken
    values = {each["record"]["number"]: each["value"] for each in result["outcomes"]}
    assert sorted(values) == list(range(TRIALS))
    assert values[result["chosen"]] == max(values.values())
    assert result["model"] == str(out / f"trials/{result['chosen']:05d}/model")
    evaluation = read_evaluation((out / "evaluation.json").read_bytes(), "evaluation.json")
    assert evaluation.mode == "trained"
    assert len((out / "trials.csv").read_text().splitlines()) == 1 + TRIALS
    assert 'optimizer={"learning_rate": ' in result["command"]
    ends = [max(steps_of(out, number)) for number in range(TRIALS)]
    assert min(ends) < 12, "some trial was ended by the others"
    assert max(ends) == 12


def steps_of(out: Path, number: int) -> list[int]:
    lines = (out / f"trials/{number:05d}/metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


@pytest.mark.ray
def test_a_model_that_has_seen_test_patients_is_refused_before_any_trial(
    config: Path, sample_corpus: Corpus, tmp_path: Path
) -> None:
    leaky = model(tmp_path / "leaky", sample_corpus, np.arange(sample_corpus.manifest.rows))
    values = yaml.safe_load(config.read_text()) | {"out": str(tmp_path / "sweep")}
    values["finetune"]["model"] = leaky
    with pytest.raises(DataError, match="patients are in the pretraining corpus"):
        sweep(build(SweepConfig, values))
    assert not (tmp_path / "sweep/trials").exists()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(n, marks=pytest.mark.long) for n in range(2, 10))])
def test_a_killed_sweep_goes_on_to_the_same_result(
    config: Path, unbroken: tuple[Path, dict[str, Any]], tmp_path: Path, seed: int
) -> None:
    _, expected = unbroken
    out = tmp_path / "sweep"
    draw = np.random.default_rng(seed)
    process = start(config, out)
    # Once a chosen number of looks is there: the moment of a kill then means the same on a slow machine.
    wait_for_looks(process, out, int(draw.integers(1, 8)))
    orphans = descendants(process.pid)[1:]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = {
        path.parent.parent.name: path.stat().st_mtime_ns for path in out.glob("trials/*/model/config.json")
    }
    _, left = psutil.wait_procs(orphans, timeout=120)
    assert not left
    found = finish(start(config, out), out)
    for trial, written in done.items():
        assert (out / f"trials/{trial}/model/config.json").stat().st_mtime_ns == written, "it was run again"
    assert found["outcomes"] == expected["outcomes"]
    assert found["chosen"] == expected["chosen"]
    first, second = ((folder / "evaluation.json").read_bytes() for folder in (unbroken[0], out))
    assert json.loads(first)["pretrained"] == json.loads(second)["pretrained"]


def wait_for_looks(process: subprocess.Popen[bytes], out: Path, count: int) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while (
        sum(path.read_text().count("validation_auroc") for path in out.glob("trials/*/metrics.jsonl")) < count
    ):
        assert process.poll() is None, (out.parent / "log").read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.2)
