"""Every way to use a model is judged on the same records, labels and resamples: beside `evaluate` and loops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, roc_auc_score

from ecgdist.config import build
from ecgdist.corpus import Corpus
from ecgdist.downstream.assign import fewer_patients
from ecgdist.downstream.benchmark.compared import Made, task_result
from ecgdist.downstream.benchmark.config import Cell
from ecgdist.downstream.benchmark.judge import Judge, Said, judge_of
from ecgdist.downstream.bootstrap import holm
from ecgdist.downstream.evaluate import EvaluateConfig, Setup, TaskConfig, evaluate, features
from ecgdist.errors import DataError
from ecgdist.modelfolder import load
from tests.corpus.corpora import made_ecg, row, write_corpus
from tests.downstream.finetuning.test_goals import AGE, FOLDS, LABELS
from tests.downstream.test_leaks import model

RESAMPLES = 200


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 ECGs with two labels and an age; a model that has seen none of them."""
    found = tmp_path_factory.mktemp("benchmark")
    rows = [
        row(
            made_ecg(n),
            f"r{n}",
            labels=["x:a" if n // 3 % 3 == 0 else "x:b"],
            split=FOLDS[n % 3],
            age=20.0 + n,
        )
        for n in range(60)
    ]
    model(found / "model", write_corpus(found / "corpus", rows), np.arange(0))
    (found / "labels.yaml").write_text(LABELS)
    (found / "age.yaml").write_text(AGE)
    return found


def judge(folder: Path, task: str) -> Judge:
    setup = Setup.of(
        build(TaskConfig, {"task": str(folder / f"{task}.yaml")}), Corpus(str(folder / "corpus"))
    )
    return judge_of(setup, RESAMPLES, 0)


@pytest.mark.parametrize("task", ["labels", "age"])
def test_the_probe_has_the_figures_and_intervals_of_evaluate(folder: Path, task: str) -> None:
    where = {"model": str(folder / "model"), "corpus": str(folder / "corpus"), "resamples": RESAMPLES}
    expected: Any = evaluate(
        build(EvaluateConfig, {**where, "task": str(folder / f"{task}.yaml")})
    ).pretrained.metrics
    judged = judge(folder, task)
    setup = judged.setup
    said = judged.probed(features(load(folder / "model"), setup.corpus, setup.rows, 64), setup.splits)
    cells: dict[Cell, Made | str] = {
        Cell("t", mode, 1.0, 0): Made(setup.splits, said, "hash", None, "command")
        for mode in ("linear", "random")
    }  # type: ignore[arg-type]
    found = task_result(judged, cells, RESAMPLES)
    own = expected.macro if task == "labels" else expected
    assert found.ways[0].figures == {name: getattr(own, name) for name in judged.metrics}
    (difference,) = found.differences
    assert (difference.difference.value, difference.p_value) == (0, 1)


def test_labels_that_nothing_can_be_learned_about_are_constants(folder: Path) -> None:
    judged = judge(folder, "labels")
    assert judged.outputs == ("A", "B")
    assert judged.left_out == {"C": "no positive training record"}
    splits = fewer_patients(judged.setup.index, judged.setup.splits, 0.01, 0)
    assert splits.rows("train").sum() == 1
    assert judged.learnable(splits) == ()
    scored = judged.score(judged.constant(splits))
    assert scored.by_output == {"A": 0.5, "B": 0.5}
    assert scored.point[0] == 0.5
    half = judged.filled(np.random.default_rng(0).random((60, 1)), ["B"], splits)
    assert half.learned == ("B",)
    assert judged.score(half).by_output["A"] == 0.5


def test_figures_are_scikit_learns_and_differences_are_paired(folder: Path) -> None:
    judged, random = judge(folder, "labels"), np.random.default_rng(1)
    splits, truth = (
        judged.setup.splits,
        np.array([codes[0] == "x:a" for codes in judged.setup.index["labels"]]),
    )
    values = {
        (mode, seed): random.random((60, 2)) for mode in ("linear", "finetune", "scratch") for seed in (0, 1)
    }
    made: dict[Cell, Made | str] = {
        Cell("t", mode, 1.0, seed): Made(splits, Said(each, judged.outputs), "h", None, "c")  # type: ignore[arg-type]
        for (mode, seed), each in values.items()
    }
    found = task_result(judged, made, RESAMPLES)
    test = splits.rows("test")
    for way in found.ways:
        for predictor in way.predictors:
            own = values[way.mode, predictor.seed][test]
            expected = [roc_auc_score(truth[test], own[:, 0]), roc_auc_score(~truth[test], own[:, 1])]
            assert list(predictor.by_output.values()) == pytest.approx(expected)
            assert predictor.figures["auroc"] == pytest.approx(np.mean(expected))
        mean = np.mean([each.figures["auroc"] for each in way.predictors])
        assert way.figures["auroc"].value == pytest.approx(mean)
        assert way.figures["auroc"].low <= mean <= way.figures["auroc"].high
    by_mode = {way.mode: way.figures["auroc"].value for way in found.ways}
    assert [(each.mode, each.other) for each in found.differences] == [
        ("linear", "finetune"), ("linear", "scratch"), ("finetune", "scratch"),
    ]  # fmt: skip
    for each in found.differences:
        assert each.difference.value == pytest.approx(by_mode[each.mode] - by_mode[each.other])
    assert [each.p_holm for each in found.differences] == holm([each.p_value for each in found.differences])


def test_a_way_that_failed_says_why_and_the_others_stand(folder: Path) -> None:
    judged = judge(folder, "age")
    splits = judged.setup.splits
    values = np.random.default_rng(0).random((60, 1)) * 80
    made: dict[Cell, Made | str] = {
        Cell("t", "linear", 1.0, 0): Made(splits, Said(values, ("age",)), "h", None, "c"),
        Cell("t", "finetune", 1.0, 0): "step 3: loss is nan",
    }
    found = task_result(judged, made, RESAMPLES)
    assert found.ways[1].error == "step 3: loss is nan"
    assert found.differences == ()
    assert "none: step 3: loss is nan" in found.rows()[1]
    test = splits.rows("test")
    expected = mean_absolute_error(20.0 + np.arange(60)[test], values[test, 0])
    assert found.ways[0].figures["mae"].value == pytest.approx(expected)
    assert not found.higher_is_better


def test_a_task_without_positives_in_a_split_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "none.yaml").write_text(LABELS.replace('A: ["x:a"], B: ["x:b"], C: ["x:c"]', 'C: ["x:c"]'))
    setup = build(TaskConfig, {"task": str(tmp_path / "none.yaml")})
    with pytest.raises(DataError, match="the corpus has no record from made with a label of the task"):
        judge_of(Setup.of(setup, Corpus(str(folder / "corpus"))), RESAMPLES, 0)
    only_a = LABELS.replace('B: ["x:b"], C: ["x:c"]', 'C: ["x:c"]')
    (tmp_path / "one.yaml").write_text(only_a)
    setup = build(TaskConfig, {"task": str(tmp_path / "one.yaml")})
    with pytest.raises(DataError, match="no label has positives and negatives in both"):
        judge_of(Setup.of(setup, Corpus(str(folder / "corpus"))), RESAMPLES, 0)
