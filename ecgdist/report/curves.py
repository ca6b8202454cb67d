"""Curves of a pretraining run, drawn from its metrics rows."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

Rows = Sequence[Mapping[str, float]]

LOSSES = {
    "loss": "total loss",
    "reconstruction": "reconstruction",
    "prediction": "masked prediction",
    "contrastive": "contrastive",
}
PROGRESS = {
    "learning_rate": "learning rate",
    "gradient_norm": "gradient norm",
    "code_perplexity": "codes in use (of a codebook)",
    "ecg_per_s": "ECG per second",
    "waiting_share": "time waiting for data (share)",
}

# Below this many points a curve is drawn as it is; above, its running mean is drawn over it.
_SMOOTH_FROM = 60
_WIDTH_INCH = 11.0
_COLOUR = "#0b55c4"


def present(rows: Rows, names: Mapping[str, str]) -> dict[str, str]:
    """The `names` that at least one row has: a pure generative run has no contrastive part."""
    return {key: title for key, title in names.items() if any(key in row for row in rows)}


def draw_curves(rows: Rows, names: Mapping[str, str]) -> Figure:
    """One panel per quantity over the number of ECGs seen.

    Args:
        rows: metrics with ``step``, ``samples`` (ECGs seen so far) and any of the quantities, in order.
        names: key and title of each quantity to draw; each is in at least one row.
    """
    figure = Figure(figsize=(_WIDTH_INCH, 2.6), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for panel, (key, title) in zip(panels, names.items(), strict=True):
        chosen = [row for row in rows if key in row]
        values = np.array([row[key] for row in chosen])
        # The learning rate is a schedule, not a measurement: there is no noise to look through.
        smooth = len(values) >= _SMOOTH_FROM and key != "learning_rate"
        _panel(panel, chosen, values, title, smooth)
    return figure


def svg(figure: Figure) -> bytes:
    """A figure as an SVG file, the same bytes for the same figure; its text is shapes and needs no font."""
    buffer = io.BytesIO()
    FigureCanvasSVG(figure)
    with matplotlib.rc_context({"svg.hashsalt": "ecgdist"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _panel(panel: Axes, rows: Rows, values: npt.NDArray[np.float64], title: str, smooth: bool) -> None:
    samples = np.array([row["samples"] for row in rows])
    panel.plot(samples, values, color=_COLOUR, linewidth=1.4, alpha=0.3 if smooth else 1.0)
    if smooth:
        window = len(values) // 20 * 2 + 1
        panel.plot(samples, _running_mean(values, window), color=_COLOUR, linewidth=1.6)
        panel.annotate(
            f"bold: mean of {window} points",
            (1, 1),
            xycoords="axes fraction",
            ha="right",
            va="top",
            fontsize=6.5,
        )
    panel.set_title(title, fontsize=9)
    per_step = rows[-1]["samples"] / max(rows[-1]["step"], 1)
    panel.set_xlabel(f"ECGs seen ({per_step:g} per step)", fontsize=8)
    panel.tick_params(labelsize=7)
    panel.grid(color="#dddddd", linewidth=0.6)
    panel.xaxis.set_major_locator(MaxNLocator(4))
    panel.spines[["top", "right"]].set_visible(False)


def _running_mean(values: npt.NDArray[np.float64], window: int) -> npt.NDArray[np.float64]:
    """The mean of up to `window` neighbours, fewer at both ends; the same length as `values`."""
    kernel = np.ones(window)
    return np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same")
