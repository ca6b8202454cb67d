"""An evaluation: the proof beside the figures, warnings, JSON and the console table."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from ecgdist.downstream.evaluation import Evaluation, Provenance, compare
from ecgdist.downstream.tasks import assign_splits, load_task, targets
from tests.downstream.tables import make_index

TASK = load_task("ptbxl-super")
PROVENANCE = Provenance(corpus_id="c0ffee", model_hash="beef", seeds={"pretraining": 7})


def evaluate(index: pd.DataFrame, noise: float = 1.0) -> Evaluation:
    rng = np.random.default_rng(0)
    truth = targets(index, TASK)[0]
    good = truth + rng.normal(0, noise, truth.shape)
    blind = rng.normal(size=(len(index), 5))
    return compare(index, TASK, assign_splits(index, TASK), good, blind, PROVENANCE, resamples=100, seed=3)


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return evaluate(make_index(300))


def test_figures_come_with_their_proof(evaluation: Evaluation) -> None:
    index = make_index(300)
    splits = assign_splits(index, TASK)
    assert evaluation.split_digest == splits.digest
    assert evaluation.provenance.corpus_id == "c0ffee"
    assert evaluation.provenance.model_hash == "beef"
    assert evaluation.provenance.seeds == {"pretraining": 7, "bootstrap": 3}
    assert {split: size.records for split, size in evaluation.counts.items()} == {
        split: int(splits.rows(split).sum()) for split in ("train", "validation", "test")
    }
    assert evaluation.counts["test"].patients == 30
    assert "bootstrap over test patients" in evaluation.method


def test_better_features_win_by_the_paired_difference(evaluation: Evaluation) -> None:
    ours, other = evaluation.pretrained.metrics.macro.auroc, evaluation.random_encoder.metrics.macro.auroc
    assert evaluation.difference.auroc.value == pytest.approx(ours.value - other.value)
    assert evaluation.difference.auroc.low > 0


def test_same_inputs_same_evaluation_and_json_round_trip(evaluation: Evaluation) -> None:
    assert evaluate(make_index(300)) == evaluation
    assert Evaluation.model_validate_json(evaluation.model_dump_json()) == evaluation


def test_small_sample_and_divided_folds_are_said(evaluation: Evaluation) -> None:
    assert any("the sample is small: 40 test records of 30 patients" in w for w in evaluation.warnings)
    divided = evaluate(make_index(300, folds=tuple(f"fold{k}" for k in range(1, 9))))
    assert any("NOT the official split" in warning for warning in divided.warnings)


def test_large_official_test_split_has_no_warning() -> None:
    assert evaluate(make_index(4000)).warnings == ()


def test_rare_and_missing_labels_are_named() -> None:
    index = make_index(300)
    test = index["split"] == "fold10"
    index["labels"] = [
        [code for code in codes if code not in ("scp:LVH", "scp:CRBBB")] + ["scp:NORM"]
        for codes in index["labels"]
    ]
    index.at[index.index[test][0], "labels"] = ["scp:CRBBB"]
    index.at[index.index[~test][0], "labels"] = ["scp:CRBBB"]
    evaluation = evaluate(index)
    assert "CD" in evaluation.pretrained.metrics.few
    assert any("label HYP is left out: none of the" in warning for warning in evaluation.warnings)
    assert any("fewer than 10 test positives" in warning for warning in evaluation.warnings)
    assert evaluation.difference_common is not None
    assert any("labels with 10 or more positives" in name for name, _ in evaluation.macro_rows())


def test_table_shows_every_figure(evaluation: Evaluation) -> None:
    console = Console(width=160)
    with console.capture() as captured:
        console.print(evaluation.to_table())
    text = captured.get()
    for macros in (evaluation.pretrained.metrics.macro, evaluation.difference):
        for figure in (macros.auroc, macros.auprc, macros.f1):
            assert str(figure) in text
    for row in evaluation.pretrained.metrics.labels:
        assert str(row.auroc) in text
    assert "the sample is small" in text
