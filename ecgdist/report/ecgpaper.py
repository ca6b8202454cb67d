"""ECGs drawn on ECG paper, in true scale; see `Sheet`."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ecgdist.errors import DataError
from ecgdist.record import STANDARD_LEADS
from ecgdist.report.sheet import HIDDEN, INK, MM_PER_INCH, VEIL, Sheet, Signal

_RECONSTRUCTED, _BEFORE = "#0b55c4", "#4f9be0"


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
    sheet = Sheet([*bands, rows[rhythm]], samples / rate_hz, title, notes)
    for line, names in enumerate(lines):
        for column, name in enumerate(names):
            start, stop = edges[column], edges[column + 1]
            sheet.trace(line, rows[name][start:stop], rate_hz, INK, start / rate_hz)
            sheet.name(line, name if name in present else f"{name}: none", start / rate_hz)
            if column:
                sheet.divider(line, start / rate_hz)
    sheet.trace(len(lines), rows[rhythm], rate_hz, INK)
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
    sheet = Sheet(extents, original_mv.shape[1] / rate_hz, title)
    if hidden.ndim == 1:
        sheet.shade(hidden, rate_hz)
    for line, row in enumerate(chosen):
        sheet.trace(line, original_mv[row], rate_hz, INK)
        if hidden.ndim == 2:
            sheet.shade(unseen[line], rate_hz, line)
        sheet.trace(line, guess[line], rate_hz, _RECONSTRUCTED)
        sheet.name(line, show[line], 0.0)
    sheet.legend(
        [
            ("recorded", INK, 1.0),
            ("reconstructed", _RECONSTRUCTED, 1.0),
            ("hidden from the model", HIDDEN, VEIL),
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
    sheet = Sheet(extents, len(changes[0].before_mv) / rate_hz, title)
    for line, change in enumerate(changes):
        sheet.trace(line, change.before_mv, rate_hz, _BEFORE)
        sheet.trace(line, change.after_mv, rate_hz, INK)
        sheet.name(line, change.lead, 0.0)
        sheet.caption(line, change.caption)
    sheet.legend([("before", _BEFORE, 1.0), ("after", INK, 1.0)])
    return sheet.figure


def width_mm(figure: Figure) -> float:
    """The width of a figure on paper."""
    return float(figure.get_size_inches()[0] * MM_PER_INCH)


def png(figure: Figure, dots_per_inch: int = 144) -> bytes:
    """A figure as a PNG file."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=dots_per_inch)
    return buffer.getvalue()


def _row(leads: Sequence[str], lead: str) -> int:
    if lead not in leads:
        raise DataError(f"lead {lead} is not in this recording, which has {', '.join(leads)}")
    return list(leads).index(lead)
