"""The configuration of a sweep."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ecgdist.config import Config, build, merged, parse_overrides
from ecgdist.downstream.finetuning.config import FineTuneConfig
from ecgdist.downstream.finetuning.rivals import name_of
from ecgdist.downstream.halving import HalvingConfig, HalvingPlace
from ecgdist.downstream.sweep.space import Dimension, overrides_of
from ecgdist.errors import ConfigError

_SETTLED = ("out", "halving")
LEADER_CPUS = 0.01
"""Of the process that leads a training among several, which waits for its workers."""


class SweepConfig(Config):
    """Many fine-tuning runs that differ in some settings."""

    out: str
    """Folder of the sweep, local or s3://; the same again goes on."""
    finetune: dict[str, Any]
    """What all trials share: settings of `ecgdist finetune`, without `out`."""
    space: dict[str, Dimension] = Field(min_length=1)
    """Settings that differ, by dotted name, such as `optimizer.learning_rate`."""
    search: Literal["random", "grid", "tpe"] = "random"
    """`random`; `grid`, every combination of choices once; `tpe`, optuna's sampler, which learns from trials."""
    trials: int = Field(default=16, ge=1)
    """Most trials; a grid may have fewer."""
    hours: float | None = Field(default=None, gt=0)
    """No trial is started after so long; None sets no limit."""
    seed: int = Field(default=0, ge=0)
    """Of the search; the seed of training is `finetune.seed`, the same in all trials."""
    halving: HalvingConfig | None = None
    """End trials that are not among the best at certain numbers of samples; None trains all to their end."""
    concurrent: int = Field(default=1, ge=1)
    """Trials that run at the same time."""
    resamples: int = Field(default=1000, ge=100)
    """Bootstrap resamples of the figures of the chosen trial on the test split."""

    @model_validator(mode="after")
    def _trials_can_be_built(self) -> Self:
        settled = [name for name in _SETTLED if name in self.finetune]
        if settled:
            raise ValueError(f"finetune.{settled[0]} is settled by the sweep; leave it out")
        shared = {name for name in self.space if name.split(".")[0] in _SETTLED}
        if shared:
            raise ValueError(f"space.{min(shared)} is settled by the sweep; leave it out")
        try:
            self.first()
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return self

    def first(self) -> FineTuneConfig:
        """A trial at the beginning of every dimension."""
        return self.trial(0, {name: dimension.first for name, dimension in self.space.items()})

    def trial(self, number: int, values: dict[str, Any]) -> FineTuneConfig:
        """The configuration of a trial.

        Args:
            number: of the trial.
            values: its settings by dotted name.

        Raises:
            ConfigError: if they do not go together.
        """
        trials = f"{self.out}/trials"
        settled: dict[str, Any] = {"out": f"{trials}/{name_of(number)}"}
        if self.halving is not None:
            place = HalvingPlace(**self.halving.model_dump(), trials=trials, number=number)
            settled["halving"] = place.model_dump()
        own = merged(self.finetune, parse_overrides(overrides_of(values)))
        return build(FineTuneConfig, merged(own, settled), f"trial {number}")

    def fixed_part(self) -> dict[str, Any]:
        """What a sweep that goes on must share with the one that began."""
        content = self.model_dump(mode="json")
        for free in ("out", "trials", "hours", "concurrent", "resamples"):
            del content[free]
        return content
