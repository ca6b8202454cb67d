"""Plots of what a corpus holds, one line or bar for each source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, PercentFormatter

from ecgdist.corpus.counts import Codes

Counts = Mapping[str, Mapping[str, int]]
Floats = npt.NDArray[np.float64]

_WIDTH_INCH = 11.0
_BINS = 60
_LIMIT = "#8a4700"
_SEX_COLOURS = {"female": "#b3446c", "male": "#0b55c4", "unknown": "#9a9a9a"}


def draw_rates_and_lengths(rates: Counts, lengths: Counts) -> Figure:
    """Left: rows of each source by sampling rate; right: its records by length, each as a share of the source."""
    height = max(1.7, 1.0 + 0.28 * len(rates))
    figure = Figure(figsize=(_WIDTH_INCH, height), layout="constrained")
    left, right = figure.subplots(1, 2)
    _stacked_shares(left, rates, "sampling rate of the source", "Hz")
    edges = np.array([0, 5, 7, 9, 11, 15, 30, 60, 120, 300, 900, 3600, np.inf])
    names = [_span(low, high) for low, high in pairwise(edges.tolist())]
    classes = {}
    for source, counts in lengths.items():
        values = np.array([float(name) for name in counts])
        found, _ = np.histogram(values, edges, weights=np.array(list(counts.values())))
        classes[source] = {name: int(count) for name, count in zip(names, found, strict=True) if count}
    _stacked_shares(right, classes, "length of the recording", "s", names)
    return figure


@dataclass(frozen=True)
class Histogram:
    """How a quantity is spread over the rows of each source, on a logarithmic axis.

    Attributes:
        title: what it is.
        unit: of the axis.
        edges: ``(bins + 1,)``; what lies beyond is counted in the first or the last bin.
        shares: ``(bins,)`` share of the rows that have a value, by source.
        limit: a value to mark.
        meaning: the flag of rows beyond it.
    """

    title: str
    unit: str
    edges: Floats
    shares: Mapping[str, Floats]
    limit: float
    meaning: str

    @classmethod
    def of(
        cls,
        title: str,
        unit: str,
        values: Floats,
        source: Codes,
        low: float,
        high: float,
        limit: float,
        meaning: str,
    ) -> Histogram:
        """Count `values` in bins from `low` to `high`; NaN is no value."""
        edges = np.geomspace(low, high, _BINS + 1)
        bins = np.digitize(values, edges[1:-1])
        shares = {}
        for number, name in enumerate(source.names):
            mine = (source.codes == number) & ~np.isnan(values)
            if mine.any():
                shares[name] = np.bincount(bins[mine], minlength=_BINS) / mine.sum()
        return cls(title, unit, edges, shares, limit, meaning)


def draw_histograms(histograms: Sequence[Histogram]) -> Figure:
    """A panel for each histogram, with one line for each source."""
    figure = Figure(figsize=(_WIDTH_INCH, 3.2), layout="constrained")
    panels = figure.subplots(1, len(histograms), squeeze=False)[0]
    sources = sorted({source for histogram in histograms for source in histogram.shares})
    colours = dict(zip(sources, _colours(len(sources)), strict=True))
    for panel, histogram in zip(panels, histograms, strict=True):
        for source, share in histogram.shares.items():
            panel.stairs(share, histogram.edges, color=colours[source], linewidth=1.5)
        panel.set_xscale("log")
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.axvline(histogram.limit, color=_LIMIT, linewidth=1, linestyle="--")
        panel.annotate(
            histogram.meaning,
            (histogram.limit, 0.98),
            xycoords=("data", "axes fraction"),
            fontsize=7,
            color=_LIMIT,
            rotation=90,
            ha="right",
            va="top",
        )
        panel.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        _plain(panel, histogram.title, histogram.unit)
    keys = [Line2D([], [], color=colour) for colour in colours.values()]
    panels[-1].legend(keys, sources, fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def draw_people(age_by_sex: Counts, records_per_patient: Mapping[str, int]) -> Figure:
    """Left: rows by age and sex; right: patients by their number of records."""
    figure = Figure(figsize=(_WIDTH_INCH, 3.0), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    decades = [f"{first} to {first + 9}" for first in range(0, 100, 10)] + ["100 or more"]
    known = [sex for sex in _SEX_COLOURS if any(decade in age_by_sex.get(sex, {}) for decade in decades)]
    width = 0.8 / max(len(known), 1)
    for number, sex in enumerate(known):
        heights = [age_by_sex[sex].get(decade, 0) for decade in decades]
        places = np.arange(len(decades)) + (number - (len(known) - 1) / 2) * width
        left.bar(places, heights, width, color=_SEX_COLOURS[sex], label=sex)
    left.set_xticks(range(len(decades)), [_short(decade) for decade in decades])
    left.legend(fontsize=8, frameon=False)
    _plain(left, "age and sex", "years; rows")
    right.bar(range(len(records_per_patient)), list(records_per_patient.values()), color="#0b55c4")
    right.set_xticks(range(len(records_per_patient)), [_short(name) for name in records_per_patient])
    right.set_yscale("log")
    right.set_ylim(bottom=0.8)
    _plain(right, "records per patient", "records; patients, logarithmic")
    for panel in (left, right):
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    return figure


def _stacked_shares(
    panel: Axes, counts: Counts, title: str, unit: str, order: Sequence[str] | None = None
) -> None:
    """A bar of full length for each source, cut by the share of each class."""
    found = {name for classes in counts.values() for name in classes}
    classes = [name for name in order or sorted(found, key=float) if name in found]
    sources = list(counts)
    start = np.zeros(len(sources))
    for colour, name in zip(_colours(len(classes)), classes, strict=True):
        share = np.array([counts[s].get(name, 0) / max(sum(counts[s].values()), 1) for s in sources])
        panel.barh(range(len(sources)), share, left=start, color=colour, label=name, height=0.7)
        start += share
    panel.set_yticks(range(len(sources)), sources)
    panel.invert_yaxis()
    panel.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    _plain(panel, title, "share of the source")
    panel.legend(
        title=unit, fontsize=7, title_fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1, 1)
    )


def _plain(panel: Axes, title: str, unit: str) -> None:
    panel.set_title(title, fontsize=9)
    panel.set_xlabel(unit, fontsize=8)
    panel.tick_params(labelsize=7)
    panel.spines[["top", "right"]].set_visible(False)
    panel.set_axisbelow(True)
    panel.grid(color="#e4e4e4", linewidth=0.6)


def _colours(count: int) -> list[tuple[float, float, float]]:
    palette = matplotlib.colormaps["tab10" if count <= 10 else "tab20"].colors  # type: ignore[attr-defined]
    return [palette[number % len(palette)] for number in range(count)]


def _span(low: float, high: float) -> str:
    return f"{low:g} or more" if np.isinf(high) else f"{low:g} to {high:g}"


def _short(name: str) -> str:
    """An axis has little room."""
    return name.replace(" to ", "-").replace(" or more", "+").replace("more than ", ">")
