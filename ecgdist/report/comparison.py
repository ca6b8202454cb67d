"""The plot of a comparison: every arm's macro AUROC with its interval, and its seeds."""

from __future__ import annotations

from matplotlib.figure import Figure

from ecgdist.downstream.comparison import Comparison

_WIDTH_INCH = 7.0
_INTERVAL, _SEED = "#0b55c4", "#d1495b"


def draw_comparison(comparison: Comparison) -> Figure:
    """One line an arm, the first one on top: the mean over its seeds with its interval, and a mark for each seed."""
    figure = Figure(figsize=(_WIDTH_INCH, 1.2 + 0.45 * len(comparison.arms)), layout="constrained")
    panel = figure.subplots()
    for place, arm in enumerate(comparison.arms):
        auroc = arm.macro.auroc
        panel.plot([auroc.low, auroc.high], [place, place], color=_INTERVAL, linewidth=2)
        panel.plot([auroc.value], [place], marker="o", color=_INTERVAL, markersize=7)
        panel.plot(
            arm.auroc_by_seed,
            [place + 0.2] * len(arm.auroc_by_seed),
            linestyle="",
            marker="|",
            color=_SEED,
            markersize=9,
        )
    panel.set_yticks(range(len(comparison.arms)), [arm.arm for arm in comparison.arms])
    panel.set_ylim(len(comparison.arms) - 0.5, -0.5)
    panel.set_xlabel(
        f"macro AUROC, {comparison.title}: mean over seeds with 95 % interval (blue), seeds (red)", fontsize=8
    )
    panel.grid(axis="x", linewidth=0.4)
    return figure
