"""`ecgdist fit-head`: the probe of an evaluation, kept; its figures are those of the head that predicts."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ecgdist.cli import app
from ecgdist.downstream.classifier import load_classifier, seen_by_head
from ecgdist.downstream.evaluate import Setup, evaluate, features
from ecgdist.downstream.fithead import fit_head, probe_head
from ecgdist.downstream.headcard import HEAD_CONFIG
from ecgdist.downstream.probe import linear_probe
from ecgdist.errors import ConfigError, DataError
from ecgdist.modelcard import NOT_A_DEVICE
from ecgdist.modelfolder import load
from ecgdist.storage import Location
from tests.downstream.classifiers import Made, made
from tests.downstream.test_leaks import TASK

__all__ = ["made"]


def test_the_head_is_the_probe_as_a_loop_computes_it() -> None:
    random = np.random.default_rng(1)
    x = random.normal(3, [0.1, 5, 40], (300, 3)).astype(np.float32)
    y = (x - 3) / [0.1, 5, 40] @ random.normal(size=(3, 2)) + random.normal(size=(300, 2)) > 0
    probed = linear_probe(x[:200], y[:200], x[200:250], y[200:250], x[250:], ["A", "B"])
    head = probe_head(probed)
    np.testing.assert_allclose(head.probabilities(x[250:]), probed.test, rtol=0, atol=1e-12)
    by_hand = np.zeros((50, 2))
    for n, row in enumerate(x[250:].astype(float)):
        for label, fit in enumerate(probed.models):
            logit = fit.intercept_[0]
            for w, value, column in zip(fit.coef_[0], row, x[:200].T.astype(float), strict=True):
                logit += w * (value - column.mean()) / column.std()
            by_hand[n, label] = 1 / (1 + np.exp(-logit))
    np.testing.assert_allclose(head.probabilities(x[250:]), by_hand, rtol=0, atol=1e-9)


def test_thresholds_and_figures_are_those_of_the_head(made: Made) -> None:
    """Counted one by one, at the thresholds that the head predicts by."""
    classifier, setup = load_classifier(made.classifier), Setup.of(made.config(), made.corpus)
    found = features(classifier.model, made.corpus, setup.rows, 64)
    probability = classifier.head.probabilities(found)
    truth = np.array([["x:a" in codes, "x:b" in codes] for codes in setup.index["labels"]])
    validation, test = setup.splits.rows("validation"), setup.splits.rows("test")
    for n, (threshold, figures) in enumerate(
        zip(classifier.config.thresholds, classifier.config.metrics.labels, strict=True)
    ):
        f1 = {}
        for cut in probability[validation, n]:
            said, true = probability[validation, n] >= cut, truth[validation, n]
            f1[cut] = 2 * (said & true).sum() / (said.sum() + true.sum())
        # The head's own arithmetic may differ from scikit-learn's in the last bits.
        nearest = min(f1, key=lambda cut: abs(cut - threshold))
        assert nearest == pytest.approx(threshold, rel=1e-9)
        assert f1[nearest] == max(f1.values())
        said, true = probability[test, n] >= threshold, truth[test, n]
        assert figures.sensitivity.value == pytest.approx((said & true).sum() / true.sum())
        assert figures.specificity.value == pytest.approx((~said & ~true).sum() / (~true).sum())
        assert figures.f1_threshold == figures.specificity_threshold == threshold
        assert figures.auroc.low <= figures.auroc.value <= figures.auroc.high


def test_its_auroc_is_that_of_the_evaluation(made: Made) -> None:
    figures = evaluate(made.config()).pretrained.metrics
    assert load_classifier(made.classifier).config.metrics.macro.auroc == figures.macro.auroc


def test_what_it_was_fitted_on_is_remembered(made: Made) -> None:
    """Train and validation, not test."""
    seen = seen_by_head(made.classifier)
    assert seen is not None
    facts = made.corpus.columns("patient_key", "split")
    fitted = [split in ("one", "two") for split in facts["split"].to_pylist()]
    keys = np.array(facts["patient_key"].to_pylist())
    assert set(seen.patients) == set(keys[fitted])
    expected = {bytes(row) for row in made.corpus.fingerprints[fitted]}
    assert {bytes(row) for row in seen.waveforms} == expected
    assert load(made.classifier).patients == frozenset()


def test_an_evaluation_finds_test_patients_of_the_heads_training(made: Made) -> None:
    folds = {"train": ["three"], "validation": ["two"], "test": ["one"]}
    with pytest.raises(DataError, match="12 of 12 test patients are among those that the head in the model"):
        evaluate(made.config(model=made.classifier, folds=folds))
    allowed = evaluate(made.config(model=made.classifier, folds=folds, allow_leak=True))
    assert allowed.warnings[0].startswith("LEAK: 12 of 12 test patients are among those that the head")
    for config in (made.config(folds=folds), made.config(model=made.classifier)):
        assert not any("LEAK" in warning for warning in evaluate(config).warnings)


def test_the_command_in_it_fits_the_same_head_again(made: Made, tmp_path: Path) -> None:
    first = json.loads((Path(made.classifier) / HEAD_CONFIG).read_text())
    command = shlex.split(first["command"])
    assert command[:2] == ["ecgdist", "fit-head"]
    command[command.index("--out") + 1] = str(tmp_path / "again")
    result = CliRunner().invoke(app, command[1:])
    assert result.exit_code == 0, result.output
    assert NOT_A_DEVICE in result.stdout
    again = json.loads((tmp_path / "again" / HEAD_CONFIG).read_text())
    differing = {name for name in first if first[name] != again[name]}
    assert differing == {"command", "classifier_hash"}


def test_labels_of_your_own_and_those_that_cannot_be_fitted(made: Made, tmp_path: Path) -> None:
    lines = [f"r{n},{n // 3 % 2},0,{('train', 'validation', 'test')[n % 3]}" for n in range(36)]
    (tmp_path / "own.csv").write_text("\n".join(["record_id,AF,never,split", *lines]))
    found = fit_head(made.config(task=str(tmp_path / "own.csv")), Location.of(tmp_path / "c"))
    assert found.config.outputs == ("AF",)
    assert found.config.left_out == {"never": "none of the 12 training records has it"}
    assert "Without never: none of the 12" in (tmp_path / "c/README.md").read_text()


def test_a_task_of_numbers_is_refused_before_anything_is_read(tmp_path: Path, made: Made) -> None:
    age = TASK.replace("multilabel", "regression").replace(
        'labels: {A: ["x:a"], B: ["x:b"]}', "target: age, unit: years"
    )
    (tmp_path / "age.yaml").write_text(age)
    with pytest.raises(ConfigError, match="predicts a number; a head is fitted for tasks with labels"):
        fit_head(made.config(task=str(tmp_path / "age.yaml"), model="/nowhere"), Location.of(tmp_path / "c"))


def test_a_folder_that_is_not_empty_is_refused_before_anything_is_read(made: Made) -> None:
    with pytest.raises(DataError, match="exists and is not empty; choose another --out"):
        fit_head(made.config(model="/nowhere"), Location.of(made.classifier))
