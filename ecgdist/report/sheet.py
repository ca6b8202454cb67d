"""A sheet of ECG paper, in true scale: 25 mm per second and 10 mm per millivolt.

A figure is one sheet whose data coordinates are millimetres from its lower left corner, so that the scale
holds by construction: printed without resizing, the small squares are 1 mm.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

MM_PER_S = 25.0
MM_PER_MV = 10.0
MM_PER_INCH = 25.4

# Sheet layout in millimetres; multiples of 5 keep every baseline on a thick line.
_MARGIN = 5.0
_PULSE = 10.0  # room for the calibration pulse: 1 mV for 0.2 s
_HEADER = 10.0
_HIGHEST = 40.0
_DEEPEST = 30.0
_LINE = 5.0  # of the notes below the traces
_MM_PER_LETTER = 1.75
VEIL = 0.14
"""Opacity of the shade over hidden slots."""

_PAPER, _FINE, _THICK = "#fffafa", "#fbdcdc", "#f2a9a9"
INK, HIDDEN = "#111111", "#3f5f8a"

Signal = npt.NDArray[np.floating]


class Sheet:
    """Paper with one strip per signal, its baselines, and the calibration pulse before each strip."""

    def __init__(
        self, signals: Sequence[Signal], duration_s: float, title: str, notes: Sequence[str] = ()
    ) -> None:
        bands = [_band(signal) for signal in signals]
        self.left = _MARGIN + _PULSE
        self.width = self.left + np.ceil(duration_s * MM_PER_S / 5) * 5 + _MARGIN
        letters = int((self.width - self.left) / _MM_PER_LETTER)
        lines = [line for note in notes for line in textwrap.wrap(note, letters)]
        self.bottom = _MARGIN + _LINE * len(lines)
        self.height = _HEADER + sum(above + below for above, below in bands) + self.bottom
        self.baselines: list[float] = []
        self.tops: list[float] = []
        top = self.height - _HEADER
        for above, below in bands:
            self.tops.append(top)
            self.baselines.append(top - above)
            top -= above + below
        self.figure = Figure(figsize=(self.width / MM_PER_INCH, self.height / MM_PER_INCH), facecolor=_PAPER)
        self.axes: Axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set_xlim(0, self.width)
        self.axes.set_ylim(0, self.height)
        self.axes.set_axis_off()
        self._grid(1.0, _FINE, 0.35)
        self._grid(5.0, _THICK, 0.6)
        for line in range(len(signals)):
            self._pulse(line)
        self._text(self.left, self.height - 6, title, weight="bold")
        for number, text in enumerate(lines, start=1):
            self._text(self.left, self.bottom - _LINE * number + 1.5, text)
        self._text(self.width - _MARGIN, 1.5, f"{MM_PER_S:g} mm/s   {MM_PER_MV:g} mm/mV", ha="right")

    def trace(self, line: int, signal_mv: Signal, rate_hz: float, colour: str, start_s: float = 0.0) -> None:
        """Draw one signal on the baseline of a strip; what is too high for the strip leaves it and is cut off."""
        x = self.left + (start_s + np.arange(len(signal_mv)) / rate_hz) * MM_PER_S
        (trace,) = self.axes.plot(
            x, self.baselines[line] + signal_mv * MM_PER_MV, color=colour, linewidth=0.9
        )
        bottom = [*self.tops[1:], self.bottom][line]
        strip = Rectangle((0, bottom), self.width, self.tops[line] - bottom, transform=self.axes.transData)
        trace.set_clip_path(strip)

    def name(self, line: int, lead: str, start_s: float) -> None:
        """Write a lead's name at the top of its strip."""
        self._text(self.left + start_s * MM_PER_S + 1, self.tops[line] - 4, lead, weight="bold")

    def caption(self, line: int, text: str) -> None:
        """Write a text at the top of a strip, beside the lead's name."""
        self._text(self.left + 20, self.tops[line] - 4, text)

    def divider(self, line: int, at_s: float) -> None:
        """Mark where one lead ends and the next begins."""
        x = self.left + at_s * MM_PER_S
        y = self.baselines[line]
        self.axes.plot([x, x], [y - 3, y + 3], color=INK, linewidth=0.7)

    def shade(self, hidden: npt.NDArray[np.bool_], rate_hz: float, line: int | None = None) -> None:
        """Shade the time slots where `hidden` is True, over one strip or, without `line`, over all."""
        edges = [*self.tops, self.bottom]
        top, bottom = (self.height - _HEADER, self.bottom) if line is None else (edges[line], edges[line + 1])
        changes = np.flatnonzero(np.diff(np.concatenate([[False], hidden, [False]]).astype(np.int8)))
        for start, stop in changes.reshape(-1, 2).tolist():
            x, width = (self.left + start / rate_hz * MM_PER_S, (stop - start) / rate_hz * MM_PER_S)
            self.axes.add_patch(
                Rectangle((x, bottom), width, top - bottom, color=HIDDEN, alpha=VEIL, linewidth=0)
            )

    def tint(self, line: int, edges_s: Signal, colours: npt.NDArray[np.floating]) -> None:
        """Colour stretches of one strip, ``(n, 4)`` with opacity, between ``(n + 1,)`` times."""
        x = self.left + edges_s * MM_PER_S
        top, bottom = [*self.tops, self.bottom][line : line + 2]
        boxes = [
            [(left, bottom), (right, bottom), (right, top), (left, top)]
            for left, right in pairwise(x.tolist())
        ]
        # Not antialiased: where two half-covered edges meet, the paper would shine through.
        self.axes.add_collection(
            PolyCollection(boxes, facecolors=colours, linewidths=0, antialiased=False), autolim=False
        )

    def legend(self, entries: Sequence[tuple[str, str, float]]) -> None:
        """Explain colours, each a (text, colour, opacity), at the upper right."""
        x = self.width - _MARGIN
        for text, colour, alpha in reversed(entries):
            x -= _MM_PER_LETTER * len(text) + 3
            self._text(x, self.height - 6, text)
            key = Rectangle((x - 7, self.height - 6), 5.5, 2, color=colour, alpha=alpha, linewidth=0)
            self.axes.add_patch(key)
            x -= 10

    def _grid(self, step_mm: float, colour: str, linewidth: float) -> None:
        xs = np.arange(0, self.width + step_mm / 2, step_mm)
        ys = np.arange(0, self.height + step_mm / 2, step_mm)
        lines = [[(x, 0), (x, self.height)] for x in xs] + [[(0, y), (self.width, y)] for y in ys]
        self.axes.add_collection(LineCollection(lines, colors=colour, linewidths=linewidth, zorder=0))

    def _pulse(self, line: int) -> None:
        y = self.baselines[line]
        x = _MARGIN + np.array([0.0, 2.0, 2.0, 7.0, 7.0, 9.0])
        self.axes.plot(x, y + MM_PER_MV * np.array([0, 0, 1, 1, 0, 0]), color=INK, linewidth=0.9)

    def _text(self, x: float, y: float, text: str, ha: str = "left", weight: str = "normal") -> None:
        # parse_math off: a `$` in a record's name is a dollar sign.
        self.axes.text(
            x, y, text, ha=ha, va="baseline", fontsize=8, weight=weight, color=INK, parse_math=False
        )


def _band(signal_mv: Signal) -> tuple[float, float]:
    """Millimetres above and below the baseline that a signal needs, in 5 mm steps and within reason."""
    known = signal_mv[np.isfinite(signal_mv)]
    high, low = (float(known.max()), float(known.min())) if known.size else (0.0, 0.0)
    above = np.ceil((max(high, 1.0) * MM_PER_MV + 4) / 5) * 5
    below = np.ceil((max(-low, 0.0) * MM_PER_MV + 1) / 5) * 5
    return float(min(above, _HIGHEST)), float(min(below, _DEEPEST))
