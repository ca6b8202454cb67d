"""A run as planning needs it: of a packed corpus, or of one that will have so many ECGs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ecgdist.config import build
from ecgdist.preprocessing import Preprocessing
from ecgdist.pretraining.config import PretrainConfig
from ecgdist.pretraining.flops import flops_per_ecg
from ecgdist.pretraining.plan import RunPlan
from ecgdist.pretraining.zero import count_followed, count_parameters, count_whole_under_3
from ecgdist.streaming.order import Order

_ROW_GROUP = 128
"""Rows of a row group of a corpus that is not packed yet."""


@dataclass(frozen=True)
class RunLayout:
    """What a plan reckons with.

    Attributes:
        config: of the run; its ZeRO stage may be left open.
        order: which rows are read when.
        whole_rows: ``(groups,)`` rows of each row group, those that are not selected, too.
        total_steps: of the run.
        preprocessing: of the run.
        ecg_bytes: of one ECG in the corpus; None if nobody knows.
    """

    config: PretrainConfig
    order: Order
    whole_rows: npt.NDArray[np.int64]
    total_steps: int
    preprocessing: Preprocessing
    ecg_bytes: float | None

    @classmethod
    def of_corpus(cls, config: PretrainConfig) -> RunLayout:
        """Of a corpus that is there.

        Raises:
            ConfigError: if numbers do not fit the corpus.
            DataError, StorageError: if the corpus cannot be read.
        """
        plan = RunPlan.of(config)
        manifest = plan.corpus.manifest
        return cls(
            config,
            plan.order,
            plan.corpus.group_rows,
            plan.total_steps,
            plan.preprocessing,
            sum(shard.bytes for shard in manifest.shards) / manifest.rows,
        )

    @classmethod
    def of_rows(cls, config: PretrainConfig, rows: int, ecg_bytes: float | None = None) -> RunLayout:
        """Of a corpus that will have so many selected ECGs, with the default rate and length.

        Raises:
            ConfigError: if numbers do not fit each other.
        """
        groups = np.full(-(-rows // _ROW_GROUP), _ROW_GROUP, dtype=np.int64)
        groups[-1] = rows - _ROW_GROUP * (len(groups) - 1)
        data = config.data
        order = Order(
            groups,
            seed=config.seed,
            lanes=data.lanes,
            global_batch=data.resolved_global_batch(rows),
            shuffle_rows=data.shuffle_rows,
        )
        preprocessing = build(Preprocessing, {"device": config.device})
        steps = config.total_steps(order.steps_per_epoch)
        return cls(config, order, groups, steps, preprocessing, ecg_bytes)

    @property
    def window_samples(self) -> int:
        """Of the model's input."""
        return self.preprocessing.window_samples

    @cached_property
    def parameters(self) -> int:
        """Of the student."""
        return count_parameters(self.config.encoder, self.config.objective, self.window_samples)

    @cached_property
    def teacher_parameters(self) -> int:
        """Of the teacher; 0 without one."""
        return count_followed(self.config.encoder, self.config.objective, self.window_samples)

    @cached_property
    def whole_under_3(self) -> int:
        """Parameters of the student that ZeRO's stage 3 does not divide."""
        return count_whole_under_3(self.config.encoder, self.config.objective, self.window_samples)

    @cached_property
    def flops_per_ecg(self) -> int:
        """Of one training step."""
        return flops_per_ecg(self.config.encoder, self.config.objective, self.window_samples)
