"""Distributed, reproducible self-supervised pretraining of ECG foundation models on Ray and DeepSpeed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ecgdist.modelfolder import Model

__all__ = ["load"]


def load(folder: str | os.PathLike[str]) -> Model:
    """An encoder with its preprocessing, from a model folder; see `ecgdist.modelfolder.load`."""
    # Imported here, so that packing and the command line do not wait for torch.
    from ecgdist.modelfolder import load as load_model

    return load_model(folder)
