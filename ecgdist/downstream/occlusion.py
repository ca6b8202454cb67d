"""Occlusion: how much a prediction changes where a part of the ECG is taken away.

After Zeiler and Fergus (ECCV 2014, section 4.2): a window slides over time, in each lead by itself; inside it the
model's input (filtered and scaled, so that zero is the mean of the ECG) is set to zero, and the prediction is made
again. Windows overlap by half, and a place is given the mean change of the windows that cover it.

What is found is what this model's prediction rests on, not what is wrong with the heart; and a flat stretch is
something that the model has never seen, to which it may react in its own way.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ecgdist.downstream.outcome import Predictor
from ecgdist.record import NUM_LEADS

WINDOW_S = 0.4
"""About as long as the QT interval, so that a QRS complex with its repolarisation fits into it."""
PLACES_PER_WINDOW = 2

_AT_ONCE = 32

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Occlusion:
    """How a prediction changes by the place that is occluded.

    Attributes:
        prediction: for the whole ECG.
        change: ``(leads, places)``, prediction without the place minus `prediction`; NaN where a lead is missing, and
            in places that the model does not look at.
        place_samples: length of a place, half a window; the last one may be shorter.
    """

    prediction: float
    change: FloatArray
    place_samples: int

    @property
    def largest(self) -> float:
        """The largest change in either direction."""
        return float(np.nanmax(np.abs(self.change), initial=0.0))


@torch.no_grad()
def occlude(
    predictor: Predictor,
    signal_uv: npt.NDArray[np.int16],
    valid_samples: int,
    lead_mask: npt.NDArray[np.bool_],
    column: int,
) -> Occlusion:
    """Occlude one segment of a corpus, lead by lead and place by place.

    Args:
        predictor: what predicts.
        signal_uv: ``(12, num_samples)`` microvolt.
        valid_samples: how many of them are signal.
        lead_mask: ``(12,)``, True where a lead is present.
        column: of the predictions, which is watched.
    """
    pre = predictor.preprocessing
    valid, present = torch.tensor([valid_samples]), torch.from_numpy(lead_mask)[None]
    windows, window_valid = pre.inputs(torch.from_numpy(signal_uv)[None], valid, present)
    # (windows, samples): which sample of the segment each sample of a window is.
    sample = pre.window_starts(valid)[0][:, None] + torch.arange(pre.window_samples)
    place = max(1, round(WINDOW_S * pre.pack.rate_hz / PLACES_PER_WINDOW))
    edges = torch.arange(0, valid_samples, place)
    begins = edges[: max(1, len(edges) - PLACES_PER_WINDOW + 1)]

    def predict(inputs: Tensor) -> FloatArray:
        rows = len(inputs)
        return predictor(inputs, window_valid.expand(rows, -1), present.expand(rows, -1))[:, column]

    whole = float(predict(windows)[0])
    seen = (
        ((sample >= edges[:, None, None]) & (sample < edges[:, None, None] + place)).any(dim=(1, 2)).numpy()
    )
    change = np.full((NUM_LEADS, len(edges)), np.nan)
    for lead in np.flatnonzero(lead_mask).tolist():
        without = [
            predict(_occluded(windows, sample, lead, part, PLACES_PER_WINDOW * place))
            for part in torch.split(begins, _AT_ONCE)
        ]
        change[lead] = np.where(seen, _by_place(np.concatenate(without) - whole, len(edges)), np.nan)
    return Occlusion(whole, change, place)


def _occluded(windows: Tensor, sample: Tensor, lead: int, begins: Tensor, length: int) -> Tensor:
    """Copies of ``(1, windows, 12, samples)``, one for each begin, each of them zero in one stretch of a lead."""
    first = begins[:, None, None]
    hidden = (sample >= first) & (sample < first + length)
    copies = windows.repeat(len(begins), 1, 1, 1)
    copies[:, :, lead].masked_fill_(hidden, 0.0)
    return copies


def _by_place(change: FloatArray, num_places: int) -> FloatArray:
    """``(places,)`` mean changes of the windows that cover each place, by the changes of all windows in order."""
    total, count = np.zeros(num_places), np.zeros(num_places)
    for begin, value in enumerate(change.tolist()):
        total[begin : begin + PLACES_PER_WINDOW] += value
        count[begin : begin + PLACES_PER_WINDOW] += 1
    return total / count
