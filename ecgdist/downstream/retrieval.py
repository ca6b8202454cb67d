"""Does an embedding know a recording again? Find the other half of each among those of others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ecgdist.corpus import Corpus
from ecgdist.downstream.overrows import batches_of
from ecgdist.modelfolder import Model

BATCH = 64
"""Recordings among which the other half is looked for; chance is one in so many."""


@dataclass(frozen=True)
class Retrieval:
    """How often the other half of a recording was the nearest.

    Attributes:
        top1: share of recordings.
        batch: recordings among which it was looked for.
        records: recordings that were looked for.
    """

    top1: float
    batch: int
    records: int


def retrieve(
    model: Model, corpus: Corpus, rows: npt.NDArray[np.int64], batch: int = BATCH
) -> Retrieval | None:
    """Look for the second half of every recording among the second halves of its batch, by cosine similarity.

    Args:
        model: whose embeddings are compared.
        corpus: the recordings.
        rows: of the corpus, of different patients; batches are consecutive ones, and a rest of them is left out.
        batch: recordings in a batch, or all if there are fewer.

    Returns:
        None if there are not two recordings, or the model sees nothing in a half window.
    """
    batch = min(batch, len(rows))
    if batch < 2:
        return None
    rows = rows[: len(rows) // batch * batch]
    embedded = np.empty((2, corpus.manifest.rows, model.dim), np.float32)
    for chosen, signal_uv, valid, lead_mask in batches_of(corpus, rows, batch):
        length = valid // 2
        for number, half in enumerate(halves(signal_uv, length)):
            embedded[number, chosen] = model.embed_packed(half, length, lead_mask)
    first, second = embedded[:, rows]
    if not (np.any(first, axis=1) & np.any(second, axis=1)).all():
        return None
    hits = [
        nearest(first[start : start + batch], second[start : start + batch])
        for start in range(0, len(rows), batch)
    ]
    return Retrieval(float(np.concatenate(hits).mean()), batch, len(rows))


def halves(
    signal_uv: npt.NDArray[np.int16], length: npt.NDArray[np.integer]
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int16]]:
    """The first and the next `length` samples of segments, each from the start and with zeros after it.

    Args:
        signal_uv: ``(b, 12, samples)``.
        length: ``(b,)``, at most half of the samples.
    """
    first, second = np.zeros_like(signal_uv), np.zeros_like(signal_uv)
    for row, samples in enumerate(length.tolist()):
        first[row, :, :samples] = signal_uv[row, :, :samples]
        second[row, :, :samples] = signal_uv[row, :, samples : 2 * samples]
    return first, second


def nearest(first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Whether row i of `second` is the one most like row i of `first`; of equals, none is."""
    unit_first, unit_second = (
        half.astype(np.float64) / np.linalg.norm(half.astype(np.float64), axis=1, keepdims=True)
        for half in (first, second)
    )
    scores = unit_first @ unit_second.T
    own = scores.diagonal().copy()
    np.fill_diagonal(scores, -np.inf)
    found: npt.NDArray[np.bool_] = own > scores.max(axis=1)
    return found
