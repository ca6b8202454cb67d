"""ECGs drawn on ECG paper, in true scale: 25 mm per second and 10 mm per millivolt.

A figure is one sheet whose data coordinates are millimetres from its lower left corner, so that the scale
holds by construction: printed without resizing, the small squares are 1 mm.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ecgdist.errors import DataError
from ecgdist.record import STANDARD_LEADS

MM_PER_S = 25.0
MM_PER_MV = 10.0
_MM_PER_INCH = 25.4

# Sheet layout in millimetres; multiples of 5 keep every baseline on a thick line.
_MARGIN = 5.0
_PULSE = 10.0  # room for the calibration pulse: 1 mV for 0.2 s
_HEADER = 10.0
_HIGHEST = 40.0
_DEEPEST = 30.0
_LINE = 5.0  # of the notes below the traces
_MM_PER_LETTER = 1.75
_VEIL = 0.14  # opacity of the shade over hidden slots

_PAPER, _FINE, _THICK = "#fffafa", "#fbdcdc", "#f2a9a9"
_INK, _RECONSTRUCTED, _HIDDEN, _BEFORE = "#111111", "#0b55c4", "#3f5f8a", "#4f9be0"

Signal = npt.NDArray[np.floating]


def draw_record(
    signal_mv: Signal,
    rate_hz: float,
    leads: Sequence[str] = STANDARD_LEADS,
    title: str = "",
    rhythm: str = "II",
    notes: Sequence[str] = (),
) -> Figure:
    """One recording in the usual layout: 3 rows of 4 leads one after another, and a rhythm strip below.

    Args:
        signal_mv: ``(leads, samples)`` in millivolt; NaN is not drawn. The columns share its time equally,
            2.5 s each for the usual 10 s.
        rate_hz: sampling rate.
        leads: the name of each row; any of the twelve standard ones, in any order. The places of others stay
            empty.
        title: text above the traces.
        rhythm: the lead of the strip that shows the whole recording; the first there is if it is missing.
        notes: lines of text below the traces.

    Raises:
        DataError: if there is none of the twelve leads.
    """
    samples = signal_mv.shape[1]
    present = [lead for lead in STANDARD_LEADS if lead in leads]
    if not present:
        raise DataError(f"no lead to draw: none of {', '.join(leads)} is one of {', '.join(STANDARD_LEADS)}")
    rows = {lead: np.full(samples, np.nan) for lead in STANDARD_LEADS}
    rows |= {lead: signal_mv[_row(leads, lead)] for lead in present}
    rhythm = rhythm if rhythm in present else present[0]
    edges = [round(samples * column / 4) for column in range(5)]
    lines = [STANDARD_LEADS[line::3] for line in range(3)]
    bands = [np.concatenate([rows[name] for name in names]) for names in lines]
    sheet = _Sheet([*bands, rows[rhythm]], samples / rate_hz, title, notes)
    for line, names in enumerate(lines):
        for column, name in enumerate(names):
            start, stop = edges[column], edges[column + 1]
            sheet.trace(line, rows[name][start:stop], rate_hz, _INK, start / rate_hz)
            sheet.name(line, name if name in present else f"{name}: none", start / rate_hz)
            if column:
                sheet.divider(line, start / rate_hz)
    sheet.trace(len(lines), rows[rhythm], rate_hz, _INK)
    sheet.name(len(lines), rhythm, 0.0)
    return sheet.figure


def draw_reconstruction(
    original_mv: Signal,
    reconstruction_mv: Signal,
    hidden: npt.NDArray[np.bool_],
    rate_hz: float,
    leads: Sequence[str] = STANDARD_LEADS,
    show: Sequence[str] = ("I", "II", "V1", "V2", "V5"),
    title: str = "",
) -> Figure:
    """A model's reconstruction over the original, one lead under another.

    The reconstruction is drawn where the signal was hidden only: elsewhere it is not trained and means nothing.

    Args:
        original_mv: ``(leads, samples)`` in millivolt, as the model sees it (filtered), scaled back.
        reconstruction_mv: ``(leads, samples)`` in millivolt.
        hidden: ``(samples,)``, or ``(leads, samples)`` where leads differ, True where the model was not shown
            the signal.
        rate_hz: sampling rate.
        leads: the name of each row.
        show: the leads to draw.
        title: text above the traces.

    Raises:
        DataError: if a lead to draw is missing.
    """
    chosen = [_row(leads, lead) for lead in show]
    unseen = np.broadcast_to(hidden, original_mv.shape)[chosen]
    guess = np.where(unseen, reconstruction_mv[chosen], np.nan)
    extents = [np.concatenate([original_mv[row], guess[i]]) for i, row in enumerate(chosen)]
    sheet = _Sheet(extents, original_mv.shape[1] / rate_hz, title)
    if hidden.ndim == 1:
        sheet.shade(hidden, rate_hz)
    for line, row in enumerate(chosen):
        sheet.trace(line, original_mv[row], rate_hz, _INK)
        if hidden.ndim == 2:
            sheet.shade(unseen[line], rate_hz, line)
        sheet.trace(line, guess[line], rate_hz, _RECONSTRUCTED)
        sheet.name(line, show[line], 0.0)
    sheet.legend(
        [
            ("recorded", _INK, 1.0),
            ("reconstructed", _RECONSTRUCTED, 1.0),
            ("hidden from the model", _HIDDEN, _VEIL),
        ]
    )
    return sheet.figure


@dataclass(frozen=True)
class Change:
    """One lead before and after something was done to it.

    Attributes:
        before_mv, after_mv: ``(samples,)`` in millivolt; NaN is not drawn.
        lead: its name.
        caption: what was done, written above the strip.
    """

    before_mv: Signal
    after_mv: Signal
    lead: str
    caption: str = ""


def draw_changes(changes: Sequence[Change], rate_hz: float, title: str = "") -> Figure:
    """Leads one under another, each after a change over what it was before.

    Args:
        changes: of the same duration.
        rate_hz: sampling rate.
        title: text above the traces.
    """
    extents = [np.concatenate([change.before_mv, change.after_mv]) for change in changes]
    sheet = _Sheet(extents, len(changes[0].before_mv) / rate_hz, title)
    for line, change in enumerate(changes):
        sheet.trace(line, change.before_mv, rate_hz, _BEFORE)
        sheet.trace(line, change.after_mv, rate_hz, _INK)
        sheet.name(line, change.lead, 0.0)
        sheet.caption(line, change.caption)
    sheet.legend([("before", _BEFORE, 1.0), ("after", _INK, 1.0)])
    return sheet.figure


def width_mm(figure: Figure) -> float:
    """The width of a figure on paper."""
    return float(figure.get_size_inches()[0] * _MM_PER_INCH)


def png(figure: Figure, dots_per_inch: int = 144) -> bytes:
    """A figure as a PNG file."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=dots_per_inch)
    return buffer.getvalue()


