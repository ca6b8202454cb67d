"""The plots of an evaluation's report: curves, calibration, predicted numbers, and a map of the embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from ecgdist.downstream.embedding_map import LEAST_RECORDS, embedding_map
from ecgdist.downstream.label_evaluation import MultilabelEvaluation
from ecgdist.downstream.number_evaluation import RegressionEvaluation
from ecgdist.downstream.outcome import Outcome
from ecgdist.downstream.predictions import Predictions
from ecgdist.downstream.worst import most_positives
from ecgdist.report.curves import svg
from ecgdist.report.ecgpaper import png
from ecgdist.report.html import Image, data_uri
from ecgdist.report.page import Missing
from ecgdist.report.prediction_plots import COLOURS, draw_graded, draw_label_curves, draw_marked, draw_numbers
from ecgdist.report.reliability import draw_reliability

_MAPPED_LABELS = 7
_MAPPED_SOURCES = 12
_MAP_DOTS_PER_INCH = 200


@dataclass(frozen=True)
class Maps:
    """The embedding map, once for each colouring.

    Attributes:
        by_target: coloured by label, or by the number that is predicted.
        by_source: coloured by data set.
        method: how records were placed.
    """

    by_target: list[Image]
    by_source: list[Image]
    method: str


def curves(evaluation: MultilabelEvaluation, predictions: Predictions) -> list[Image]:
    """One card for each label that has figures, those with the most test positives first."""
    figures = {pair[0].label: pair for pair in evaluation.pairs()}
    cards = []
    for number in most_positives(predictions, len(predictions.columns)):
        label = predictions.columns[number]
        ours, other = figures[label]
        figure = draw_label_curves(predictions, number)
        figure.suptitle(f"{label} ({ours.positives:,} positives)", fontsize=9, parse_math=False)
        alt = (
            f"ROC and precision-recall curves of {label}. Pretrained: AUROC {ours.auroc}, AUPRC {ours.auprc}; "
            f"random encoder: AUROC {other.auroc}, AUPRC {other.auprc}."
        )
        cards.append(_svg(figure, alt))
    return cards


def calibration(evaluation: MultilabelEvaluation) -> list[Image]:
    """One card for each label that has figures, those with the most test positives first."""
    error = {row.label: (row.positives, row.ece) for row in evaluation.pretrained.metrics.labels}
    ordered = sorted(evaluation.reliability, key=lambda each: -error[each.label][0])
    return [
        _svg(
            draw_reliability([diagram]),
            f"Reliability of {diagram.label}: expected calibration error {error[diagram.label][1]}.",
        )
        for diagram in ordered
    ]


def numbers(evaluation: RegressionEvaluation, predictions: Predictions) -> Image:
    """Predicted over true numbers."""
    alt = (
        f"Predicted over true {evaluation.target} of {len(predictions.truth):,} test records. "
        f"Mean absolute error {evaluation.pretrained.metrics.mae} {evaluation.unit}."
    )
    return Image(
        data_uri("image/png", png(draw_numbers(predictions, evaluation.unit), _MAP_DOTS_PER_INCH)), alt
    )


def maps(outcome: Outcome, seed: int) -> Maps | Missing:
    """The map of the test records' embeddings, or why there is none."""
    if outcome.embeddings is None:
        return Missing("This kind of evaluation has no embeddings.")
    if len(outcome.embeddings) < LEAST_RECORDS:
        return Missing(f"There are fewer than {LEAST_RECORDS} test records.")
    found = embedding_map(outcome.embeddings, seed)
    predictions = outcome.predictions
    source = np.array(predictions.source, dtype=np.str_)[found.record]
    names, counts = np.unique(source, return_counts=True)
    by_source = []
    for number in np.argsort(-counts, kind="stable")[:_MAPPED_SOURCES].tolist():
        name, colour = str(names[number]), COLOURS[2]
        title = f"{name} ({counts[number]:,} of {len(source):,})"
        by_source.append(
            _png(draw_marked(found.place, source == names[number], title, colour), f"Map, {title}.")
        )
    if isinstance(outcome.evaluation, RegressionEvaluation):
        values, unit = predictions.truth[found.record, 0], outcome.evaluation.unit
        figure = draw_graded(found.place, values, f"true {predictions.columns[0]}", unit)
        return Maps(
            [_png(figure, f"Map coloured by true {predictions.columns[0]}.")], by_source, found.method
        )
    by_label = []
    for number in most_positives(predictions, _MAPPED_LABELS):
        marked = predictions.positive[found.record, number]
        title = f"{predictions.columns[number]} ({int(marked.sum()):,} of {len(marked):,})"
        by_label.append(_png(draw_marked(found.place, marked, title), f"Map, {title}."))
    return Maps(by_label, by_source, found.method)


def _svg(figure: Figure, alt: str) -> Image:
    return Image(data_uri("image/svg+xml", svg(figure)), alt)


def _png(figure: Figure, alt: str) -> Image:
    return Image(data_uri("image/png", png(figure, _MAP_DOTS_PER_INCH)), alt)
