"""The kinds of heads: from an ECG's windows to probabilities of labels, or to a number.

A further kind is a class like `ProbeHead` and a line of `HEADS`; `classifier` keeps it in a model folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import expit
from torch import Tensor

from ecgdist.downstream.headcard import HEAD_CONFIG, HeadConfig
from ecgdist.errors import DataError
from ecgdist.modelfolder import Model
from ecgdist.models.readout import READOUTS, Readout

Arrays = dict[str, npt.NDArray[Any]]
FloatArray = npt.NDArray[np.float64]


class Head(Protocol):
    """What every kind of head offers."""

    @classmethod
    def of(cls, arrays: Mapping[str, npt.NDArray[Any]], config: HeadConfig, dim: int) -> Self:
        """The head with these weights, on an encoder of width `dim`.

        Raises:
            DataError: if they are not those of such a head.
        """

    def predict(self, model: Model, windows: Tensor, valid_samples: Tensor, lead_mask: Tensor) -> FloatArray:
        """``(b, outputs)`` of what `Preprocessing.inputs` made of b segments, and their lead masks."""

    def arrays(self) -> Arrays:
        """Its weights by name."""


@dataclass(frozen=True)
class ProbeHead:
    """One logistic regression per label on the scaled embedding: z = (x - mean) / scale, p = 1 / (1 + exp(-(w z + b))).

    Attributes:
        mean: ``(dim,)``.
        scale: ``(dim,)``.
        weight: ``(labels, dim)``.
        bias: ``(labels,)``.
    """

    mean: FloatArray
    scale: FloatArray
    weight: FloatArray
    bias: FloatArray

    @classmethod
    def of(cls, arrays: Mapping[str, npt.NDArray[Any]], config: HeadConfig, dim: int) -> Self:
        """See `Head`."""
        labels = len(config.outputs)
        found = {name: values.shape for name, values in arrays.items()}
        wanted = {"mean": (dim,), "scale": (dim,), "weight": (labels, dim), "bias": (labels,)}
        if found != wanted:
            raise DataError(
                f"a probe of {labels} labels on {dim} features has not the weights {found}; fit it again"
            )
        if not arrays["scale"].all():
            raise DataError("a probe cannot divide by a scale of zero; fit it again")
        return cls(**{name: values.astype(np.float64) for name, values in arrays.items()})

    def probabilities(self, features: npt.NDArray[np.floating]) -> FloatArray:
        """``(n, dim)`` embeddings -> ``(n, labels)`` probabilities."""
        scaled = (features.astype(np.float64) - self.mean) / self.scale
        result: FloatArray = expit(scaled @ self.weight.T + self.bias)
        return result

    def predict(self, model: Model, windows: Tensor, valid_samples: Tensor, lead_mask: Tensor) -> FloatArray:
        """See `Head`: of the mean embedding of the windows."""
        return self.probabilities(model.embed_windows(windows, valid_samples, lead_mask))

    def arrays(self) -> Arrays:
        """See `Head`."""
        return {"mean": self.mean, "scale": self.scale, "weight": self.weight, "bias": self.bias}


@dataclass(frozen=True)
class ReadoutHead:
    """A readout that was trained with, or on, its encoder.

    Attributes:
        readout: on the encoder's tokens.
        config: what it says of itself.
    """

    readout: Readout
    config: HeadConfig

    @classmethod
    def of(cls, arrays: Mapping[str, npt.NDArray[Any]], config: HeadConfig, dim: int) -> Self:
        """See `Head`."""
        readout = READOUTS[config.kind](dim, len(config.outputs))
        try:
            readout.load_state_dict(
                {n: torch.from_numpy(values.copy()) for n, values in arrays.items()}, strict=True
            )
        except RuntimeError as error:
            raise DataError(f"the weights of the head do not fit {HEAD_CONFIG}: {error}") from error
        return cls(readout.eval().requires_grad_(False), config)

    @torch.no_grad()
    def predict(self, model: Model, windows: Tensor, valid_samples: Tensor, lead_mask: Tensor) -> FloatArray:
        """See `Head`: the mean of what it says of each window."""
        device = next(model.encoder.parameters()).device
        readout, present = self.readout.to(device), lead_mask.to(device)
        parts = []
        for window, valid in zip(windows.unbind(1), valid_samples.unbind(1), strict=True):
            valid = valid.to(device)
            tokens = model.encoder(window.to(device), valid, present)
            outputs = readout(tokens, model.encoder.token_valid(valid, present, tokens.shape[1]))
            # In float32, neighbours of an age of 80 years are 8e-6 apart.
            parts.append(self._said(outputs.double()))
        mean: FloatArray = torch.stack(parts).mean(dim=0).cpu().numpy()
        return mean

    def arrays(self) -> Arrays:
        """See `Head`."""
        return {name: weight.cpu().numpy() for name, weight in self.readout.state_dict().items()}

    def _said(self, outputs: Tensor) -> Tensor:
        if self.config.is_number:
            return outputs * self.config.scale + self.config.offset
        return torch.sigmoid(outputs)


HEADS: dict[str, type[Head]] = {"probe": ProbeHead} | dict.fromkeys(READOUTS, ReadoutHead)
"""The kinds of heads, by name."""
