"""What a model says of rows of a corpus, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ecgdist.corpus import Corpus
from ecgdist.record import bits_to_mask

OfBatch = Callable[
    [npt.NDArray[np.int16], npt.NDArray[np.integer], npt.NDArray[np.bool_]], npt.NDArray[np.floating]
]
"""``(b, 12, num_samples)`` microvolt, ``(b,)`` valid samples and ``(b, 12)`` lead masks -> ``(b, width)``."""


Batch = tuple[npt.NDArray[np.int64], npt.NDArray[np.int16], npt.NDArray[np.integer], npt.NDArray[np.bool_]]
"""``(b,)`` rows, and of these what `OfBatch` takes."""


def batches_of(corpus: Corpus, rows: npt.NDArray[np.int64], batch_rows: int) -> Iterator[Batch]:
    """The signals of chosen rows, a batch at a time."""
    facts = corpus.columns("lead_mask", "valid_samples")
    lead_mask, valid = bits_to_mask(facts["lead_mask"].to_numpy()), facts["valid_samples"].to_numpy()
    for chosen, signal_uv in corpus.iter_signals(rows, batch_rows):
        yield chosen, signal_uv, valid[chosen], lead_mask[chosen]


def over_rows(
    of_batch: OfBatch,
    corpus: Corpus,
    rows: npt.NDArray[np.int64],
    batch_rows: int,
    width: int,
    dtype: npt.DTypeLike = np.float64,
) -> npt.NDArray[Any]:
    """Call a function on the signals of chosen rows.

    Returns:
        ``(rows of the index, width)``; NaN for rows that were not chosen.
    """
    found = np.full((corpus.manifest.rows, width), np.nan, dtype=dtype)
    for chosen, signal_uv, valid, lead_mask in batches_of(corpus, rows, batch_rows):
        found[chosen] = of_batch(signal_uv, valid, lead_mask)
    return found
