"""What an evaluation leaves behind beside its figures: predictions, embeddings, and what predicts.

A report needs these to show curves, errors and reasons. A further mode of evaluation hands in the same objects.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ecgdist.corpus import Corpus
from ecgdist.downstream.evaluation import Evaluation, Features
from ecgdist.downstream.predictions import FloatArray, Predictions
from ecgdist.modelfolder import Model
from ecgdist.preprocessing import Preprocessing

E = TypeVar("E", bound=Evaluation)
Head = Callable[[npt.NDArray[np.floating]], FloatArray]
"""From ``(n, dim)`` embeddings to ``(n, columns)`` predictions."""


class Predictor(Protocol):
    """What predicts, from the model's input on."""

    @property
    def preprocessing(self) -> Preprocessing:
        """What makes the model's input."""

    def __call__(self, windows: Tensor, valid_samples: Tensor, lead_mask: Tensor) -> FloatArray:
        """``(b, columns)`` predictions of what `Preprocessing.inputs` made of b segments, and their lead masks."""


@dataclass(frozen=True)
class EmbeddingPredictor:
    """A head on the embeddings of a model."""

    model: Model
    head: Head

    @property
    def preprocessing(self) -> Preprocessing:
        """See `Predictor`."""
        return self.model.preprocessing

    def __call__(self, windows: Tensor, valid_samples: Tensor, lead_mask: Tensor) -> FloatArray:
        """See `Predictor`."""
        return self.head(self.model.embed_windows(windows, valid_samples, lead_mask))


@dataclass(frozen=True)
class Judged(Generic[E]):
    """Two predictors, compared.

    Attributes:
        evaluation: the figures.
        predictions: what they were reckoned from.
    """

    evaluation: E
    predictions: Predictions


@dataclass(frozen=True)
class Compared(Judged[E]):
    """Features of two encoders, compared.

    Attributes:
        embeddings: ``(records, dim)`` of the records of `predictions`, by the pretrained encoder.
        head: that was fitted on its features.
    """

    embeddings: Features
    head: Head


@dataclass(frozen=True)
class Outcome:
    """All that a report of an evaluation is made of.

    Attributes:
        evaluation: the figures.
        predictions: what they were reckoned from.
        corpus: that the records are in.
        embeddings: ``(records, dim)`` of the records of `predictions` by the judged model; None if it has none.
        predictor: what made the first arm of `predictions`; None if it is not at hand.
    """

    evaluation: Evaluation
    predictions: Predictions
    corpus: Corpus
    embeddings: Features | None = None
    predictor: Predictor | None = None
