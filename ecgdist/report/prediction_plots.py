"""Small plots of predictions, one card each, that stay readable on a telephone: about 340 pixels wide."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from ecgdist.downstream.predictions import BoolArray, FloatArray, Predictions

CARD_INCH = 3.6
COLOURS = ("#0b55c4", "#8a8a8a", "#b3446c", "#2f7d4f")
"""Of predictors: the judged one, then its controls."""

_GROUND, _MARK = "#d0d0d0", "#111111"


def draw_label_curves(predictions: Predictions, label: int) -> Figure:
    """The ROC and the precision-recall curve of a label, by every predictor; a dot where it is predicted for F1."""
    figure = Figure(figsize=(CARD_INCH, 2.15), layout="constrained")
    roc, pr = figure.subplots(1, 2)
    true = predictions.positive[:, label]
    for colour, (arm, scores) in zip(COLOURS, predictions.arms.items(), strict=False):
        name, style = arm.replace("_", " "), {"color": colour, "linewidth": 1.4}
        false_rate, hit_rate, _ = roc_curve(true, scores[:, label])
        roc.plot(false_rate, hit_rate, label=name, **style)
        pr.plot(*precision_recall(true, scores[:, label]), drawstyle="steps-post", **style)
    said = predictions.predicted[:, label]
    hits, alarms = int((said & true).sum()), int((said & ~true).sum())
    mark = {"marker": "o", "color": _MARK, "markersize": 4, "linestyle": "", "zorder": 3}
    roc.plot([alarms / (~true).sum()], [hits / true.sum()], label="F1 threshold", **mark)
    if said.any():
        pr.plot([hits / true.sum()], [hits / said.sum()], **mark)
    roc.plot([0, 1], [0, 1], color=_GROUND, linewidth=0.8, zorder=0)
    pr.axhline(true.mean(), color=_GROUND, linewidth=0.8, zorder=0)
    _unit_square(roc, "ROC", "1 - specificity", "sensitivity")
    _unit_square(pr, "precision-recall", "recall", "precision")
    figure.legend(loc="outside lower center", ncols=3, fontsize=7, frameon=False, handlelength=1.4)
    return figure


def precision_recall(truth: BoolArray, score: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The steps of which average precision is the area: falling recalls, and the precision that holds down to the next.

    For each recall the best precision is taken, which is that of the highest threshold.
    """
    precision, recall, _ = precision_recall_curve(truth, score)
    # The last point (recall 0, precision 1) is no threshold's.
    reached = np.append(recall[:-2] != recall[1:-1], True) & (recall[:-1] > 0)
    precision, recall = precision[:-1][reached], recall[:-1][reached]
    return np.append(recall, 0.0), np.append(precision, precision[-1])


def draw_numbers(predictions: Predictions, unit: str) -> Figure:
    """Predicted over true numbers, a panel for each predictor; on the diagonal the two are equal."""
    arms = predictions.arms
    figure = Figure(figsize=(CARD_INCH * len(arms), 3.4), layout="constrained")
    panels = figure.subplots(1, len(arms), squeeze=False, sharex=True, sharey=True)[0]
    truth = predictions.truth[:, 0]
    every = np.concatenate([truth, *(values[:, 0] for values in arms.values())])
    ends = [float(every.min()), float(every.max())]
    for panel, colour, (arm, values) in zip(panels, COLOURS, arms.items(), strict=False):
        panel.plot(ends, ends, color=_MARK, linewidth=0.8)
        panel.scatter(truth, values[:, 0], s=6, color=colour, alpha=0.5, linewidths=0)
        panel.set_title(arm.replace("_", " "), fontsize=9)
        panel.set_xlabel(f"true {predictions.columns[0]} ({unit})", fontsize=8)
        panel.set_ylabel(f"predicted ({unit})", fontsize=8)
        panel.set_aspect("equal")
        panel.tick_params(labelsize=7, labelleft=True)
        panel.grid(linewidth=0.3)
    return figure


def draw_marked(place: FloatArray, marked: BoolArray, title: str, colour: str = COLOURS[0]) -> Figure:
    """A map with some of its records in colour over all others.

    Args:
        place: ``(m, 2)``.
        marked: ``(m,)``, True for those in colour.
        title: parsed as plain text.
        colour: of the marked ones.
    """
    figure, panel = _map(title)
    panel.scatter(place[~marked, 0], place[~marked, 1], s=5, color=_GROUND, linewidths=0)
    panel.scatter(place[marked, 0], place[marked, 1], s=7, color=colour, alpha=0.8, linewidths=0)
    return figure


def draw_graded(place: FloatArray, values: npt.NDArray[np.floating], title: str, unit: str) -> Figure:
    """A map with its records coloured by a number; arguments as of `draw_marked`."""
    figure, panel = _map(title, CARD_INCH)
    norm = Normalize(float(values.min()), float(values.max()))
    drawn = panel.scatter(place[:, 0], place[:, 1], s=7, c=values, cmap="viridis", norm=norm, linewidths=0)
    bar = figure.colorbar(drawn, ax=panel, shrink=0.8)
    bar.set_label(unit, fontsize=8, parse_math=False)
    bar.ax.tick_params(labelsize=7)
    return figure


def _map(title: str, width_inch: float = CARD_INCH / 2) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width_inch, width_inch * 0.75 + 0.5), layout="constrained")
    panel = figure.subplots()
    panel.set_title(title, fontsize=8, parse_math=False)
    panel.set(xticks=(), yticks=())
    panel.spines[:].set_color(_GROUND)
    return figure, panel


def _unit_square(panel: Axes, title: str, x: str, y: str) -> None:
    panel.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1), aspect="equal")
    panel.set_title(title, fontsize=8.5)
    panel.set_xlabel(x, fontsize=8)
    panel.set_ylabel(y, fontsize=8)
    panel.tick_params(labelsize=7)
    panel.grid(linewidth=0.3)
    panel.spines[["top", "right"]].set_visible(False)
