"""Fine-tuning as a user starts it: Ray Train, DeepSpeed and storage together, on the shipped ECGs."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console
from safetensors.numpy import load_file
from typer.testing import CliRunner

from ecgdist.cli import app
from ecgdist.config import build
from ecgdist.corpus import Corpus
from ecgdist.downstream.classifier import HEAD_WEIGHTS, load_classifier
from ecgdist.downstream.finetuning.config import FineTuneConfig
from ecgdist.downstream.finetuning.job import finetune
from ecgdist.downstream.finetuning.plan import FineTunePlan
from ecgdist.downstream.scores import best_f1_thresholds
from ecgdist.errors import ConfigError, DataError
from ecgdist.modelfolder import load
from ecgdist.pretraining.checkpoint import CheckpointStore
from ecgdist.pretraining.export import export_model
from ecgdist.pretraining.metrics import read_metrics
from ecgdist.sample import sample_folder
from ecgdist.storage import Location
from ecgdist.streaming.pool import row_ids
from tests.downstream.test_leaks import model
from tests.pretraining.runs import largest_difference

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TIMES = {"ecg_per_s", "waiting_share", "seconds_per_step"}
NO_ROWS = np.arange(0)


@pytest.fixture(scope="module")
def pretrained(sample_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that has seen none of the shipped ECGs."""
    torch.manual_seed(5)
    return model(tmp_path_factory.mktemp("pretrained") / "model", sample_corpus, NO_ROWS)


def config(corpus: Corpus, pretrained: str | None, out: Path, **changes: Any) -> FineTuneConfig:
    values = {
        "corpus": corpus.location.uri,
        "out": str(out),
        "task": "ptbxl-super",
        "steps": 6,
        "evaluate_epochs": 0.5,
        "log_every_steps": 1,
        "data": {"lanes": 4, "global_batch": 32, "record_rows": str(out.parent / "rows")},
        "workers": {"count": 2},
        "layer_decay": 0.8,
        "augment": ["time_shift"],
        "checkpoint": {"keep_last": 4},
    } | changes
    return build(FineTuneConfig, values if pretrained is None else {"model": pretrained} | values)


def run(settings: FineTuneConfig) -> str:
    printed = io.StringIO()
    finetune(settings, Console(file=printed, width=200))
    return printed.getvalue()


def figures(folder: Path) -> list[dict[str, Any]]:
    rows = read_metrics(Location.of(folder))
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


