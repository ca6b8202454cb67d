"""The reliability plot: what is called probable, and how often it is true."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from ecgdist.downstream.calibration import Reliability

_MOST_PANELS = 12
_COLUMNS = 4
_PANEL_INCH = 1.8
_LARGEST_MARK = 60.0
_LINE, _DIAGONAL = "#0b55c4", "#888888"


def draw_reliability(diagrams: Sequence[Reliability]) -> Figure:
    """One small panel per label: the share of positives over the mean probability of each bin.

    Of more than `_MOST_PANELS` labels, those with the most positives are drawn.
    """
    chosen = sorted(sorted(diagrams, key=_positives, reverse=True)[:_MOST_PANELS], key=diagrams.index)
    columns = min(_COLUMNS, len(chosen))
    lines = -(-len(chosen) // columns)
    # One panel alone leaves no room above and below its square.
    height = lines * _PANEL_INCH + (0.3 if len(chosen) > 1 else 0.0)
    figure = Figure(figsize=(columns * _PANEL_INCH, height), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    for panel in panels.flat[len(chosen) :]:
        panel.set_visible(False)
    for panel, diagram in zip(panels.flat, chosen, strict=False):
        probability = [each.probability for each in diagram.bins]
        positives = [each.positives for each in diagram.bins]
        records = np.array([each.records for each in diagram.bins])
        panel.plot([0, 1], [0, 1], color=_DIAGONAL, linewidth=0.6)
        panel.plot(probability, positives, color=_LINE, linewidth=0.8)
        panel.scatter(
            probability, positives, s=3 + _LARGEST_MARK * records / records.max(), color=_LINE, alpha=0.6
        )
        panel.set_title(
            f"{diagram.label} ({_positives(diagram):.0f} positives)", fontsize=7, parse_math=False
        )
        panel.set(
            xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1), aspect="equal"
        )
        panel.tick_params(labelsize=6, labelbottom=True)
        panel.grid(linewidth=0.3)
    few = (
        f", the {len(chosen)} most frequent of {len(diagrams)} labels" if len(chosen) < len(diagrams) else ""
    )
    figure.supxlabel(f"predicted probability{few}", fontsize=8)
    figure.supylabel("share of positives", fontsize=8)
    return figure


def _positives(diagram: Reliability) -> float:
    return sum(each.records * each.positives for each in diagram.bins)
