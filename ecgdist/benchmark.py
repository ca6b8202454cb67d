"""Compare ways to use a model on labels: train what is to be trained, and judge all on the same test patients."""

from __future__ import annotations

import json
import math
import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
from rich.console import Console

from ecgdist.config import Config
from ecgdist.corpus import Corpus
from ecgdist.downstream.assign import Splits, fewer_patients
from ecgdist.downstream.benchmark.compared import Made, task_result
from ecgdist.downstream.benchmark.config import BenchmarkConfig, Cell
from ecgdist.downstream.benchmark.judge import Judge, judge_of
from ecgdist.downstream.benchmark.result import RESULT, Benchmark, TaskResult
from ecgdist.downstream.claim import claim
from ecgdist.downstream.classifier import head_config, load_classifier
from ecgdist.downstream.evaluate import (
    Setup,
    TaskConfig,
    check_leak,
    check_signals,
    check_task,
    features,
    on_device,
)
from ecgdist.downstream.evaluation import Features, versions
from ecgdist.downstream.finetuning.config import FineTuneConfig
from ecgdist.downstream.finetuning.job import with_whole_places
from ecgdist.downstream.finetuning.rivals import FAILED, has_ended
from ecgdist.downstream.sweep.config import LEADER_CPUS
from ecgdist.downstream.sweep.trial import run_trial
from ecgdist.errors import DataError, RunStopped
from ecgdist.lease import Lease
from ecgdist.modelfolder import Model, load
from ecgdist.pretraining.export import MODEL
from ecgdist.pretraining.raytrain import local_cpus
from ecgdist.raytools import ray_session, user_errors
from ecgdist.report.benchmark import draw_benchmark
from ecgdist.report.curves import svg
from ecgdist.storage import Location

SETTINGS = "settings.json"
_LOST = (
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.NodeDiedError,
)


def benchmark(config: BenchmarkConfig, console: Console) -> Benchmark:
    """Train what is not trained yet, judge everything, and write table, plot and figures; run again, it goes on.

    Raises:
        ConfigError: for an unknown task, or settings that differ from those that the benchmark began with.
        DataError, StorageError: if model, corpus or folder cannot be used, or test patients were in pretraining.
        RunStopped: if `hours` were over before all was trained.
    """
    for task in config.tasks:
        check_task(task)  # before anything is read
    out = Location.of(config.out)
    config = config.model_copy(update={"out": out.uri})

    def say(text: str) -> None:
        console.print(text, soft_wrap=True, highlight=False, markup=False)

    job = _Job(config, say)
    with Lease.take(out, say):
        claim(out / SETTINGS, config.fixed_part(), "benchmark")
        job.train()
        found = job.judged()
        (out / f"{RESULT}.json").write_bytes(found.model_dump_json(indent=1).encode())
        (out / f"{RESULT}.md").write_bytes(found.to_markdown().encode())
        (out / f"{RESULT}.svg").write_bytes(svg(draw_benchmark(found)))
    for task_found in found.tasks:
        for table in task_found.tables():
            console.print(table)
    say(f"written to {out / RESULT}.md, .svg and .json; again: {found.command}")
    return found


@dataclass(frozen=True)
class _Task:
    """A task with its judge, and what must be said of the model there."""

    judge: Judge
    warnings: tuple[str, ...]


