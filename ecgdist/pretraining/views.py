"""Change the view of a batch by augmentations, with draws that no rank and no micro-batch has a part in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from ecgdist.signals.augment import Augmentation, Randoms, Rows, View
from ecgdist.signals.augment.choice import stream_keys
from ecgdist.streaming.draws import Draws


def augment(
    view: View,
    augmentations: Sequence[Augmentation],
    rate_hz: float,
    draws: Draws,
    stream: int,
    step: int,
    positions: npt.NDArray[np.int64],
) -> View:
    """Apply `augmentations` one after another, each to the rows that it is drawn for.

    Args:
        view: some rows of the global batch. Its signal is overwritten: most of the time would go into copies of whole
            batches.
        augmentations: in this order.
        rate_hz: sampling rate.
        draws: of the run.
        stream: of the view, e.g. `AUGMENT_STUDENT`.
        step: global step.
        positions: ``(batch,)`` positions of the rows in the global batch.
    """
    device, samples = view.signal_uv.device, view.signal_uv.shape[-1]
    for augmentation, key in zip(augmentations, stream_keys(augmentations), strict=True):
        uniform = draws.uniform((stream, *key), step, positions, 1 + augmentation.num_uniform)
        # Decided on the CPU, so that the device does not have to be asked how many rows there are.
        chosen = np.flatnonzero(uniform[:, 0] < augmentation.p)
        if not len(chosen):
            continue
        normal = None
        if augmentation.num_normal:
            width = augmentation.num_normal * samples
            numbers = draws.normal((stream, *key), step, positions[chosen], width, device)
            normal = numbers.view(len(chosen), augmentation.num_normal, samples)
        randoms = Randoms(torch.from_numpy(uniform[chosen, 1:]).to(device), normal)
        is_all = len(chosen) == len(positions)
        rows = Rows(view, None if is_all else torch.from_numpy(chosen).to(device))
        view = augmentation.effect(rows, rate_hz, randoms).write(rows)
    return view
