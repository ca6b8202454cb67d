"""What a model says of rows of a corpus, batch by batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ecgdist.corpus import Corpus
from ecgdist.record import bits_to_mask

OfBatch = Callable[
    [npt.NDArray[np.int16], npt.NDArray[np.integer], npt.NDArray[np.bool_]], npt.NDArray[np.floating]
]
"""``(b, 12, num_samples)`` microvolt, ``(b,)`` valid samples and ``(b, 12)`` lead masks -> ``(b, width)``."""


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
    facts = corpus.columns("lead_mask", "valid_samples")
    lead_mask, valid = bits_to_mask(facts["lead_mask"].to_numpy()), facts["valid_samples"].to_numpy()
    found = np.full((corpus.manifest.rows, width), np.nan, dtype=dtype)
    for chosen, signals in corpus.iter_signals(rows, batch_rows):
        found[chosen] = of_batch(signals, valid[chosen], lead_mask[chosen])
    return found