@pytest.fixture(scope="module")
def finished(
    sample_corpus: Corpus, pretrained: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[FineTuneConfig, str]:
    """An unbroken run with what it printed."""
    settings = config(sample_corpus, pretrained, tmp_path_factory.mktemp("finetune") / "run")
    return settings, run(settings)


def test_it_says_what_it_does_and_where_the_model_is(finished: tuple[FineTuneConfig, str]) -> None:
    settings, printed = finished
    assert "fine-tuning vit tiny: PTB-XL diagnostic superclasses, 5 outputs, 231 training ECGs" in printed
    assert "step 6/6  loss 0." in printed
    assert "step 6: validation_auroc 0." in printed
    assert f"model written to {Path(settings.out) / 'model'}" in printed


def test_the_published_model_is_the_best_on_the_validation_split(
    finished: tuple[FineTuneConfig, str], sample_corpus: Corpus
) -> None:
    settings, _ = finished
    looks = [row for row in figures(Path(settings.out)) if "validation_auroc" in row]
    assert [row["step"] for row in looks] == [4, 6], "half of seven steps an epoch, and the last one"
    best = max(looks, key=lambda row: row["validation_auroc"])
    tuned = load_classifier(f"{settings.out}/model")
    assert (tuned.config.step, tuned.config.validation) == (
        best["step"],
        {"validation_auroc": best["validation_auroc"]},
    )
    goal = FineTunePlan.of(settings).goal
    predicted = tuned.predict_rows(sample_corpus, goal.validation_rows, 16)[goal.validation_rows]
    assert goal.figures(predicted)["validation_auroc"] == pytest.approx(best["validation_auroc"], abs=1e-9)
    truth = goal.targets[goal.validation_rows] == 1
    np.testing.assert_allclose(
        tuned.config.thresholds, best_f1_thresholds(truth, predicted), rtol=0, atol=1e-6
    )


def test_only_training_rows_are_trained_on(
    finished: tuple[FineTuneConfig, str], sample_corpus: Corpus
) -> None:
    settings, _ = finished
    files = sorted(Path(str(settings.data.record_rows)).rglob("*.jsonl"))
    used = {
        name
        for file in files
        for line in file.read_text().splitlines()
        for name in json.loads(line)["row_ids"]
    }
    train = FineTunePlan.of(settings).setup.splits.rows("train")
    names = row_ids(sample_corpus.columns("source", "record_id", "segment")).to_pylist()
    assert len(used) == 6 * 32
    assert used <= {name for name, is_train in zip(names, train, strict=True) if is_train}


def test_the_model_knows_whom_its_labels_came_from(
    finished: tuple[FineTuneConfig, str], sample_corpus: Corpus
) -> None:
    settings, _ = finished
    splits = FineTunePlan.of(settings).setup.splits
    keys = np.array(sample_corpus.columns("patient_key")["patient_key"].to_pylist())
    assert load(f"{settings.out}/model").patients == set(
        keys[splits.rows("train") | splits.rows("validation")]
    )
    card = (Path(settings.out) / "model/README.md").read_text()
    assert "on the labels of ptbxl-super, beginning with the weights" in card


def test_it_is_judged_on_the_test_split_and_again_by_the_printed_command(
    finished: tuple[FineTuneConfig, str],
) -> None:
    settings, _ = finished
    command = ["evaluate", f"{settings.out}/model", "--task", "ptbxl-super", "--corpus", settings.corpus]
    trained = [*command, "--mode", "trained", "--json", "--set", "resamples=100"]
    result = CliRunner().invoke(app, trained)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["mode"] == "trained"
    assert document["pretrained"]["inverse_regularisation"] is None
    looks = [row["validation_auroc"] for row in figures(Path(settings.out)) if "validation_auroc" in row]
    assert document["pretrained"]["validation_auroc"] == pytest.approx(max(looks), abs=1e-6)
    again = CliRunner().invoke(app, trained)
    assert json.loads(again.stdout) == document


def test_a_file_has_the_probabilities_that_the_evaluation_gives_its_record(
    finished: tuple[FineTuneConfig, str], tmp_path: Path
) -> None:
    settings, _ = finished
    model, table = f"{settings.out}/model", tmp_path / "predictions.parquet"
    command = ["evaluate", model, "--task", "ptbxl-super", "--corpus", settings.corpus, "--mode", "trained"]
    result = CliRunner().invoke(app, [*command, "--predictions", str(table), "--set", "resamples=100"])
    assert result.exit_code == 0, result.output
    rows = pq.read_table(table).to_pylist()[:5]
    files = [str(next(sample_folder().rglob(f"{int(row['record_id']):05d}_lr.hea"))) for row in rows]
    result = CliRunner().invoke(app, ["predict", model, *files, "--json"])
    assert result.exit_code == 0, result.output
    for row, said in zip(rows, json.loads(result.stdout)["files"], strict=True):
        for each in said["labels"]:
            assert each["probability"] == pytest.approx(row[f"pretrained:{each['label']}"], abs=1e-5)
        assert [each["label"] for each in said["labels"]] == ["NORM", "MI", "STTC", "CD", "HYP"]
        assert not said["trained_on"]


def test_the_same_command_again_has_nothing_to_do(finished: tuple[FineTuneConfig, str]) -> None:
    assert "is finished: its model is in" in run(finished[0])


def test_another_model_or_another_kind_of_run_is_refused(
    finished: tuple[FineTuneConfig, str], sample_corpus: Corpus, tmp_path: Path
) -> None:
    settings, _ = finished
    torch.manual_seed(6)
    other = model(tmp_path / "other", sample_corpus, NO_ROWS)
    with pytest.raises(ConfigError, match=r"model_hash was .* is now"):
        run(settings.model_copy(update={"model": other}))
    with pytest.raises(DataError, match="is a run of fine-tuning, not of pretraining"):
        export_model(Location.of(settings.out), Location.of(tmp_path / "exported"))


def test_a_changed_readout_is_noticed_and_an_encoder_alone_predicts_nothing(
    finished: tuple[FineTuneConfig, str], pretrained: str, tmp_path: Path
) -> None:
    copy = tmp_path / "model"
    shutil.copytree(Path(finished[0].out) / "model", copy)
    weights = copy / HEAD_WEIGHTS
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(DataError, match="differs from its sha256"):
        load_classifier(str(copy))
    with pytest.raises(DataError, match="gives embeddings and no probabilities"):
        load_classifier(pretrained)


def test_test_patients_of_pretraining_are_refused(sample_corpus: Corpus, tmp_path: Path) -> None:
    seen = np.arange(sample_corpus.manifest.rows)
    leaky = model(tmp_path / "leaky", sample_corpus, seen)
    with pytest.raises(DataError, match="patients are in the pretraining corpus"):
        run(config(sample_corpus, leaky, tmp_path / "run"))


def test_a_run_that_goes_on_from_an_earlier_look_comes_out_equal_to_the_last_bit(
    finished: tuple[FineTuneConfig, str], tmp_path: Path
) -> None:
    settings, _ = finished
    folder = tmp_path / "run"
    shutil.copytree(settings.out, folder)
    for path in sorted((folder / "checkpoints").iterdir())[1:]:
        shutil.rmtree(path)
    shutil.rmtree(folder / "model")
    printed = run(settings.model_copy(update={"out": str(folder)}))
    assert "resumed from checkpoint step-00000004" in printed
    assert figures(folder) == figures(Path(settings.out))
    for file in ("model.safetensors", HEAD_WEIGHTS):
        found, expected = load_file(folder / "model" / file), load_file(Path(settings.out) / "model" / file)
        assert largest_difference(found, expected) == 0


def test_an_interrupted_export_is_made_again_without_training(
    finished: tuple[FineTuneConfig, str], tmp_path: Path
) -> None:
    settings, _ = finished
    folder = tmp_path / "run"
    shutil.copytree(settings.out, folder)
    (folder / "model/config.json").unlink()
    (folder / "model" / HEAD_WEIGHTS).write_bytes(b"half")
    with pytest.raises(DataError, match="is not a model folder"):
        load_classifier(str(folder / "model"))
    printed = run(settings.model_copy(update={"out": str(folder)}))
    assert "step 6/6" not in printed
    assert figures(folder) == figures(Path(settings.out))
    again, before = (load_classifier(str(where / "model")) for where in (folder, Path(settings.out)))
    assert again.model.model_hash == before.model.model_hash
    assert again.config.thresholds == before.config.thresholds


def test_it_ends_when_the_validation_split_gets_no_better(
    sample_corpus: Corpus, pretrained: str, tmp_path: Path
) -> None:
    settings = config(
        sample_corpus,
        pretrained,
        tmp_path / "run",
        steps=200,
        patience=2,
        evaluate_epochs=0.3,
        mode="attention",
        layer_decay=1.0,
        workers={"count": 1},
        optimizer={"learning_rate": 0.3},
    )
    printed = run(settings)
    looks = [row for row in figures(Path(settings.out)) if "validation_auroc" in row]
    values = [row["validation_auroc"] for row in looks]
    assert looks[-1]["step"] < 200
    assert values.index(max(values)) == len(values) - 3
    best = CheckpointStore(Location.of(settings.out)).best()
    assert best is not None
    assert best.startswith(f"step-{looks[-3]['step']:08d}")
    assert "model written to" in printed
    before, after = load(pretrained), load(f"{settings.out}/model")
    assert after.model_hash == before.model_hash, "the encoder is frozen"
    assert "is finished" in run(settings)


@pytest.mark.parametrize("encoder", ["xresnet", "s4d"])
def test_a_supervised_baseline_learns_an_age_from_scratch(
    sample_corpus: Corpus, tmp_path: Path, encoder: str
) -> None:
    settings = config(
        sample_corpus,
        None,
        tmp_path / "run",
        mode="scratch",
        task="age",
        encoder={"kind": encoder, "size": "tiny"},
        layer_decay=1.0,
        engine={"zero_stage": 2},
        readout={"dropout": 0.1},
    )
    run(settings)
    command = ["evaluate", f"{settings.out}/model", "--task", "age", "--corpus", settings.corpus]
    result = CliRunner().invoke(app, [*command, "--mode", "trained", "--json", "--set", "resamples=100"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["kind"] == "regression"
    assert 0 < document["pretrained"]["metrics"]["mae"]["value"] < 40
