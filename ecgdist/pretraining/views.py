"""Change the view of a batch by augmentations, with draws that no rank and no micro-batch has a part in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from ecgdist.signals.augment import Augmentation, Randoms, View
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
        view: some rows of the global batch; it is left as it is.
        augmentations: in this order.
        rate_hz: sampling rate.
        draws: of the run.
        stream: of the view, e.g. `AUGMENT_STUDENT`.
        step: global step.
        positions: ``(batch,)`` positions of the rows in the global batch.
    """
    is_given = True
    for augmentation, key in zip(augmentations, stream_keys(augmentations), strict=True):
        uniform = draws.uniform((stream, *key), step, positions, 1 + augmentation.num_uniform)
        # Decided on the CPU, so that the device does not have to be asked how many rows there are.
        rows = np.flatnonzero(uniform[:, 0] < augmentation.p)
        if not len(rows):
            continue
        device, samples = view.signal_uv.device, view.signal_uv.shape[-1]
        normal = None
        if augmentation.num_normal:
            width = augmentation.num_normal * samples
            numbers = draws.normal((stream, *key), step, positions[rows], width, device)
            normal = numbers.view(len(rows), augmentation.num_normal, samples)
        randoms = Randoms(torch.from_numpy(uniform[rows, 1:]).to(device), normal)
        if len(rows) == len(positions):
            view = augmentation.apply(view, rate_hz, randoms)
        else:
            index = torch.from_numpy(rows).to(device)
            part = augmentation.apply(
                View(*(values.index_select(0, index) for values in view)), rate_hz, randoms
            )
            # Copied once, and then written into: most of the time would go into copies of whole batches.
            signal_uv = view.signal_uv.clone() if is_given else view.signal_uv
            signal_uv.index_copy_(0, index, part.signal_uv)
            view = View(signal_uv, view.valid_samples, view.lead_mask.index_copy(0, index, part.lead_mask))
        is_given = False
    return view
