"""The command line: what it prints, and that every error is one sentence and a non-zero exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from ecgdist.cli import app
from ecgdist.corpus import Corpus

COMMANDS = (
    "demo",
    "plan",
    "doctor",
    "pack",
    "inspect",
    "check-leak",
    "pretrain",
    "finetune",
    "sweep",
    "evaluate",
    "compare",
    "fit-head",
    "predict",
    "embed",
    "export",
    "report",
    "k8s",
    "jobs",
)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def failed(result: Result) -> str:
    """The one sentence of a command that must have failed."""
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.output
    return result.stderr


def test_the_installed_script_shows_its_commands() -> None:
    script = Path(sys.executable).with_name("ecgdist")
    shown = subprocess.run([script, "--help"], capture_output=True, text=True, check=True).stdout
    assert all(command in shown for command in COMMANDS)


def test_help_does_not_wait_for_torch_or_ray() -> None:
    code = "import sys, ecgdist.cli; print('torch' in sys.modules, 'ray' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.split() == ["False", "False"]


def test_dry_run_prints_the_resolved_configuration(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("corpus: a\nsteps: 10\ndata: {lanes: 8, global_batch: 64}\n")
    result = run(
        "pretrain",
        str(tmp_path / "c.yaml"),
        "--out",
        "o",
        "--workers",
        "2",
        "--set",
        "data.lanes=4",
        "--dry-run",
    )
    assert result.exit_code == 0, result.output
    shown = yaml.safe_load(result.stdout)
    assert (shown["corpus"], shown["out"], shown["workers"]["count"], shown["data"]["lanes"]) == (
        "a",
        "o",
        2,
        4,
    )
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["pretrain", "--corpus", "c"], "out is required and not given"),
        (["pretrain", "--corpus", "c", "--out", "o", "--set", "corpus=d"], "--set corpus is given twice"),
        (["pretrain", "--corpus", "c", "--out", "o", "--set", "optimizer.lr=1"], "unknown key optimizer.lr"),
        (["pretrain", "--corpus", "c", "--out", "o", "--set", "steps=0"], "steps = 0"),
        (
            ["pretrain", "--corpus", "c", "--out", "o", "--workers", "65"],
            "workers.count = 65 is more than data.lanes = 64",
        ),
        (
            ["pretrain", "--corpus", "c", "--out", "o", "--set", "data.global_batch=65"],
            "no multiple of data.lanes = 64",
        ),
        (["pretrain", "none.yaml", "--out", "o"], "none.yaml cannot be read"),
        (["pack", "ptbxl", "--out", "o"], "'ptbxl' is not of the form KIND=URI"),
        (["pack", "ptbxxl=x", "--out", "o"], "unknown source kind 'ptbxxl'"),
        (["pack", "wfdb=gs://x", "--out", "o"], "only local paths and s3://"),
        (["evaluate", "m", "--task", "nothing", "--corpus", "c"], "there is no task 'nothing'"),
        (["evaluate", "m", "--task", "ptbxl-super", "--corpus", "c", "--mode", "deep"], "mode = 'deep'"),
    ],
)
def test_wrong_arguments_are_named(
    arguments: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sentence in failed(run(*arguments))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["inspect", "none"], "is not a corpus: it has no manifest.json"),
        (["pretrain", "--corpus", "none", "--out", "o"], "is not a corpus"),
        (["evaluate", "none", "--task", "ptbxl-super", "--corpus", "c"], "is not a model folder"),
        (["export", "none", "--out", "o"], "is neither a run nor a model folder"),
        (
            ["fit-head", "none", "--task", "ptbxl-super", "--corpus", "c", "--out", "o"],
            "is not a model folder",
        ),
        (["predict", "none", "ecg.hea"], "is not a model folder"),
        (["embed", "none", "c", "--out", "o"], "is not a model folder"),
        (["report", "none"], "is not a run"),
        (["pack", "ptbxl=none", "--out", "o"], "ptbxl_database.csv"),
        (["pack", "wfdb=none", "--out", "o"], "none"),
    ],
)
def test_folders_that_are_not_there_are_named(
    arguments: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sentence in failed(run(*arguments))
    assert list(tmp_path.iterdir()) == []


def test_json_is_the_only_thing_on_standard_output(sample_corpus: Corpus) -> None:
    result = run("inspect", str(sample_corpus.location), "--json", "--verify")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert summary["records"] == 353
    assert summary["patients"] == 339
    assert summary["by_label"]["scp:NORM"] == 225
    assert summary["by_lead"] == dict.fromkeys(summary["by_lead"], 353)
    assert sum(summary["by_split"].values()) == 353
    assert list(summary["by_split"]) == [f"fold{number}" for number in range(1, 9)]


def test_inspect_writes_the_report_it_is_asked_for(sample_corpus: Corpus, tmp_path: Path) -> None:
    where = str(sample_corpus.location)
    result = run("inspect", where, "--html", str(tmp_path / "corpus.html"))
    assert result.exit_code == 0, result.output
    assert result.stdout == f"report written to {tmp_path}/corpus.html\n"
    assert "353 rows of 353 records, 339 patients" in (tmp_path / "corpus.html").read_text(encoding="utf-8")
    both = run("inspect", where, "--json", "--html", str(tmp_path / "again.html"))
    assert json.loads(both.stdout)["records"] == 353
    assert (tmp_path / "again.html").read_bytes() == (tmp_path / "corpus.html").read_bytes()


def test_inspect_prints_every_count(sample_corpus: Corpus) -> None:
    shown = run("inspect", str(sample_corpus.location)).stdout
    for title in (
        "records by source",
        "refused records by reason",
        "rows by label",
        "rows by lead",
        "rows by split",
    ):
        assert title in shown


def test_an_existing_folder_is_not_overwritten(sample_corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    sentence = failed(
        run(
            "pretrain",
            "--corpus",
            str(sample_corpus.location),
            "--out",
            str(tmp_path),
            "--set",
            "data.lanes=8",
        )
    )
    assert "exists and is not a run" in sentence
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
