"""The curves that are drawn are those whose areas are reported."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from ecgdist.downstream.predictions import Predictions
from ecgdist.report.ecgpaper import png
from ecgdist.report.prediction_plots import draw_label_curves, draw_marked, precision_recall


def made(rows: int = 80) -> Predictions:
    """Two labels and two arms, with ties."""
    rng = np.random.default_rng(0)
    truth = (rng.random((rows, 2)) < 0.3).astype(np.float64)
    good = np.round(np.clip(0.3 + 0.3 * truth + rng.normal(0, 0.25, truth.shape), 0, 1), 1)
    return Predictions(
        columns=("A", "B"),
        source=("made",) * rows,
        record_id=tuple(map(str, range(rows))),
        patient=np.arange(rows),
        first_row=np.arange(rows),
        segments=np.ones(rows, dtype=np.int64),
        truth=truth,
        arms={"pretrained": good, "random_encoder": rng.random(truth.shape)},
        thresholds=np.array([0.5, 0.4]),
    )


@pytest.mark.parametrize("label", [0, 1])
def test_the_areas_under_the_drawn_curves_are_the_figures(label: int) -> None:
    predictions = made()
    true = predictions.positive[:, label]
    roc, pr = draw_label_curves(predictions, label).axes
    for number, scores in enumerate(predictions.arms.values()):
        x, y = (np.asarray(values, dtype=float) for values in roc.lines[number].get_data())
        assert np.trapezoid(y, x) == pytest.approx(roc_auc_score(true, scores[:, label]))
        recall, precision = (np.asarray(values, dtype=float) for values in pr.lines[number].get_data())
        area = ((recall[:-1] - recall[1:]) * precision[:-1]).sum()
        assert area == pytest.approx(average_precision_score(true, scores[:, label]))
        assert (np.diff(recall) < 0).all()


def test_the_dot_is_at_the_threshold() -> None:
    predictions = made()
    true, said = predictions.positive[:, 1], predictions.judged[:, 1] >= 0.4
    roc, pr = draw_label_curves(predictions, 1).axes
    hit_rate = (true & said).sum() / true.sum()
    (dot,) = [line for line in roc.lines if line.get_label() == "F1 threshold"]
    assert dot.get_data()[0] == pytest.approx([(~true & said).sum() / (~true).sum()])
    assert dot.get_data()[1] == pytest.approx([hit_rate])
    (dot,) = [line for line in pr.lines if line.get_marker() == "o"]
    assert (dot.get_data()[0][0], dot.get_data()[1][0]) == pytest.approx((hit_rate, true[said].mean()))


def test_steps_of_a_perfect_and_of_a_constant_score() -> None:
    truth = np.array([True, False, True, False])
    recall, precision = precision_recall(truth, truth.astype(float))
    assert (recall.tolist(), precision.tolist()) == ([1.0, 0.0], [1.0, 1.0])
    recall, precision = precision_recall(truth, np.full(4, 0.5))
    assert (recall.tolist(), precision.tolist()) == ([1.0, 0.0], [0.5, 0.5])


def test_the_title_of_a_map_is_plain_text() -> None:
    figure = draw_marked(np.zeros((3, 2)), np.array([True, False, False]), r"cost $\frac{1}$ and $x^")
    assert png(figure)[:4] == b"\x89PNG"