class _Job:
    """A benchmark as its driver sees it."""

    def __init__(self, config: BenchmarkConfig, say: Callable[[str], None]) -> None:
        self._config, self._say, self._began = config, say, time.monotonic()
        self._model, self._corpus = on_device(load(config.model)), Corpus(config.corpus)
        check_signals(self._model, self._corpus)
        self._tasks = {task: self._task(task) for task in config.tasks}

    def _task(self, name: str) -> _Task:
        config = self._config
        same = ("folds", "seeded", "on_conflict", "allow_leak")
        asked = TaskConfig(task=name, **{each: getattr(config, each) for each in same})
        setup = Setup.of(asked, self._corpus)
        leaks = check_leak(asked, self._model, config.model, setup)
        return _Task(judge_of(setup, config.resamples, config.seed), leaks)

    def _cells(self) -> Iterator[tuple[Cell, Judge, Splits]]:
        """Every predictor with the labels that it is given."""
        for name, task in self._tasks.items():
            setup = task.judge.setup
            for cell in self._config.cells(name):
                yield cell, task.judge, fewer_patients(setup.index, setup.splits, cell.share, cell.seed)

    def train(self) -> None:
        """Run the trainings that have not ended, some at a time."""
        waiting: list[FineTuneConfig] = []
        count = 0
        for cell, judge, splits in self._cells():
            if cell.is_trained and judge.learnable(splits):
                count += 1
                settings = self._training(cell, splits)
                if not has_ended(Location.of(settings.out)):
                    waiting.append(settings)
        if not waiting:
            return
        self._say(f"{count} trainings, of which {count - len(waiting)} have ended already")
        cpus = math.ceil(self._config.concurrent * (local_cpus(waiting[0]) + LEADER_CPUS))
        with ray_session(num_cpus=cpus), user_errors():
            left = self._run(waiting)
        if left:
            raise RunStopped(
                f"{left} of {count} trainings are left: time was over, or they were stopped; the same command goes on "
                "with them"
            )

    def _run(self, waiting: list[FineTuneConfig]) -> int:
        """Train; how many have not ended."""
        lead = ray.remote(num_cpus=LEADER_CPUS, max_retries=0)(run_trial)
        running: dict[Any, FineTuneConfig] = {}
        queue = list(waiting)
        while queue or running:
            while queue and len(running) < self._config.concurrent and not self._is_late:
                settings = queue.pop(0)
                running[lead.remote({"finetune": settings.model_dump(mode="json")})] = settings
            if not running:
                break
            (done, *_), _ = ray.wait(list(running))
            settings = running.pop(done)
            try:
                ray.get(done)
            except _LOST as error:
                self._say(f"WARNING: {settings.out} lost its process: {error}")
            self._tell(Location.of(settings.out))
        return sum(not has_ended(Location.of(each.out)) for each in waiting)

    @property
    def _is_late(self) -> bool:
        hours = self._config.hours
        return hours is not None and time.monotonic() - self._began > 3600 * hours

    def _tell(self, run: Location) -> None:
        name = run.uri.rpartition("/")[2]
        if (run / MODEL / "config.json").exists():
            said = ", ".join(f"{n} {v:.4f}" for n, v in head_config(run / MODEL).validation.items())
        else:
            said = _why_not(run) or "it was stopped"
        self._say(f"{(time.monotonic() - self._began) / 60:.1f} min: {name}: {said}")

    def _training(self, cell: Cell, splits: Splits) -> FineTuneConfig:
        model = self._model.config
        rows = int(splits.rows("train").sum())
        training = self._config.training(cell, rows, model.encoder, model.preprocessing.device)
        return with_whole_places(training)

    def judged(self) -> Benchmark:
        """Judge all predictors."""
        config = self._config
        rows = np.unique(np.concatenate([task.judge.setup.rows for task in self._tasks.values()]))
        embedded = _Embedded(self._corpus, rows, config.batch_rows)
        made: dict[str, dict[Cell, Made | str]] = {name: {} for name in self._tasks}
        for cell, judge, splits in self._cells():
            made[cell.task][cell] = self._made(cell, judge, splits, embedded)
        results: list[TaskResult] = []
        for name, task in self._tasks.items():
            results.append(task_result(task.judge, made[name], config.resamples, task.warnings))
        return Benchmark(
            corpus_id=self._corpus.corpus_id,
            model_hash=self._model.model_hash,
            settings=config.model_dump(mode="json"),
            versions=versions(),
            command=_command(config),
            tasks=tuple(results),
        )

    def _made(self, cell: Cell, judge: Judge, splits: Splits, embedded: _Embedded) -> Made | str:
        if not judge.learnable(splits):
            return Made(splits, judge.constant(splits), None, None, "a constant: the labels teach nothing")
        if not cell.is_trained:
            model = self._model if cell.mode == "linear" else on_device(self._model.untrained(cell.seed))
            try:
                said = judge.probed(embedded.of(model), splits)
            except DataError as error:  # the few labels may not do; others do
                return str(error)
            return Made(splits, said, model.model_hash, None, self._config.evaluation(cell, None).command)
        run = Location.of(self._training(cell, splits).out)
        failed = _why_not(run)
        if failed is not None:
            return f"{failed} (remove {run} to try it again)"
        classifier = load_classifier(run / MODEL)
        on_device(classifier.model)
        said = judge.trained(classifier, splits, self._config.batch_rows)
        command = self._config.evaluation(cell, run.uri).command
        return Made(splits, said, classifier.model.model_hash, classifier.classifier_hash, command)


class _Embedded:
    """Features of encoders, each computed once."""

    def __init__(self, corpus: Corpus, rows: npt.NDArray[np.int64], batch_rows: int) -> None:
        self._corpus, self._rows, self._batch_rows = corpus, rows, batch_rows
        self._known: dict[str, Features] = {}

    def of(self, model: Model) -> Features:
        """``(rows of the index, dim)``."""
        if model.model_hash not in self._known:
            self._known[model.model_hash] = features(model, self._corpus, self._rows, self._batch_rows)
        return self._known[model.model_hash]


def _why_not(run: Location) -> str | None:
    """Why a training has no model, if it has failed."""
    path = run / FAILED
    return str(json.loads(path.read_bytes())["error"]) if path.exists() else None


def _command(config: BenchmarkConfig) -> str:
    """Makes the same again in another folder."""
    words = ["ecgdist", "benchmark", "--out", "ANOTHER_FOLDER"]
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if name not in ("out", "concurrent", "hours") and (
            field.is_required() or value != field.get_default(call_default_factory=True)
        ):
            shown = value.model_dump(mode="json") if isinstance(value, Config) else value
            words += ["--set", f"{name}={json.dumps(shown)}"]
    return shlex.join(words)
