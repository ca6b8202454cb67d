"""Occlusion drawn over an ECG on paper: what a prediction rests on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from ecgdist.downstream.occlusion import Occlusion
from ecgdist.record import STANDARD_LEADS
from ecgdist.report.sheet import INK, Sheet, Signal

_LOWER, _HIGHER = "#d97706", "#0b55c4"
_STRONGEST = 0.75  # opacity of the largest change


def draw_occlusion(
    signal_mv: Signal,
    rate_hz: float,
    found: Occlusion,
    leads: Sequence[str] = STANDARD_LEADS,
    title: str = "",
) -> Figure:
    """Every lead over the whole segment, each place coloured by the change of the prediction without it.

    The colour is as strong as the change, in proportion to the largest one of the ECG.

    Args:
        signal_mv: ``(leads, samples)`` in millivolt, without padding.
        rate_hz: sampling rate.
        found: of the same segment.
        leads: the name of each row.
        title: text above the traces.
    """
    samples = signal_mv.shape[1]
    present = [row for row in range(len(leads)) if not np.isnan(found.change[row]).all()]
    sheet = Sheet([signal_mv[row] for row in present], samples / rate_hz, title)
    largest = max(found.largest, float(np.finfo(np.float64).tiny))
    edges_s = np.minimum(np.arange(found.change.shape[1] + 1) * found.place_samples, samples) / rate_hz
    for line, row in enumerate(present):
        change = np.nan_to_num(found.change[row])
        colours = np.where((change < 0)[:, None], to_rgba(_LOWER), to_rgba(_HIGHER))
        colours[:, 3] = _STRONGEST * np.abs(change) / largest
        sheet.tint(line, edges_s, colours)
        sheet.trace(line, signal_mv[row], rate_hz, INK)
        sheet.name(line, leads[row], 0.0)
    sheet.legend([("lower without it", _LOWER, _STRONGEST), ("higher without it", _HIGHER, _STRONGEST)])
    return sheet.figure
