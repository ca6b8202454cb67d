"""A sweep as its driver sees it: draw trials, have Ray Tune run them, choose one, judge it once."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ray import tune
from ray.tune.execution import class_cache
from ray.tune.search import Searcher
from rich.console import Console

from ecgdist.downstream.claim import claim
from ecgdist.downstream.evaluate import EvaluateConfig
from ecgdist.downstream.finetuning.goals import metric_of
from ecgdist.downstream.finetuning.job import TuneJob, with_whole_places
from ecgdist.downstream.finetuning.judge import evaluate_tuned
from ecgdist.downstream.finetuning.plan import FineTunePlan
from ecgdist.downstream.finetuning.rivals import name_of
from ecgdist.downstream.sweep.config import LEADER_CPUS, SweepConfig
from ecgdist.downstream.sweep.result import SweepResult, choose, read_result, write_result
from ecgdist.downstream.sweep.space import Suggestions
from ecgdist.downstream.sweep.trial import Outcome, Record, outcome, read_records, run_trial, write_record
from ecgdist.errors import TrainingError
from ecgdist.lease import Lease
from ecgdist.pretraining.export import MODEL
from ecgdist.pretraining.raytrain import local_cpus
from ecgdist.raytools import ray_session, user_errors
from ecgdist.scratch import scratch_folder
from ecgdist.storage import Location

SWEEP = "sweep.json"


def sweep(config: SweepConfig, console: Console | None = None) -> SweepResult:
    """Run the trials of a sweep, or those that are left; choose the best by validation, and judge it on the test split.

    Raises:
        ConfigError: for settings that do not go together, or differ from those that the sweep began with.
        DataError, StorageError: if corpus, model or the sweep's folder cannot be used.
        TrainingError: if no trial came to a figure.
    """
    console = console or Console()
    folder = Location.of(config.out)
    config = config.model_copy(update={"out": folder.uri})

    def say(text: str) -> None:
        console.print(text, soft_wrap=True, highlight=False, markup=False)

    with Lease.take(folder, say):
        claim(folder / SWEEP, config.fixed_part(), "sweep")
        finished = read_result(folder)
        if finished is None or finished.limit < config.trials:
            outcomes = _run(folder, config, say)
            chosen = choose(outcomes, metric_of(config.finetune["task"])[1])
            if chosen is None:
                errors = "; ".join(sorted({each.error for each in outcomes if each.error}))
                raise TrainingError(f"no trial of {folder} came to a figure: {errors or 'none was started'}")
            finished = _judged(folder, config, outcomes, chosen, say)
    for table in finished.tables():
        console.print(table)
    say(f"best model: {finished.model}")
    say(f"again: {finished.command}")
    return finished


def _run(folder: Location, config: SweepConfig, say: Callable[[str], None]) -> list[Outcome]:
    """Have Ray Tune run the trials that are not done; how all of them stand."""
    trials = folder / "trials"
    first = config.first()
    # What is wrong in all trials is said once, before any of them.
    job = TuneJob(FineTunePlan.of(first), Console())
    for warning in job.check():
        say(f"warning: {warning}")
    search = _Search(config, trials, say)
    cpus = math.ceil(config.concurrent * (local_cpus(first) + LEADER_CPUS))
    with ray_session(num_cpus=cpus), user_errors(), no_keys_sent(), scratch_folder("tune") as notes:
        tune.Tuner(
            tune.with_resources(_leading, {"cpu": LEADER_CPUS}),
            tune_config=tune.TuneConfig(
                search_alg=search, num_samples=-1, max_concurrent_trials=config.concurrent
            ),
            # Tune's own notes are not what a sweep goes on from.
            run_config=tune.RunConfig(storage_path=os.fspath(notes), name="sweep", verbose=0),
        ).fit()
    return [outcome(trials, record) for record in read_records(trials)]


@contextmanager
def no_keys_sent() -> Iterator[None]:
    """Keep Ray Tune from sending storage keys along with a trial.

    Ray Tune 2.60 copies AWS's variables of this process into the runtime environment of every trial, which Ray writes
    into a log and shows to whoever may list actors. A trial takes its keys from where it runs.
    """
    all_names = class_cache.ENV_VARS_TO_PROPAGATE
    class_cache.ENV_VARS_TO_PROPAGATE = {name for name in all_names if not name.startswith("AWS_")}
    try:
        yield
    finally:
        class_cache.ENV_VARS_TO_PROPAGATE = all_names


def _leading(config: dict[str, Any]) -> dict[str, float]:
    """The process that leads a trial."""
    run_trial(config)
    # What counts is in the trial's folder; Tune wants a figure all the same.
    return {"value": 0.0}


class _Search(Searcher):  # type: ignore[misc]  # Ray's classes are untyped here
    """Gives Ray Tune the trials that were cut, then new ones, and writes each down before it begins."""

    def __init__(self, config: SweepConfig, trials: Location, say: Callable[[str], None]) -> None:
        super().__init__(metric="value", mode="max")
        self._config, self._trials, self._say = config, trials, say
        self._mode = metric_of(config.finetune["task"])[1]
        self._suggestions = Suggestions(config.search, config.space, config.seed, self._mode)
        self._began = time.monotonic()
        self._running: dict[str, Record] = {}
        grid = self._suggestions.grid
        self._limit = config.trials if grid is None else min(config.trials, len(grid))
        self._cut: list[Record] = []
        records = read_records(trials)
        for record in records:
            found = outcome(trials, record)
            if found.state == "waiting":
                self._cut.append(record)
            else:
                self._learn(found)
        self._next = len(records)
        if records:
            say(f"{len(records) - len(self._cut)} trials have ended already, {len(self._cut)} go on")

    def __getstate__(self) -> dict[str, Any]:
        """For the copy that Ray Tune writes to disk, and that nobody reads: a console cannot be written."""
        return vars(self) | {"_say": print}

    def suggest(self, trial_id: str) -> Any:
        """The next trial; Ray Tune calls this."""
        if self._cut:
            record = self._cut.pop(0)
        elif self._next >= self._limit or self._is_late:
            return Searcher.FINISHED
        else:
            drawn = self._suggestions.draw(self._next)
            record = Record(number=self._next, drawn=drawn, values=self._suggestions.values(drawn))
            write_record(self._trials, record)
            self._next += 1
        self._running[trial_id] = record
        self._say(f"trial {record.number}: {json.dumps(record.values)}")
        settings = with_whole_places(self._config.trial(record.number, record.values))
        return {"finetune": settings.model_dump(mode="json")}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Ray Tune calls this when a trial has ended."""
        record = self._running.pop(trial_id)
        found = outcome(self._trials, record)
        self._learn(found)
        said = (
            f"{found.value:.4f} at step {found.step}" if found.value is not None else found.error or "cut off"
        )
        self._say(f"trial {record.number} ended: {said}")

    def save(self, checkpoint_path: str) -> None:
        """Nothing: all is in the sweep's folder."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as in `save`."""

    @property
    def _is_late(self) -> bool:
        hours = self._config.hours
        return hours is not None and time.monotonic() - self._began > 3600 * hours

    def _learn(self, found: Outcome) -> None:
        if found.value is not None:
            self._suggestions.tell(found.record.drawn, found.value)


def _judged(
    folder: Location,
    config: SweepConfig,
    outcomes: list[Outcome],
    chosen: Outcome,
    say: Callable[[str], None],
) -> SweepResult:
    """Judge the chosen trial on the test split, which nothing else has looked at, and write all of it down."""
    model = folder / "trials" / name_of(chosen.record.number) / MODEL
    settings = config.trial(chosen.record.number, chosen.record.values)
    say(
        f"trial {chosen.record.number} is the best of {len(outcomes)} by the validation split; judging it on test"
    )
    same = ("task", "corpus", "folds", "seeded", "on_conflict", "label_share", "label_seed", "allow_leak")
    judged = EvaluateConfig(
        model=model.uri, mode="trained", resamples=config.resamples, **{n: getattr(settings, n) for n in same}
    )
    evaluation = evaluate_tuned(judged).evaluation
    return write_result(folder, config, outcomes, chosen, evaluation, model)
