from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from ecgdist.corpus import Corpus
from ecgdist.downstream.retrieval import Retrieval, halves, nearest, retrieve

Int16 = npt.NDArray[np.int16]


def test_halves_are_consecutive_and_begin_at_the_start() -> None:
    signal = np.arange(2 * 1 * 10, dtype=np.int16).reshape(2, 1, 10) + 1
    first, second = halves(signal, np.array([5, 3]))
    assert first[0, 0].tolist() == [1, 2, 3, 4, 5, 0, 0, 0, 0, 0]
    assert second[0, 0].tolist() == [6, 7, 8, 9, 10, 0, 0, 0, 0, 0]
    assert first[1, 0].tolist() == [11, 12, 13, 0, 0, 0, 0, 0, 0, 0]
    assert second[1, 0].tolist() == [14, 15, 16, 0, 0, 0, 0, 0, 0, 0]


def test_the_nearest_is_by_angle_and_of_equals_none() -> None:
    first = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]], np.float32)
    second = np.array([[9.0, 1.0], [0.0, 0.1], [0.0, 5.0]], np.float32)
    assert nearest(first, second).tolist() == [True, False, False]
    assert nearest(first[:2], second[:2]).tolist() == [True, True]


class Amplitudes:
    """Embeds an ECG as the spread of each lead: a real property of a recording, without a model."""

    dim = 12

    def embed_packed(
        self, signal_uv: Int16, valid_samples: npt.NDArray[np.integer], lead_mask: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.float32]:
        spread = [
            signal[:, :samples].std(axis=1) for signal, samples in zip(signal_uv, valid_samples, strict=True)
        ]
        return np.stack(spread).astype(np.float32)


class Same(Amplitudes):
    """Embeds all ECGs alike."""

    def embed_packed(self, signal_uv: Int16, *_: object) -> npt.NDArray[np.float32]:
        return np.ones((len(signal_uv), self.dim), np.float32)


class Blind(Amplitudes):
    """Sees nothing in half a window."""

    def embed_packed(self, signal_uv: Int16, *_: object) -> npt.NDArray[np.float32]:
        return np.zeros((len(signal_uv), self.dim), np.float32)


def find(model: Amplitudes, corpus: Corpus, rows: int, batch: int) -> Retrieval | None:
    return retrieve(model, corpus, np.arange(rows), batch)  # type: ignore[arg-type]


@pytest.mark.ray
def test_a_recording_is_known_by_its_amplitudes_and_not_by_a_constant(sample_corpus: Corpus) -> None:
    known = find(Amplitudes(), sample_corpus, rows=100, batch=32)
    assert known is not None
    assert (known.batch, known.records) == (32, 96)
    assert known.top1 > 0.5
    assert find(Same(), sample_corpus, rows=100, batch=32) == Retrieval(0.0, 32, 96)
    assert find(Blind(), sample_corpus, rows=100, batch=32) is None


@pytest.mark.ray
def test_few_recordings_are_one_batch(sample_corpus: Corpus) -> None:
    known = find(Amplitudes(), sample_corpus, rows=5, batch=64)
    assert known is not None
    assert (known.batch, known.records) == (5, 5)
    assert find(Amplitudes(), sample_corpus, rows=1, batch=64) is None
