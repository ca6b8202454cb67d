"""The plots of a sweep: parallel coordinates of its trials, and how they learned."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ecgdist.downstream.halving import Shown
from ecgdist.downstream.sweep.space import Dimension
from ecgdist.downstream.sweep.trial import Outcome

_WIDTH_INCH = 9.0
_BEST, _OTHER, _RUNG = "#0b55c4", "#9a9a9a", "#b3446c"
_MOST_TEXT = 18
"""Characters of a tick's text."""


def draw_parallel(
    outcomes: Sequence[Outcome], space: Mapping[str, Dimension], metric: str, chosen: int
) -> Figure:
    """A vertical axis for each setting that differs and one for the figure of the validation split; a line a trial.

    Args:
        outcomes: trials with a value.
        space: the settings that differ.
        metric: that figure.
        chosen: number of the best trial, whose line is bold.
    """
    figure = Figure(figsize=(_WIDTH_INCH, 3.6), layout="constrained")
    panel = figure.subplots()
    values = np.array([each.value for each in outcomes], dtype=np.float64)
    low, high = float(values.min()), float(values.max())
    heights = np.full(len(values), 0.5) if high == low else (values - low) / (high - low)
    for each, height in zip(outcomes, heights.tolist(), strict=True):
        places = [_place(dimension, each.record.drawn[name]) for name, dimension in space.items()]
        is_best = each.record.number == chosen
        panel.plot(
            range(len(places) + 1),
            [*places, height],
            color=_BEST if is_best else colormaps["viridis"](0.15 + 0.75 * height),
            linewidth=2.6 if is_best else 1.1,
            alpha=1.0 if is_best else 0.7,
            marker="o",
            markersize=3,
            zorder=3 if is_best else 2,
        )
    for number, (name, dimension) in enumerate(space.items()):
        _axis(panel, number, name, _ticks(dimension))
    _axis(
        panel,
        len(space),
        metric,
        [(0.0, f"{low:.4g}"), (1.0, f"{high:.4g}")] if high > low else [(0.5, f"{low:.4g}")],
    )
    panel.set(xlim=(-0.35, len(space) + 0.6), ylim=(-0.08, 1.16), xticks=(), yticks=())
    panel.spines[:].set_visible(False)
    return figure


def draw_learning(
    trials: Sequence[tuple[int, Shown]], rungs: Sequence[int], metric: str, chosen: int
) -> Figure:
    """What every trial showed on the validation split over the ECGs that it was trained on; a cross where it ended.

    Args:
        trials: number and what it has shown.
        rungs: of halving, in ECGs.
        metric: the figure.
        chosen: number of the best trial.
    """
    figure = Figure(figsize=(_WIDTH_INCH, 3.4), layout="constrained")
    panel = figure.subplots()
    for place, rung in enumerate(rungs):
        panel.axvline(
            rung, color=_RUNG, linewidth=0.8, linestyle="--", label="rung of halving" if not place else None
        )
    for number, shown in trials:
        if not shown:
            continue
        samples, values = zip(*shown, strict=True)
        is_best = number == chosen
        panel.plot(
            samples,
            values,
            color=_BEST if is_best else _OTHER,
            linewidth=2.2 if is_best else 1.0,
            marker=".",
            markersize=4,
            label=f"trial {number}, the best" if is_best else None,
            zorder=3 if is_best else 2,
        )
        panel.plot(
            samples[-1:],
            values[-1:],
            marker="x",
            color=_BEST if is_best else "#555555",
            markersize=6,
            zorder=4,
        )
        panel.annotate(
            str(number), (samples[-1], values[-1]), xytext=(5, -2), textcoords="offset points", fontsize=6.5
        )
    panel.set_xlabel("ECGs trained on", fontsize=8)
    panel.set_ylabel(metric, fontsize=8)
    panel.tick_params(labelsize=7)
    panel.xaxis.set_major_locator(MaxNLocator(6))
    panel.grid(color="#dddddd", linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(fontsize=7, frameon=False)
    return figure


def _place(dimension: Dimension, drawn: float) -> float:
    """Between 0 and 1; a choice is drawn by its number."""
    if dimension.choices is not None:
        last = len(dimension.choices) - 1
        return float(drawn) / last if last else 0.5
    assert dimension.low is not None
    assert dimension.high is not None
    low, high, value = dimension.low, dimension.high, float(drawn)
    if dimension.log:
        low, high, value = np.log(low), np.log(high), np.log(value)
    return float((value - low) / (high - low))


def _ticks(dimension: Dimension) -> list[tuple[float, str]]:
    if dimension.choices is not None:
        return [(_place(dimension, n), _short(json.dumps(each))) for n, each in enumerate(dimension.choices)]
    return [(0.0, f"{dimension.low:.3g}"), (1.0, f"{dimension.high:.3g}")]


def _short(text: str) -> str:
    text = text.strip('"')
    return text if len(text) <= _MOST_TEXT else f"{text[: _MOST_TEXT - 1]}…"


def _axis(panel: Axes, number: int, name: str, ticks: Sequence[tuple[float, str]]) -> None:
    panel.vlines(number, 0, 1, color="#333333", linewidth=0.9)
    panel.text(number, 1.08, name, ha="center", fontsize=8, parse_math=False)
    for place, text in ticks:
        panel.annotate(
            text, (number, place), xytext=(5, 0), textcoords="offset points", va="center", fontsize=7, parse_math=False,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.75}, zorder=5,
        )  # fmt: skip
