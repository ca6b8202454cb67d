"""Compare ways of pretraining at equal data, encoder and steps: train every arm with every seed, and probe them all."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator, Mapping
from typing import Any, Self

import numpy as np
from pydantic import Field, field_validator, model_validator
from rich.console import Console

from ecgdist.config import build, merged
from ecgdist.downstream.comparison import Candidate, Comparison, Training, compare_arms
from ecgdist.downstream.evaluate import (
    ProbeConfig,
    Setup,
    check_leak,
    check_rows,
    check_signals,
    check_task,
    features,
    on_device,
)
from ecgdist.downstream.evaluation import Features
from ecgdist.downstream.retrieval import retrieve
from ecgdist.downstream.tasks import MultilabelTask, patients_of
from ecgdist.errors import ConfigError
from ecgdist.modelfolder import Model, load
from ecgdist.pretraining.config import PretrainConfig
from ecgdist.pretraining.job import pretrain
from ecgdist.pretraining.metrics import read_metrics
from ecgdist.pretraining.plan import RunPlan
from ecgdist.pretraining.raytrain import local_cpus
from ecgdist.raytools import ray_session
from ecgdist.report.comparison import draw_comparison
from ecgdist.report.curves import svg
from ecgdist.storage import Location

SCRATCH = "scratch"
"""The arm that is not pretrained."""
COMPARISON = "comparison"
"""What the files of the result are called, before their ending."""

_ARMS: dict[str, dict[str, Any]] = {
    "GL": {"contrastive": {"weight": 0}},
    "CL": {"generative": {"weight": 0}},
    "HL": {},
}


class CompareConfig(ProbeConfig):
    """What to compare, and how it is judged."""

    out: str
    """Folder of the comparison, local or s3://; the same folder again goes on."""
    pretrain: dict[str, Any]
    """What all arms share: a configuration of `ecgdist pretrain` without out and seed."""
    arms: dict[str, dict[str, Any]] = Field(default=_ARMS, min_length=1)
    """Name and values of objective of each arm, over those of `pretrain`; by default generative (GL), contrastive (CL)
    and hybrid learning (HL)."""
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)
    """Of initial weights, order, masks, windows and augmentations; each arm is pretrained once with each."""

    @field_validator("arms")
    @classmethod
    def _names_are_folders(cls, arms: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name in arms:
            if name == SCRATCH or not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", name, re.ASCII):
                raise ValueError(
                    f"an arm cannot be called {name!r}: use letters, digits and ._+-, and another name than {SCRATCH}"
                )
        return arms

    @model_validator(mode="after")
    def _every_run_is_valid(self) -> Self:
        for name in ("out", "seed"):
            if name in self.pretrain:
                raise ValueError(
                    f"pretrain.{name} is set for each arm and seed by the comparison; leave it out"
                )
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds = {list(self.seeds)} names one twice")
        for arm in self.arms:
            try:
                self.run(arm, self.seeds[0])
            except ConfigError as error:
                raise ValueError(f"arm {arm}: {error}") from error
        return self

    def run(self, arm: str, seed: int) -> PretrainConfig:
        """The configuration of one run.

        Raises:
            ConfigError: if there is none.
        """
        objective = merged(self.pretrain.get("objective", {}), self.arms[arm])
        folder = Location.of(self.out) / "runs" / f"{arm}-seed-{seed}"
        return build(
            PretrainConfig, self.pretrain | {"objective": objective, "seed": seed, "out": str(folder)}
        )


def compare(config: CompareConfig, console: Console) -> Comparison:
    """Pretrain every arm with every seed, judge them all, and write table and plot; run again, it goes on.

    Raises:
        EcgdistError: whatever a run or the evaluation meets.
    """
    if not issubclass(check_task(config.task), MultilabelTask):
        raise ConfigError(f"task {config.task} predicts a number; a comparison needs a task with labels")
    runs = {(arm, seed): config.run(arm, seed) for arm in config.arms for seed in config.seeds}
    first = next(iter(runs.values()))
    # What cannot be judged is refused before hours are spent on it; warnings come with the figures.
    plan = RunPlan.of(first)
    setup = Setup.of(config, plan.corpus)
    check_rows(config, plan.selected, setup)
    with ray_session(num_cpus=local_cpus(first)):
        for number, ((arm, seed), run) in enumerate(runs.items(), start=1):
            console.rule(f"{number} of {len(runs)}: {arm}, seed {seed}")
            pretrain(run, console)
    console.rule("linear probes")
    comparison = _judge(config, runs, setup)
    _write(Location.of(config.out), comparison)
    for table in comparison.tables():
        console.print(table)
    console.print(
        f"written to {Location.of(config.out) / COMPARISON}.md, .svg and .json",
        highlight=False,
        soft_wrap=True,
    )
    return comparison


def _judge(config: CompareConfig, runs: Mapping[tuple[str, int], PretrainConfig], setup: Setup) -> Comparison:
    objectives: dict[str, dict[str, Any] | None] = {SCRATCH: None}
    for arm in config.arms:
        objectives[arm] = config.run(arm, config.seeds[0]).objective.model_dump(mode="json")
    training = {arm: _training([runs[arm, seed] for seed in config.seeds]) for arm in config.arms}
    candidates = _candidates(config, runs, setup)
    return compare_arms(
        setup,
        candidates,
        objectives,
        training,
        config.pretrain,
        config.resamples,
        config.seed,
        config.specificity,
    )


def _candidates(
    config: CompareConfig, runs: Mapping[tuple[str, int], PretrainConfig], setup: Setup
) -> Iterator[tuple[Candidate, Features]]:
    """Every encoder with its features, one at a time: those of a large corpus fill the memory."""
    known = _one_each(setup)

    def judged(
        arm: str, seed: int, model: Model, warnings: tuple[str, ...] = ()
    ) -> tuple[Candidate, Features]:
        candidate = Candidate(arm, seed, model.model_hash, retrieve(model, setup.corpus, known), warnings)
        return candidate, features(model, setup.corpus, setup.rows, config.batch_rows)

    for (arm, seed), run in runs.items():
        where = str(Location.of(run.out) / "model")
        model = on_device(load(where))
        check_signals(model, setup.corpus)
        if arm == next(iter(config.arms)):
            yield judged(SCRATCH, seed, on_device(model.untrained(seed)))
        yield judged(arm, seed, model, check_leak(config, model, where, setup))


def _one_each(setup: Setup) -> Any:
    """The first test row of every test patient."""
    test = np.flatnonzero(setup.splits.rows("test"))
    _, first = np.unique(patients_of(setup.index).to_numpy(dtype=np.str_)[test], return_index=True)
    return np.sort(test[first])


def _training(runs: list[PretrainConfig]) -> Training:
    """What the runs of an arm took, by their metrics."""
    rates, minutes = [], []
    for run in runs:
        rows = read_metrics(Location.of(run.out))
        rates.append(statistics.median(row["ecg_per_s"] for row in rows))
        steps = np.diff([0, *(row["step"] for row in rows)])
        seconds = [row["seconds_per_step"] for row in rows]
        minutes.append(float(np.dot(steps, seconds)) / 60)
    return Training(ecg_per_s=statistics.median(rates), minutes=statistics.median(minutes))


def _write(out: Location, comparison: Comparison) -> None:
    (out / f"{COMPARISON}.json").write_bytes(comparison.model_dump_json(indent=1).encode())
    (out / f"{COMPARISON}.md").write_bytes(comparison.to_markdown().encode())
    (out / f"{COMPARISON}.svg").write_bytes(svg(draw_comparison(comparison)))
