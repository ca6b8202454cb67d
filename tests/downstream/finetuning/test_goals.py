"""What a task asks of a model that is trained on it, beside loops and scikit-learn."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_absolute_error, roc_auc_score

from ecgdist.config import build
from ecgdist.corpus import Corpus
from ecgdist.downstream.evaluate import Setup, TaskConfig
from ecgdist.downstream.finetuning.config import FineTuneConfig
from ecgdist.downstream.finetuning.goals import LabelGoal, NumberGoal, goal_of
from ecgdist.downstream.finetuning.plan import FineTunePlan
from ecgdist.errors import DataError
from tests.corpus.corpora import made_ecg, row, write_corpus

LABELS = """
{name: mine, title: t, kind: multilabel, source: made, labels: {A: ["x:a"], B: ["x:b"], C: ["x:c"]},
 folds: {train: [one], validation: [two], test: [three]}}
"""
AGE = """
{name: years, title: t, kind: regression, source: made, target: age, unit: years,
 folds: {train: [one], validation: [two], test: [three]}}
"""
FOLDS = ("one", "two", "three")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """60 ECGs; a record in six has label A, the others B, none C."""
    rows = [
        row(
            made_ecg(n),
            f"r{n}",
            labels=["x:a" if n // 3 % 6 == 0 else "x:b"],
            split=FOLDS[n % 3],
            age=20.0 + n,
        )
        for n in range(60)
    ]
    return write_corpus(tmp_path_factory.mktemp("goals") / "corpus", rows)


def setup(corpus: Corpus, folder: Path, task: str = LABELS, **changes: object) -> Setup:
    path = folder / "task.yaml"
    path.write_text(task)
    return Setup.of(build(TaskConfig, {"task": str(path), **changes}), corpus)


def test_a_label_without_both_classes_in_training_is_left_out_by_name(corpus: Corpus, tmp_path: Path) -> None:
    goal = goal_of(setup(corpus, tmp_path), "none")
    assert goal.outputs == ("A", "B")
    assert goal.left_out == {"C": "no positive training record"}
    assert goal.targets.shape == (60, 2)
    assert goal.targets[0].tolist() == [1, 0]
    assert goal.targets[3].tolist() == [0, 1]


@pytest.mark.parametrize("imbalance", ["none", "weighted", "focal"])
def test_the_loss_is_the_one_of_a_loop(corpus: Corpus, tmp_path: Path, imbalance: str) -> None:
    goal = goal_of(setup(corpus, tmp_path), imbalance)
    torch.manual_seed(0)
    outputs, targets = 3 * torch.randn(8, 2), (torch.rand(8, 2) > 0.5).float()
    train = goal.targets[[n for n in range(60) if n % 3 == 0]]
    expected = []
    for output, target in zip(outputs.tolist(), targets.tolist(), strict=True):
        total = 0.0
        for label in range(2):
            p = 1 / (1 + math.exp(-output[label]))
            positives = train[:, label].sum()
            weight = min(20, max(1, (len(train) - positives) / positives)) if imbalance == "weighted" else 1
            right = p if target[label] else 1 - p
            focus = (1 - right) ** 2 if imbalance == "focal" else 1
            total += -(weight if target[label] else 1) * focus * math.log(right)
        expected.append(total / 2)
    torch.testing.assert_close(goal.losses(outputs, targets), torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_weights_follow_the_rarity_of_a_label(corpus: Corpus, tmp_path: Path) -> None:
    goal = goal_of(setup(corpus, tmp_path), "weighted")
    assert isinstance(goal, LabelGoal)
    positives = int(goal.targets[::3, 0].sum())
    assert goal._positive_weight.tolist() == pytest.approx([(20 - positives) / positives, 1.0])


@pytest.mark.parametrize(
    ("task", "imbalance"),
    [(LABELS, "none"), (LABELS, "weighted"), (AGE, "none")],
    ids=["labels", "weighted", "age"],
)
def test_training_starts_at_the_constants_of_least_loss(
    corpus: Corpus, tmp_path: Path, task: str, imbalance: str
) -> None:
    """There the gradient of the mean loss over the training records is zero."""
    goal = goal_of(setup(corpus, tmp_path, task), imbalance)
    start = torch.from_numpy(goal.start).requires_grad_()
    targets = torch.from_numpy(goal.targets[::3]).double()
    goal.losses(start.expand_as(targets), targets).mean().backward()
    assert start.grad is not None
    np.testing.assert_allclose(start.grad.numpy(), 0, atol=1e-7)


@pytest.mark.parametrize("readout", ["linear", "attention"])
def test_a_module_starts_there(corpus: Corpus, tmp_path: Path, readout: str) -> None:
    """So that steps are not spent on lowering the outputs of rare labels all together."""
    (tmp_path / "task.yaml").write_text(LABELS)
    settings = {
        "task": str(tmp_path / "task.yaml"),
        "corpus": corpus.location.uri,
        "out": str(tmp_path / "run"),
    }
    how = {"mode": "scratch", "encoder": {"size": "tiny"}, "readout": {"kind": readout}, "steps": 1}
    plan = FineTunePlan.of(build(FineTuneConfig, settings | how))
    bias = plan.build_module().readout.linear.bias.detach().numpy()
    np.testing.assert_allclose(bias, plan.goal.start, rtol=1e-6)


def test_the_validation_figure_is_scikit_learns(corpus: Corpus, tmp_path: Path) -> None:
    goal = goal_of(setup(corpus, tmp_path), "none")
    assert goal.validation_rows.tolist() == list(range(1, 60, 3))
    predictions = np.random.default_rng(0).random((20, 2))
    truth = goal.targets[goal.validation_rows]
    assert goal.figures(predictions)["validation_auroc"] == pytest.approx(roc_auc_score(truth, predictions))


def test_a_number_is_trained_in_deviations_and_told_in_its_unit(corpus: Corpus, tmp_path: Path) -> None:
    goal = goal_of(setup(corpus, tmp_path, AGE), "none")
    assert isinstance(goal, NumberGoal)
    ages = 20.0 + np.arange(60)
    train = ages[::3]
    np.testing.assert_allclose(goal.targets[:, 0], (ages - train.mean()) / train.std(), rtol=1e-5)
    told = goal.predictions(torch.from_numpy(goal.targets)).numpy()[:, 0]
    np.testing.assert_allclose(told, ages, rtol=1e-5)
    outputs, targets = torch.tensor([[1.0], [0.5]]), torch.tensor([[0.0], [2.0]])
    assert goal.losses(outputs, targets).tolist() == [1.0, 2.25]
    predictions = np.random.default_rng(0).random((20, 1)) * 50
    expected = mean_absolute_error(ages[1::3], predictions[:, 0])
    assert goal.figures(predictions)["validation_mae"] == pytest.approx(expected)


def test_a_share_of_labels_without_positives_says_what_to_do(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="raise label_share"):
        goal_of(setup(corpus, tmp_path, label_share=0.01), "none")
