"""An evaluation: the proof beside the figures, warnings, JSON and the console table."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from ecgdist.downstream.assign import assign_splits
from ecgdist.downstream.label_evaluation import MultilabelEvaluation, compare_labels
from ecgdist.downstream.scores import METRICS
from ecgdist.downstream.subgroups import subgroups
from ecgdist.downstream.tasks import load_task
from tests.downstream.tables import PROVENANCE, make_index

TASK = load_task("ptbxl-super")


def evaluate(index: pd.DataFrame, noise: float = 1.0) -> MultilabelEvaluation:
    rng = np.random.default_rng(0)
    truth = TASK.truth(index)
    good = truth + rng.normal(0, noise, truth.shape)
    blind = rng.normal(size=(len(index), 5))
    return compare_labels(
        index, TASK, assign_splits(index, TASK), good, blind, PROVENANCE, resamples=100, seed=3
    ).evaluation


@pytest.fixture(scope="module")
def evaluation() -> MultilabelEvaluation:
    return evaluate(make_index(300))


def test_figures_come_with_their_proof(evaluation: MultilabelEvaluation) -> None:
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


def test_better_features_win_by_the_paired_difference(evaluation: MultilabelEvaluation) -> None:
    ours, other = evaluation.pretrained.metrics.macro.auroc, evaluation.random_encoder.metrics.macro.auroc
    assert evaluation.difference.auroc.value == pytest.approx(ours.value - other.value)
    assert evaluation.difference.auroc.low > 0


def test_same_inputs_same_evaluation_and_json_round_trip(evaluation: MultilabelEvaluation) -> None:
    assert evaluate(make_index(300)) == evaluation
    assert MultilabelEvaluation.model_validate_json(evaluation.model_dump_json()) == evaluation


def test_small_sample_and_divided_folds_are_said(evaluation: MultilabelEvaluation) -> None:
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
    assert any(name.endswith(", 10+ positives") for name, _ in evaluation.macro_rows())


def test_table_shows_every_figure(evaluation: MultilabelEvaluation) -> None:
    console = Console(width=160)
    with console.capture() as captured:
        for table in evaluation.tables():
            console.print(table)
    text = " ".join(captured.get().split())
    for macros in (evaluation.pretrained.metrics.macro, evaluation.difference):
        for metric in METRICS:
            assert str(getattr(macros, metric)) in text
    for row in evaluation.pretrained.metrics.labels:
        assert str(row.auroc) in text
        assert f"{row.ece.value:.3f}" in text
    for group in evaluation.subgroups:
        assert f"{group.attribute} {group.group}" in text
        assert str(group.auroc) in text
    assert "the sample is small" in text
    assert f"p = {evaluation.p_value:.3f}" in text


def test_a_clear_difference_has_a_small_p_value_and_none_a_large_one(
    evaluation: MultilabelEvaluation,
) -> None:
    assert evaluation.p_value == pytest.approx(2 / 101)
    assert evaluate(make_index(300), noise=1000).p_value > 0.05


def test_subgroups_of_the_test_records_have_figures_or_are_named() -> None:
    index = make_index(3000)
    rng = np.random.default_rng(1)
    index["age"], index["sex"] = rng.integers(5, 95, len(index)), rng.choice(["female", "male"], len(index))
    found = evaluate(index)
    test = index[assign_splits(index, TASK).rows("test")]
    sizes = {
        (each.attribute, each.group): each.records for each in (*found.subgroups, *found.small_subgroups)
    }
    assert sizes == {
        (each.attribute, each.group): each.records for each, _ in subgroups(test.drop_duplicates("record_id"))
    }
    everyone = found.pretrained.metrics.macro
    women = next(each for each in found.subgroups if each.group == "female")
    assert women.labels == everyone.labels
    assert women.everyone == pytest.approx(everyone.auroc.value)


def test_every_label_with_figures_has_its_reliability(evaluation: MultilabelEvaluation) -> None:
    labels = evaluation.pretrained.metrics.labels
    assert [each.label for each in evaluation.reliability] == [each.label for each in labels]
    for diagram, figures in zip(evaluation.reliability, labels, strict=True):
        records = sum(each.records for each in diagram.bins)
        assert records == evaluation.counts["test"].records == figures.positives + figures.negatives
        error = sum(each.records * abs(each.positives - each.probability) for each in diagram.bins)
        assert figures.ece.value == pytest.approx(error / records)


def test_segments_of_one_record_count_once() -> None:
    """A record that is there three times, alike, changes no figure and no patient."""
    index = make_index(200)
    times = np.repeat(np.arange(len(index)), np.where(index["split"] == "fold10", 3, 1))
    again = index.iloc[times].reset_index(drop=True)
    again["segment"] = again.groupby("record_id").cumcount()
    rng = np.random.default_rng(0)
    good, blind = TASK.truth(index) + rng.normal(size=(len(index), 5)), rng.normal(size=(len(index), 5))
    once, thrice = (
        compare_labels(
            table, TASK, assign_splits(table, TASK), good[rows], blind[rows], PROVENANCE, resamples=100
        ).evaluation
        for table, rows in ((index, np.arange(len(index))), (again, times))
    )
    assert thrice.pretrained.metrics.macro.auroc.value == pytest.approx(
        once.pretrained.metrics.macro.auroc.value
    )
    assert thrice.pretrained.metrics.macro.auroc.low == pytest.approx(once.pretrained.metrics.macro.auroc.low)
    assert thrice.counts == once.counts


def test_labels_with_brackets_are_shown_as_they_are() -> None:
    task = TASK.model_copy(update={"labels": {"NORM [new]": ("scp:NORM",), "[bold]MI": ("scp:IMI",)}})
    index = make_index(300)
    noise = np.random.default_rng(0).normal(size=(len(index), 4))
    found = compare_labels(
        index, task, assign_splits(index, task), noise, noise, PROVENANCE, resamples=100
    ).evaluation
    console = Console(width=160)
    with console.capture() as captured:
        for table in found.tables():
            console.print(table)
    assert "NORM [new]" in captured.get()
    assert "[bold]MI" in captured.get()
