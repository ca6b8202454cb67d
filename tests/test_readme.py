"""What the README shows is run again: its commands, its Python, and the shape of the output."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import ray
import torch
import yaml
from typer.testing import CliRunner

from ecgdist.cli import app
from ecgdist.compare import CompareConfig
from ecgdist.config import build
from ecgdist.downstream.own_labels import OwnLabels
from ecgdist.downstream.tasks import MultilabelTask, load_task, task_names
from ecgdist.objectives.hybrid import PretrainingModule
from ecgdist.pretraining.config import PretrainConfig

README = Path(__file__).parent.parent / "README.md"


def blocks(language: str) -> list[str]:
    """The README's code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.M | re.S)


def shape(line: str) -> str:
    """A line without what differs from run to run: numbers, hashes, paths, column widths."""
    line = re.sub(r"\b[0-9a-f]{8,}\b", "#", line)
    line = re.sub(r"(?:/\S+/|\b)demo/", "DEMO/", line)
    line = re.sub(r"[-+]?\d[\d.,:]*(?:e[-+]\d+)?%?", "#", line)
    return re.sub(r"[\s─━]+", " ", line).strip()


def test_make_targets_exist() -> None:
    shown = set(re.findall(r"^make (\S+)", "\n".join(blocks("bash")), re.M))
    makefile = (README.parent / "Makefile").read_text()
    assert shown == {"demo", "test"}
    assert all(re.search(rf"^{target}:", makefile, re.M) for target in shown)


def test_the_settings_of_a_long_run_are_valid() -> None:
    text, *_ = blocks("yaml")
    config = PretrainConfig.model_validate({"corpus": "corpus", "out": "run"} | yaml.safe_load(text))
    default = PretrainConfig(corpus="corpus", out="run")
    assert config.workers.is_elastic
    said = {line.split(":")[0].strip() for line in text.splitlines() if "the default" in line}
    assert said == {"every_minutes", "keep_last"}
    for name in said:
        assert getattr(config.checkpoint, name) == getattr(default.checkpoint, name)


def test_the_choices_are_valid_together() -> None:
    text = blocks("yaml")[1]
    config = PretrainConfig.model_validate({"corpus": "corpus", "out": "run"} | yaml.safe_load(text))
    assert config.encoder.tokens == "lead_time"
    assert [each.p for each in config.augment.student] == [0.5, 0.3]


def test_wcr_is_what_is_shown() -> None:
    text = blocks("yaml")[2]
    config = PretrainConfig.model_validate({"corpus": "corpus", "out": "run"} | yaml.safe_load(text))
    objective = config.objective
    assert (objective.generative.method, objective.contrastive.method) == ("wav2vec", "cmsc")
    assert [each.name for each in (*config.augment.student, *config.augment.teacher)] == ["lead_drop"] * 2
    window_samples = round(config.device.window_s * 250)
    with torch.device("meta"):
        module = PretrainingModule(config.encoder, objective, window_samples)
    assert module.num_tokens == 125


def test_the_comparison_is_valid_and_its_defaults_are_the_defaults() -> None:
    text = blocks("yaml")[3]
    config = build(CompareConfig, {"out": "comparison"} | yaml.safe_load(text))
    default = build(CompareConfig, {"out": "comparison", "task": "ptbxl-super", "pretrain": config.pretrain})
    assert config.seeds == default.seeds
    assert dict(list(config.arms.items())[:3]) == default.arms


def test_the_tasks_are_those_that_ship_with_their_numbers_of_labels() -> None:
    section = README.read_text().partition("## Evaluate")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("| `")]
    named: dict[str, int | None] = {}
    for names, labels in rows:
        shown = re.findall(r"`([^`]+)`", names)
        full = [name if not name.startswith("-") else f"ptbxl{name}" for name in shown]
        counts = [int(count) for count in re.findall(r"\b\d+\b", labels)][: len(full)]
        words = {"nine": 9, "six": 6}
        counts = counts or [words[word] for word in words if word in labels]
        named |= dict(zip(full, counts or [None] * len(full), strict=False))
    shipped = {name: load_task(name) for name in task_names()}
    assert set(named) - {"TASK", "FILE.yaml", "FILE.csv"} == set(shipped)
    for name, task in shipped.items():
        if isinstance(task, MultilabelTask):
            assert named[name] == len(task.labels), name


