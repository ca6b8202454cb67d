"""What a checkpoint is judged by while it is collected: the mean of a value of training."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ecgdist.pretraining.config import KeepBest


class ScoreMean:
    """Mean over the steps since the last checkpoint, of the value that `checkpoint.keep_best` names."""

    def __init__(self, measure: KeepBest | None) -> None:
        self._measure = measure
        self._values: list[float] = []

    def add(self, loss: float, parts: Mapping[str, float]) -> None:
        """Take in the values of one step."""
        if self._measure is not None:
            self._values.append({"loss": loss, **parts}[self._measure.metric])

    def take(self) -> float | None:
        """The mean since the last call; None if nothing is measured."""
        values, self._values = self._values, []
        return math.fsum(values) / len(values) if values else None
