"""A map of embeddings: records that a model finds alike lie near each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.preprocessing import StandardScaler

MOST_RECORDS = 2000
LEAST_RECORDS = 10

_COMPONENTS = 50
_PERPLEXITY = 30.0

FloatArray = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class EmbeddingMap:
    """Places of records on a plane.

    Attributes:
        record: ``(m,)`` which records are drawn, ascending.
        place: ``(m, 2)``.
        method: how they were placed, for a reader.
    """

    record: Ints
    place: FloatArray
    method: str


def embedding_map(embeddings: npt.NDArray[np.floating], seed: int) -> EmbeddingMap:
    """Place ``(n, dim)`` embeddings by t-SNE (van der Maaten and Hinton, JMLR 9, 2008); the same for the same seed.

    Features are scaled to mean 0 and deviation 1, as for a probe, and reduced to their first principal components. Of
    more than `MOST_RECORDS` records, so many are drawn by chance.

    Raises:
        ValueError: for fewer than `LEAST_RECORDS` records.
    """
    total = len(embeddings)
    if total < LEAST_RECORDS:
        raise ValueError(f"{total} records are too few for a map; it takes {LEAST_RECORDS}")
    random = np.random.default_rng(seed)
    record = np.sort(random.choice(total, min(total, MOST_RECORDS), replace=False)).astype(np.int64)
    scaled = StandardScaler().fit_transform(embeddings[record].astype(np.float64))
    components = min(_COMPONENTS, *scaled.shape)
    reduced = PCA(components, svd_solver="full").fit_transform(scaled)
    perplexity = min(_PERPLEXITY, (len(record) - 1) / 3)
    place = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced)
    drawn = f"{len(record):,} of {total:,} records drawn by chance, " if len(record) < total else ""
    method = f"{drawn}t-SNE (perplexity {perplexity:.3g}, seed {seed}) of the first {components} principal components"
    return EmbeddingMap(record, place.astype(np.float64), method)
