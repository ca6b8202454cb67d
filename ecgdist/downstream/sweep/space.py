"""The space that a sweep searches, and how settings are drawn from it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import optuna
from pydantic import Field, model_validator

from ecgdist.config import Config
from ecgdist.errors import ConfigError

Value = bool | int | float | str | None
Search = Literal["random", "grid", "tpe"]


class Dimension(Config):
    """The values that one setting may have: `choices`, or all between `low` and `high`."""

    choices: tuple[Value | tuple[Value, ...] | dict[str, Any], ...] | None = Field(default=None, min_length=1)
    """Any values, also lists and mappings."""
    low: float | None = None
    high: float | None = None
    log: bool = False
    """Whether the logarithm is what is uniform."""
    whole: bool = False
    """Whether the values are whole numbers."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        is_range = self.low is not None and self.high is not None
        if is_range == (self.choices is not None) or (self.low is None) != (self.high is None):
            raise ValueError("give either choices, or low and high")
        if self.low is not None and self.high is not None:
            if not self.low < self.high:
                raise ValueError(f"low = {self.low:g} is not below high = {self.high:g}")
            if self.log and self.low <= 0:
                raise ValueError(f"low = {self.low:g} has no logarithm; give a positive one")
        elif self.log or self.whole:
            raise ValueError("log and whole are for low and high")
        return self

    @property
    def first(self) -> Any:
        """A value that it may have."""
        if self.choices is not None:
            return self.choices[0]
        assert self.low is not None
        return round(self.low) if self.whole else self.low

    def distribution(self) -> optuna.distributions.BaseDistribution:
        """The same for optuna; a choice is drawn by its number."""
        if self.choices is not None:
            return optuna.distributions.CategoricalDistribution(tuple(range(len(self.choices))))
        assert self.low is not None
        assert self.high is not None
        if self.whole:
            return optuna.distributions.IntDistribution(round(self.low), round(self.high), log=self.log)
        return optuna.distributions.FloatDistribution(self.low, self.high, log=self.log)

    def value(self, drawn: Any) -> Any:
        """The setting that stands for what optuna drew."""
        return drawn if self.choices is None else self.choices[drawn]


Space = Mapping[str, Dimension]


class Suggestions:
    """Draws settings one after the other; the n-th depends on seed, space and what was told of the ones before."""

    def __init__(self, search: Search, space: Space, seed: int, mode: str) -> None:
        """Make the search.

        Raises:
            ConfigError: if a grid is asked for, and a dimension has no choices.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._search, self._space, self._seed, self._mode = search, space, seed, mode
        self._told: list[optuna.trial.FrozenTrial] = []
        self.grid: list[dict[str, Any]] | None = None
        if search == "grid":
            endless = [name for name, dimension in space.items() if dimension.choices is None]
            if endless:
                raise ConfigError(
                    f"search = grid needs choices for every dimension, and {endless[0]} has low and high; use random"
                )
            numbers = itertools.product(
                *(range(len(dimension.choices or ())) for dimension in space.values())
            )
            self.grid = [dict(zip(space, each, strict=True)) for each in numbers]

    def draw(self, number: int) -> dict[str, Any]:
        """What optuna draws for the trial of a number, by dimension."""
        if self.grid is not None:
            return self.grid[number]
        # Anew for every trial, so that a sweep that goes on needs no state of a generator.
        seed = self._seed * 1_000_003 + number
        sampler: optuna.samplers.BaseSampler = (
            optuna.samplers.RandomSampler(seed=seed)
            if self._search == "random"
            else optuna.samplers.TPESampler(seed=seed)
        )
        study = optuna.create_study(
            sampler=sampler, direction="maximize" if self._mode == "max" else "minimize"
        )
        for trial in self._told:
            study.add_trial(trial)
        asked = study.ask({name: dimension.distribution() for name, dimension in self._space.items()})
        return dict(asked.params)

    def values(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """The settings that stand for what was drawn, by dotted name."""
        return {name: self._space[name].value(each) for name, each in drawn.items()}

    def tell(self, drawn: Mapping[str, Any], value: float) -> None:
        """Say how a trial came out."""
        distributions = {name: self._space[name].distribution() for name in drawn}
        self._told.append(
            optuna.trial.create_trial(params=dict(drawn), distributions=distributions, value=value)
        )


def overrides_of(values: Mapping[str, Any]) -> list[str]:
    """Settings by dotted name as ``a.b=c`` of the command line."""
    return [f"{name}={json.dumps(value)}" for name, value in values.items()]


def shown(values: Mapping[str, Any]) -> Sequence[str]:
    """The same for a table."""
    return [f"{value:.3g}" if isinstance(value, float) else json.dumps(value) for value in values.values()]