def test_the_table_of_labels_is_one(tmp_path: Path) -> None:
    (text,) = blocks("csv")
    (tmp_path / "own.csv").write_text(text)
    task = OwnLabels.read(str(tmp_path / "own.csv")).task
    assert isinstance(task, MultilabelTask)
    assert list(task.labels) == ["AF", "LVH"]


def test_the_options_before_a_run_exist() -> None:
    section = README.read_text().partition("## Before a run")[2].partition("\n## ")[0]
    planning, doctoring = section.split("`ecgdist doctor [run.yaml]`")
    for text, command in ((planning, ["plan", "pretrain"]), (doctoring, ["doctor"])):
        named = set(re.findall(r"--[a-z-]+", text))
        result = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200"})
        assert named
        assert named <= set(re.findall(r"--[a-z-]+", result.output)), command


def test_the_tests_of_the_promises_exist() -> None:
    table = README.read_text().partition("## What it promises")[2].partition("\n## ")[0]
    named = re.findall(r"`((?:tests/|test_)[^`]*|[A-Z]+\.md)`", table)
    assert len(named) > 40
    for name in named:
        pattern = name.removeprefix("tests/").rstrip("/")
        assert list((README.parent / "tests").rglob(pattern)), name


@pytest.mark.ray
def test_the_demo_prints_what_the_readme_expects(demo: tuple[Path, str]) -> None:
    (expected,) = blocks("text")
    printed = {shape(line.replace(f"{demo[0]}/", "demo/")) for line in demo[1].splitlines()}
    missing = [line for line in expected.splitlines() if line.strip() != "..." and shape(line) not in printed]
    assert not missing, f"not printed by the demo: {missing}"


def execute(program: list[str], folder: Path) -> str:
    """What a program prints that runs in a folder."""
    # On the tests' cluster, as the README says of RAY_ADDRESS: a second one would not fit into the tests' memory.
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAY_ADDRESS": ray.get_runtime_context().gcs_address,
    }
    done = subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def bash(script: str, folder: Path) -> str:
    return execute(["bash", "-euo", "pipefail", "-c", script], folder)


@pytest.fixture(scope="module")
def shown(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the first commands were run as shown."""
    folder = tmp_path_factory.mktemp("readme")
    (commands,) = (block for block in blocks("bash") if "ecgdist pack" in block)
    script = commands.replace(". .venv/bin/activate\n", "")
    assert script != commands
    bash(script, folder)
    return folder


@pytest.mark.ray
@pytest.mark.slow
def test_the_commands_run_as_shown(shown: Path) -> None:
    assert execute([sys.executable, "-c", blocks("python")[0]], shown) == "(128,)\n"
    for made in (
        "corpus/manifest.json",
        "run/model/model.safetensors",
        "run/report/index.html",
        "model/config.json",
    ):
        assert (shown / made).is_file()


@pytest.mark.ray
@pytest.mark.slow
def test_a_model_is_used_as_shown(shown: Path) -> None:
    (first,) = (block for block in blocks("bash") if "ecgdist pack" in block)
    (commands,) = (block for block in blocks("bash") if "ecgdist fit-head" in block)
    (ecgs,) = re.findall(r"^ECGS=.*$", first, re.M)
    assert "Not a medical device." in bash(f"{ecgs}\n{commands}", shown)
    for made in ("classifier/head.json", "ecg.png", "embeddings/manifest.json", "encoder.pt2"):
        assert (shown / made).is_file()
    assert json.loads((shown / "prediction.json").read_text())["task"] == "ptbxl-super"
    printed = execute([sys.executable, "-c", blocks("python")[1]], shown)
    assert printed == "['windows', 'valid_samples', 'lead_mask'] 0.67\n"


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_model_is_fine_tuned_and_swept_as_shown(shown: Path) -> None:
    (commands,) = (block for block in blocks("bash") if "ecgdist finetune" in block)
    set_before = [re.findall(rf"^{name}=.*$", README.read_text(), re.M)[0] for name in ("ECGS", "ECG")]
    printed = bash("\n".join([*set_before, commands]), shown)
    assert "trial 2 ended" in printed
    assert "best model:" in printed
    for made in ("tuned/model/head.json", "tuned.html", "sweep/results.json", "sweep/evaluation.json"):
        assert (shown / made).is_file()
    assert "task ptbxl-super; probabilities are those of a model trained on labels" in printed
    for made in (
        "sweep/report.html",
        "benchmark/benchmark.md",
        "benchmark/benchmark.json",
        "benchmark/benchmark.svg",
    ):
        assert (shown / made).is_file()
