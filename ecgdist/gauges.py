"""What a job tells Ray's metrics, from where Prometheus and the dashboard of `cluster/grafana` have it.

Ray puts ``ray_`` before every name. Without a cluster, or where nobody collects metrics, nothing happens.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ray.util.metrics import Gauge

RUN = "run"
"""Tag of every gauge: the folder of the run or corpus."""
NAME = "name"
"""Tag of the gauge for values that have none of their own."""

_TRAINING = {
    "step": "Steps done",
    "loss": "Loss of the last reported step",
    "gradient_norm": "Norm of the gradient before clipping",
    "learning_rate": "Learning rate of the step",
    "workers": "Training workers",
    "ecg_per_s": "ECGs trained on per second since the report before",
    "waiting_share": "Share of time in which rank 0 waited for data",
}
"""Numbers that every report of a run has, each with a gauge of its own."""
_NO_GAUGE = {"samples", "epoch", "seconds_per_step"}
"""Numbers that follow from the others."""


class TrainingGauges:
    """The gauges of a run; rank 0 has them."""

    def __init__(self, run: str) -> None:
        """Gauges of the run in the folder `run`; until a checkpoint is saved, its age counts from now."""
        self._gauges = {name: _gauge(name, text, run) for name, text in _TRAINING.items()}
        self._others = _gauge("value", "Parts of the loss and other values of a report, by name", run, NAME)
        self._saved = _gauge(
            "checkpoint_time_seconds",
            "Unix time at which the newest checkpoint became whole, or training began after an older one",
            run,
        )
        self.checkpoint_saved()

    def report(self, row: Mapping[str, Any]) -> None:
        """Set the gauges of all numbers in a row of metrics."""
        for name, value in row.items():
            if name in _NO_GAUGE or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if name in self._gauges:
                self._gauges[name].set(value)
            else:
                self._others.set(value, {NAME: name})

    def checkpoint_saved(self) -> None:
        """A checkpoint is whole since now."""
        self._saved.set(time.time())


class PackingGauges:
    """The gauges of a packing; its driver has them."""

    def __init__(self, corpus: str, num_shards: int) -> None:
        """Gauges of the packing into the folder `corpus`, which will have so many shards."""
        self._packed = _gauge("packed_records", "Records packed, those of earlier calls too", corpus)
        self._refused = _gauge("refused_records", "Records refused, by reason", corpus, "reason")
        self._finished = _gauge("finished_shards", "Shards that are finished", corpus)
        self._shards = _gauge("shards", "Shards that the corpus will have", corpus)
        self._num_shards = num_shards

    def report(self, packed: int, refused: Mapping[str, int], finished: int) -> None:
        """Set the gauges to the numbers so far; of no effect before Ray is connected."""
        self._shards.set(self._num_shards)
        self._packed.set(packed)
        self._finished.set(finished)
        for reason, count in refused.items():
            self._refused.set(count, {"reason": reason})


def _gauge(name: str, text: str, run: str, *tags: str) -> Gauge:
    return Gauge(f"ecgdist_{name}", text, (RUN, *tags)).set_default_tags({RUN: run})
