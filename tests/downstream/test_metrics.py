"""Metrics of labels: equal to scikit-learn, torchmetrics and plain loops; intervals by patient; paired differences."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, brier_score_loss, f1_score, recall_score, roc_auc_score
from torchmetrics.functional.classification import (
    binary_sensitivity_at_specificity,
    multilabel_auroc,
    multilabel_average_precision,
)

from ecgdist.downstream.bootstrap import Resamples
from ecgdist.downstream.metrics import Bootstrap, Metrics, bootstrap, paired_difference, summarise
from ecgdist.downstream.scores import (
    METRICS,
    BoolArray,
    FloatArray,
    Thresholds,
    auroc,
    best_f1_thresholds,
    label_figures,
    specificity_thresholds,
)
from ecgdist.errors import DataError

LABELS = ("A", "B", "C")
HALF = Thresholds(np.full(3, 0.5), np.full(3, 0.6))


def sample(rows: int = 200, seed: int = 0, ties: bool = False) -> tuple[BoolArray, FloatArray, list[str]]:
    rng = np.random.default_rng(seed)
    truth = rng.random((rows, 3)) < (0.5, 0.3, 0.1)
    score = np.clip(0.5 + 0.2 * truth + rng.normal(0, 0.2, truth.shape), 0, 1)
    patients = [f"p{number}" for number in rng.integers(0, rows * 2 // 3, rows)]
    return truth, np.round(score, 1) if ties else score, patients


def run(
    truth: BoolArray, score: FloatArray, patients: list[str], resamples: int = 1000, seed: int = 0
) -> Bootstrap:
    return bootstrap(truth, score, HALF, Resamples.of(patients, resamples, seed))


def figures(truth: BoolArray, score: FloatArray, patients: list[str], **options: int) -> Metrics:
    return summarise(run(truth, score, patients, **options), truth, HALF, LABELS)


@pytest.mark.parametrize("ties", [False, True])
def test_point_figures_equal_sklearn_and_torchmetrics(ties: bool) -> None:
    truth, score, _ = sample(ties=ties)
    found = label_figures(truth, score, HALF, np.ones((1, len(truth))))[0]
    for label in range(3):
        assert found[label, 0] == pytest.approx(roc_auc_score(truth[:, label], score[:, label]), abs=1e-12)
        precision = average_precision_score(truth[:, label], score[:, label])
        assert found[label, 1] == pytest.approx(precision, abs=1e-12)
        f1 = f1_score(truth[:, label], score[:, label] >= 0.5)
        assert found[label, 2] == pytest.approx(f1, abs=1e-12)
        predicted = score[:, label] >= 0.6
        assert found[label, 3] == pytest.approx(recall_score(truth[:, label], predicted), abs=1e-12)
        assert found[label, 4] == pytest.approx(recall_score(~truth[:, label], ~predicted), abs=1e-12)
        assert found[label, 6] == pytest.approx(brier_score_loss(truth[:, label], score[:, label]), abs=1e-12)
    tensors = torch.from_numpy(score), torch.from_numpy(truth).long()
    np.testing.assert_allclose(found[:, 0], multilabel_auroc(*tensors, num_labels=3, average=None), atol=1e-6)
    torchs = multilabel_average_precision(*tensors, num_labels=3, average=None)
    np.testing.assert_allclose(found[:, 1], torchs, atol=1e-6)


def test_auroc_is_the_share_of_pairs_in_the_right_order() -> None:
    truth, score, _ = sample(60, ties=True)
    for label in range(3):
        positive, negative = score[truth[:, label], label], score[~truth[:, label], label]
        right = [1.0 if p > n else 0.5 if p == n else 0.0 for p in positive for n in negative]
        assert auroc(truth, score)[label] == pytest.approx(np.mean(right), abs=1e-12)


def test_weights_are_repeated_rows() -> None:
    truth, score, _ = sample(80, ties=True)
    times = np.random.default_rng(1).integers(0, 4, 80)
    weighted = label_figures(truth, score, HALF, times[None].astype(float))
    again = np.repeat(np.arange(80), times)
    repeated = label_figures(truth[again], score[again], HALF, np.ones((1, len(again))))
    np.testing.assert_allclose(weighted, repeated, atol=1e-12)


def test_resamples_equal_a_loop_over_patients() -> None:
    truth, score, patients = sample(60)
    result = run(truth, score, patients, resamples=20, seed=3)
    names = sorted(set(patients))
    for resample in range(20):
        drawn = np.random.default_rng([3, resample]).integers(len(names), size=len(names))
        rows = [row for d in drawn for row, name in enumerate(patients) if name == names[d]]
        for label in range(3):
            if truth[rows, label].any() and not truth[rows, label].all():
                expected = roc_auc_score(truth[rows, label], score[rows, label])
                assert result.samples[resample, label, 0] == pytest.approx(expected, abs=1e-12)
            else:
                assert np.isnan(result.samples[resample, label]).all()


def test_perfect_is_one_and_constant_is_a_half() -> None:
    truth, _, patients = sample()
    perfect = figures(truth, truth.astype(float), patients, resamples=50).macro
    for metric in METRICS:
        wanted = 0.0 if metric in ("ece", "brier") else 1.0
        figure = getattr(perfect, metric)
        assert (figure.value, figure.low, figure.high) == (wanted, wanted, wanted), metric
    constant = figures(truth, np.full(truth.shape, 0.3), patients, resamples=50).macro
    assert (constant.auroc.value, constant.auroc.low, constant.auroc.high) == (0.5, 0.5, 0.5)
    assert constant.auprc.value == pytest.approx(truth.mean(axis=0).mean())
    assert constant.f1.value == 0.0
    assert (constant.sensitivity.value, constant.specificity.value) == (0.0, 1.0)
    assert constant.ece.value == pytest.approx(np.abs(truth.mean(axis=0) - 0.3).mean())


def test_interval_of_random_scores_covers_a_half() -> None:
    truth, _, patients = sample(400)
    score = np.random.default_rng(9).random(truth.shape)
    macro = figures(truth, score, patients, resamples=300).macro
    assert macro.auroc.low < 0.5 < macro.auroc.high
    assert macro.auroc.low < macro.auroc.value < macro.auroc.high


def test_same_seed_same_interval() -> None:
    assert figures(*sample(), resamples=50, seed=1) == figures(*sample(), resamples=50, seed=1)
    assert figures(*sample(), resamples=50, seed=1) != figures(*sample(), resamples=50, seed=2)


def test_interval_is_wider_where_rows_of_a_patient_are_alike() -> None:
    truth, score, _ = sample(100)
    truth, score = np.repeat(truth, 4, axis=0), np.repeat(score, 4, axis=0)
    alone = figures(truth, score, [str(row) for row in range(400)], resamples=300).macro.auroc
    grouped = figures(truth, score, [str(row // 4) for row in range(400)], resamples=300).macro.auroc
    assert grouped.high - grouped.low > 1.5 * (alone.high - alone.low)


def test_difference_of_identical_predictors_is_exactly_zero() -> None:
    truth, score, patients = sample()
    one, two = (run(truth, score.copy(), patients, resamples=100) for _ in range(2))
    difference, p_value = paired_difference(one, two, LABELS, LABELS)
    for metric in METRICS:
        figure = getattr(difference, metric)
        assert (figure.value, figure.low, figure.high) == (0.0, 0.0, 0.0), metric
    assert p_value == 1.0


def test_paired_interval_is_narrower_than_the_predictors_own() -> None:
    truth, score, patients = sample()
    near = np.clip(score + np.random.default_rng(5).normal(0, 0.02, score.shape), 0, 1)
    difference = paired_difference(*(run(truth, s, patients) for s in (score, near)), LABELS, LABELS)[0].auroc
    own = figures(truth, score, patients).macro.auroc
    assert difference.high - difference.low < 0.5 * (own.high - own.low)
    assert difference.value == pytest.approx(auroc(truth, score).mean() - auroc(truth, near).mean())


def test_label_missing_from_a_resample_is_left_out_of_its_mean() -> None:
    truth, score, patients = sample(60)
    truth[:, 2] = False
    truth[0, 2] = True
    result = run(truth, score, patients, resamples=200)
    missing = np.isnan(result.samples[:, 2, 0])
    assert 0 < missing.sum() < 200
    metrics = summarise(result, truth, HALF, LABELS)
    assert metrics.incomplete_resamples == missing.sum()
    assert metrics.macro.labels == LABELS
    assert metrics.few == ("C",)
    assert metrics.macro_common is not None
    assert metrics.macro_common.labels == ("A", "B")
    means = np.nanmean(result.samples[:, :, 0], axis=1)
    assert metrics.macro.auroc.low == pytest.approx(np.quantile(means, 0.025))


def test_label_with_one_class_in_test_has_no_figures() -> None:
    truth, score, patients = sample(60)
    truth[:, 1] = True
    metrics = figures(truth, score, patients, resamples=20)
    assert metrics.one_class == ("B",)
    assert [row.label for row in metrics.labels] == ["A", "C"]
    with pytest.raises(DataError, match="no label has both"):
        figures(np.ones_like(truth), score, patients, resamples=20)


def test_threshold_has_the_best_f1_of_all() -> None:
    truth, score, _ = sample(60, ties=True)
    found = best_f1_thresholds(truth, score)
    for label in range(3):
        values = {t: f1_score(truth[:, label], score[:, label] >= t) for t in np.unique(score)}
        assert values[found[label]] == max(values.values())
    assert best_f1_thresholds(np.zeros_like(truth), score).tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("specificity", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("ties", [False, True])
def test_threshold_finds_most_positives_at_a_specificity(ties: bool, specificity: float) -> None:
    truth, score, _ = sample(90, ties=ties)
    found = specificity_thresholds(truth, score, specificity)
    for label in range(3):
        true, scored = truth[:, label], score[:, label]
        fit = []
        for threshold in [*np.unique(scored), np.inf]:
            below = sum(s < threshold and not t for t, s in zip(true, scored, strict=True))
            if below / (~true).sum() >= specificity:
                fit.append(sum(s >= threshold and t for t, s in zip(true, scored, strict=True)) / true.sum())
        assert (scored[true] >= found[label]).mean() == max(fit)
        assert (scored[~true] < found[label]).mean() >= specificity
        sensitivity, _ = binary_sensitivity_at_specificity(
            torch.from_numpy(scored), torch.from_numpy(true).long(), min_specificity=specificity
        )
        assert max(fit) == pytest.approx(float(sensitivity), abs=1e-6)


def test_a_specificity_that_no_score_has_gives_no_prediction() -> None:
    truth = np.array([[True], [False], [False]])
    score = np.full((3, 1), 0.4)
    threshold = specificity_thresholds(truth, score, 0.9)
    assert threshold[0] > 0.4
    figures = label_figures(truth, score, Thresholds(threshold, threshold), np.ones((1, 3)))[0, 0]
    assert (
        dict(zip(METRICS, figures, strict=True)).items() >= {"sensitivity": 0.0, "specificity": 1.0}.items()
    )
    assert specificity_thresholds(np.ones_like(truth), score).tolist() == [0.5]


def test_a_random_predictor_finds_as_many_positives_as_it_raises_false_alarms() -> None:
    rng = np.random.default_rng(4)
    truth, score = rng.random((20_000, 1)) < 0.2, rng.random((20_000, 1))
    half = np.arange(20_000) < 10_000
    thresholds = Thresholds.chosen(truth[half], score[half])
    figures = label_figures(truth[~half], score[~half], thresholds, np.ones((1, 10_000)))[0, 0]
    found = dict(zip(METRICS, figures, strict=True))
    assert found["auroc"] == pytest.approx(0.5, abs=0.02)
    assert found["auprc"] == pytest.approx(0.2, abs=0.02)
    assert found["sensitivity"] == pytest.approx(0.1, abs=0.02)
    assert found["specificity"] == pytest.approx(0.9, abs=0.02)


def test_a_thousand_resamples_of_two_thousand_rows_take_seconds() -> None:
    truth, score, patients = sample(2000)
    start = time.monotonic()
    run(truth, score, patients)
    assert time.monotonic() - start < 20
