"""Predictions for rows of a corpus, shared among the processes that train together."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ecgdist.corpus import Corpus
from ecgdist.downstream.overrows import Batch, batches_of
from ecgdist.preprocessing import Preprocessing
from ecgdist.pretraining.group import Group
from ecgdist.record import NUM_LEADS

FloatArray = npt.NDArray[np.float64]
Forward = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Windows, valid samples and lead mask -> predictions ``(batch, outputs)``."""


def predict_rows(
    forward: Forward,
    preprocessing: Preprocessing,
    corpus: Corpus,
    rows: npt.NDArray[np.int64],
    batch_rows: int,
    device: torch.device,
    group: Group,
) -> FloatArray:
    """Predictions of rows, each the mean over its windows; the same on all ranks, which call this together.

    Under ZeRO-3 all ranks must run the model equally often; those with fewer rows run it on silence.

    Args:
        forward: the model.
        preprocessing: of the model.
        corpus: that holds the rows.
        rows: ``(n,)`` rows of its index, ascending.
        batch_rows: rows that pass through the model at once.
        device: of the model.
        group: all ranks.

    Returns:
        ``(n, outputs)``.
    """
    shares = np.array_split(rows, group.world_size)
    times = max(-(-len(share) // batch_rows) for share in shares)
    found = []
    own_batches = batches_of(corpus, shares[group.rank], batch_rows)
    for _, signal, valid_samples, lead_mask in _filled(own_batches, times, preprocessing.num_samples):
        present = torch.from_numpy(lead_mask).to(device)
        count = torch.from_numpy(valid_samples.astype(np.int64)).to(device)
        with group.whereabouts.at("a validation batch"), torch.no_grad():
            windows, valid = preprocessing.inputs(torch.from_numpy(signal).to(device), count, present)
            parts = [forward(w, v, present) for w, v in zip(windows.unbind(1), valid.unbind(1), strict=True)]
        found.append(torch.stack(parts).mean(dim=0).double())
    own = torch.cat(found)[: len(shares[group.rank])]
    return group.gather_rows(own, [len(share) for share in shares]).cpu().numpy()


def _filled(batches: Iterator[Batch], times: int, samples: int) -> Iterator[Batch]:
    """The batches, and silent ones of one row until there are `times`."""
    for batch in batches:
        times -= 1
        yield batch
    for _ in range(times):
        yield (
            np.zeros(1, np.int64),
            np.zeros((1, NUM_LEADS, samples), np.int16),
            np.zeros(1, np.int64),
            np.zeros((1, NUM_LEADS), np.bool_),
        )