class _Sheet:
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
        self.figure = Figure(
            figsize=(self.width / _MM_PER_INCH, self.height / _MM_PER_INCH), facecolor=_PAPER
        )
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
        self.axes.plot([x, x], [y - 3, y + 3], color=_INK, linewidth=0.7)

    def shade(self, hidden: npt.NDArray[np.bool_], rate_hz: float, line: int | None = None) -> None:
        """Shade the time slots where `hidden` is True, over one strip or, without `line`, over all."""
        edges = [*self.tops, self.bottom]
        top, bottom = (self.height - _HEADER, self.bottom) if line is None else (edges[line], edges[line + 1])
        changes = np.flatnonzero(np.diff(np.concatenate([[False], hidden, [False]]).astype(np.int8)))
        for start, stop in changes.reshape(-1, 2).tolist():
            x, width = (self.left + start / rate_hz * MM_PER_S, (stop - start) / rate_hz * MM_PER_S)
            self.axes.add_patch(
                Rectangle((x, bottom), width, top - bottom, color=_HIDDEN, alpha=_VEIL, linewidth=0)
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
        self.axes.plot(x, y + MM_PER_MV * np.array([0, 0, 1, 1, 0, 0]), color=_INK, linewidth=0.9)

    def _text(self, x: float, y: float, text: str, ha: str = "left", weight: str = "normal") -> None:
        # parse_math off: a `$` in a record's name is a dollar sign.
        self.axes.text(
            x, y, text, ha=ha, va="baseline", fontsize=8, weight=weight, color=_INK, parse_math=False
        )


def _band(signal_mv: Signal) -> tuple[float, float]:
    """Millimetres above and below the baseline that a signal needs, in 5 mm steps and within reason."""
    known = signal_mv[np.isfinite(signal_mv)]
    high, low = (float(known.max()), float(known.min())) if known.size else (0.0, 0.0)
    above = np.ceil((max(high, 1.0) * MM_PER_MV + 4) / 5) * 5
    below = np.ceil((max(-low, 0.0) * MM_PER_MV + 1) / 5) * 5
    return float(min(above, _HIGHEST)), float(min(below, _DEEPEST))


def _row(leads: Sequence[str], lead: str) -> int:
    if lead not in leads:
        raise DataError(f"lead {lead} is not in this recording, which has {', '.join(leads)}")
    return list(leads).index(lead)
