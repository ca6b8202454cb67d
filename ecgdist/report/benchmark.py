"""The plot of a benchmark: for each task, what every way to use a model makes of more and more labels."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from ecgdist.downstream.benchmark.result import TITLES, Benchmark, TaskResult

_PANEL_INCH = (5.2, 4.0)
_COLOURS = ("#0b55c4", "#8a8a8a", "#b3446c", "#2f7d4f", "#d9822b", "#6a3d9a", "#1a1a1a")
_MARKS = "osD^vPX"
_APART = 1.05
"""Factor between neighbouring modes at one share, so that their intervals do not cover each other."""


def draw_benchmark(found: Benchmark) -> Figure:
    """A panel for each task: means over seeds with 95 % intervals, and a faint mark for each seed."""
    width, height = _PANEL_INCH
    figure = Figure(figsize=(width * len(found.tasks), height + 0.6), layout="constrained")
    for panel, task in zip(figure.subplots(1, len(found.tasks), squeeze=False)[0], found.tasks, strict=True):
        _panel(panel, task)
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside lower center", ncols=min(4, len(names)), fontsize=8, frameon=False
    )
    return figure


def _panel(panel: Axes, task: TaskResult) -> None:
    modes = list(dict.fromkeys(way.mode for way in task.ways))
    metric = task.metrics[0]
    for number, mode in enumerate(modes):
        ways = [way for way in task.ways if way.mode == mode and way.error is None]
        colour, mark = _COLOURS[number % len(_COLOURS)], _MARKS[number % len(_MARKS)]
        shift = _APART ** (number - (len(modes) - 1) / 2)
        places = [100 * way.share * shift for way in ways]
        figures = [way.figures[metric] for way in ways]
        values = [each.value for each in figures]
        panel.plot(places, values, color=colour, marker=mark, markersize=5, linewidth=1.4, label=TITLES[mode])
        panel.vlines(
            places, [each.low for each in figures], [each.high for each in figures], color=colour, linewidth=1
        )
        for place, way in zip(places, ways, strict=True):
            seeds = [each.figures[metric] for each in way.predictors]
            panel.plot(
                [place] * len(seeds), seeds, linestyle="", marker=mark, markersize=3, color=colour, alpha=0.35
            )
    shares = sorted({way.share for way in task.ways})
    panel.set_xscale("log")
    panel.set_xticks([100 * share for share in shares], [f"{100 * share:.3g} %" for share in shares])
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xlabel("training patients whose labels are used", fontsize=8)
    panel.set_ylabel(task.titles[0], fontsize=8)
    panel.set_title(task.title, fontsize=9, parse_math=False)
    panel.tick_params(labelsize=8)
    panel.grid(color="#dddddd", linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)
