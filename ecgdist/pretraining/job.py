"""A job as its driver sees it: check, start Ray Train, show progress, publish the model."""

from __future__ import annotations

import json
import platform
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any, ClassVar

import yaml
from rich.console import Console

from ecgdist.config import build
from ecgdist.corpus import Corpus
from ecgdist.corpus.leaks import check_leak, rows_in_splits
from ecgdist.corpus.not_compared import other_corpora
from ecgdist.errors import ConfigError, DataError, RunStopped, StorageError, TrainingError
from ecgdist.lease import Lease, is_lease_file
from ecgdist.modelcard import FORMAT_VERSION
from ecgdist.patience import patiently
from ecgdist.pretraining.checkpoint import CheckpointStore, TrainState, step_of
from ecgdist.pretraining.config import DataConfig, PretrainConfig, TrainConfig
from ecgdist.pretraining.console import Mailbox, ProgressView
from ecgdist.pretraining.export import (
    CONFIG,
    MODEL,
    PRETRAINING,
    RUN,
    export_model,
    kind_of,
    read_run,
)
from ecgdist.pretraining.plan import AnyConfig, Plan, RunPlan, with_stage
from ecgdist.pretraining.pretrain_worker import train_worker
from ecgdist.pretraining.raytrain import TrainLoop, check_cluster, local_cpus, train
from ecgdist.pretraining.signals import beside_signals, heeding_signals
from ecgdist.pretraining.stopping import ask_to_stop, forget_stop
from ecgdist.raytools import ray_session, user_errors
from ecgdist.storage import Location

_PACKAGES = ("ecgdist", "torch", "ray", "deepspeed", "numpy", "scipy", "pyarrow", "wfdb")

_SHARED_SHOWN = 3
"""Shared patients and waveforms that an error names."""


@dataclass(frozen=True)
class PretrainResult:
    """A finished run.

    Attributes:
        run: its folder.
        model: the published model folder.
    """

    run: Location
    model: Location


def pretrain(config: PretrainConfig, console: Console | None = None) -> PretrainResult:
    """Pretrain on a corpus; with the `out` of an unfinished run, go on from its last checkpoint.

    Raises:
        ConfigError: for settings that do not fit the corpus, the cluster or the run that is resumed.
        DataError, StorageError: if the corpus or the run's folder cannot be used.
        TrainingError: if training had to stop.
        RunStopped: if it was asked to, by `ecgdist jobs stop` or a signal, and has saved.
    """
    run = Location.of(config.out)
    config = with_stage_of(run, with_whole_paths(config))
    PretrainJob(RunPlan.of(config), console or Console()).run()
    return PretrainResult(run, run / MODEL)


class TrainingJob(ABC):
    """A run as its driver sees it; subclasses say what is trained.

    Attributes:
        plan: of the run.
        folder: of the run.
        console: where it is told how the run goes.
    """

    what: ClassVar[str]
    """A word for what it does, on the console and in ``run.json``."""

    def __init__(self, plan: Plan, console: Console) -> None:
        self.plan, self.console = plan, console
        self.folder = Location.of(plan.config.out)

    @property
    @abstractmethod
    def loop(self) -> TrainLoop:
        """What every worker runs."""

    @abstractmethod
    def check(self) -> list[str]:
        """Refuse what must not be trained on.

        Returns:
            warnings, in sentences.

        Raises:
            DataError: saying why.
        """

    @abstractmethod
    def headline(self) -> str:
        """What is trained on what, in a sentence."""

    @abstractmethod
    def export(self, model: Location) -> Location:
        """Write the model folder of the run to `model`, which is empty."""

    @property
    def steps_needed(self) -> int:
        """A newest checkpoint with fewer steps says that the workers did not come to the end."""
        return self.plan.total_steps

    def run(self) -> None:
        """Train and publish, unless that is done already.

        Raises:
            EcgdistError: as `pretrain`.
        """
        check_folder(self.folder, self.plan, self.what)
        if not self._is_finished():
            with Lease.take(self.folder, self.say) as lease:
                claim_run(self.folder, self.plan, self.what)
                if not self._is_finished():  # by the process that held the lease until now
                    self._train(lease)

    def say(self, sentence: str) -> None:
        """Tell the user."""
        self.console.print(sentence, soft_wrap=True, highlight=False, markup=False)

    def _is_finished(self) -> bool:
        if not (self.folder / MODEL / "config.json").exists():
            return False
        self.say(f"{self.folder} is finished: its model is in {self.folder / MODEL}")
        return True

    def _train(self, lease: Lease) -> None:
        """Train and publish, while this process holds the run's lease."""
        config = self.plan.config
        for warning in self.check():
            self.say(f"WARNING: {warning}")
        self.say(self.headline())
        forget_stop(self.folder)
        with ray_session(num_cpus=local_cpus(config)), user_errors():
            on_gpus = check_cluster(config)
            if not on_gpus and config.workers.accelerator == "auto":
                self.say("the cluster has no GPU: the workers train on its CPUs (workers.accelerator = auto)")
            mailbox = Mailbox()
            try:
                with (
                    ProgressView(self.console, mailbox, self.plan.total_steps, self.what).showing(),
                    heeding_signals(partial(_ask_to_stop, self.folder, self.say)),
                ):
                    stopped = beside_signals(
                        lambda: train(self.loop, config, on_gpus, mailbox, lease, self.say)
                    )
            finally:
                mailbox.close()
        if stopped is not None:
            raise RunStopped(f"{stopped}; the same command goes on from there")
        model = patiently(
            partial(self.publish, lease),
            tell=lambda error: self.say(f"WARNING: waiting for storage: {error}"),
        )
        self.say(f"model written to {model}")

    def publish(self, lease: Lease) -> Location:
        """Write the model of a run whose workers have ended well.

        Raises:
            TrainingError: if they have not come to its end, or another process has taken over.
        """
        lease.check()
        newest = CheckpointStore(self.folder).names()[-1:]
        if not newest or step_of(newest[0]) < self.steps_needed:
            raise TrainingError(
                f"{self.folder}: its workers ended without a word before step {self.steps_needed} (newest checkpoint: "
                f"{newest[0] if newest else 'none'}); their logs may say why. The same command goes on from there"
            )
        (self.folder / MODEL).delete()  # what an interrupted export left is no model, and in the way of one
        return self.export(self.folder / MODEL)


class PretrainJob(TrainingJob):
    """A pretraining run."""

    what = PRETRAINING
    plan: RunPlan

    @property
    def loop(self) -> TrainLoop:
        """See `TrainingJob`."""
        return train_worker

    def check(self) -> list[str]:
        """Refuse patients and waveforms of what is left to evaluation."""
        return refuse_shared(self.plan) + self._absent_splits()

    def headline(self) -> str:
        """See `TrainingJob`."""
        plan, config = self.plan, self.plan.config
        left_out = ", ".join(f"{count} in {split}" for split, count in plan.selection.left_out.items())
        if plan.selection.linked:
            left_out += f"; {plan.selection.linked} others of their patients and waveforms"
        return (
            f"pretraining {config.encoder.size} on corpus {plan.corpus.corpus_id}: {plan.order.num_rows:,} ECGs"
            + (f" (left out by data.exclude_splits: {left_out})" if left_out else "")
            + f", {size_of(plan)}"
        )

    def export(self, model: Location) -> Location:
        """See `TrainingJob`."""
        return export_model(self.folder, model)

    def _absent_splits(self) -> list[str]:
        usual = DataConfig().exclude_splits
        return [
            f"data.exclude_splits names {split}, which no ECG of the corpus has"
            for split in self.plan.config.data.exclude_splits
            if split not in self.plan.selection.left_out and split not in usual
        ]


def size_of(plan: Plan) -> str:
    """Steps, batch, workers and stage of a run, in words."""
    order, config = plan.order, plan.config
    workers = config.workers
    number = f"{workers.least} to {workers.most}" if workers.is_elastic else f"{workers.most}"
    return (
        f"{plan.total_steps:,} steps of {order.global_batch}, {order.steps_per_epoch:,} steps an epoch; "
        f"{number} workers, ZeRO stage {config.engine.stage}, {config.engine.precision}"
    )


def _ask_to_stop(run: Location, say: Callable[[str], None], signal_name: str) -> threading.Thread:
    """Ask in another thread: a signal's handler must neither wait for storage nor fail with it."""
    say(f"{signal_name}: saving a checkpoint, then stopping; once more to end at once")

    def ask() -> None:
        try:
            patiently(partial(ask_to_stop, run, signal_name))
        except StorageError as error:
            say(
                f"WARNING: workers cannot be told to stop ({error}); {signal_name} once more ends them at once"
            )

    thread = threading.Thread(target=ask, name="ask to stop", daemon=True)
    thread.start()
    return thread


def refuse_shared(plan: RunPlan) -> list[str]:
    """Refuse a run that would see patients or waveforms of what is left to evaluation, in its own corpus or others.

    Returns:
        What of some rows could not be compared, in sentences.

    Raises:
        DataError: naming the first of them.
    """
    warnings = _refuse_shared_with_left_out(plan)
    for where in plan.config.data.evaluation_corpora:
        evaluation = Corpus(where)
        report = check_leak(plan.corpus, evaluation, plan.selected)
        if report.shared or any(other_corpora(plan.corpus, evaluation)):
            shown = "".join(f"; {item}" for item in report.shared[:_SHARED_SHOWN])
            raise DataError(
                f"data.evaluation_corpora: {where} is not clean of the pretraining rows: {report.verdict}{shown}. "
                f"`ecgdist check-leak {plan.corpus.location} {where}` lists them all; leave those records out of "
                "one of the corpora, or do not evaluate on it"
            )
        warnings += [f"data.evaluation_corpora: {where}: {text}" for text in report.open_questions]
    return warnings


def _refuse_shared_with_left_out(plan: RunPlan) -> list[str]:
    """`refuse_shared` for the rows of the run's corpus that its splits leave out."""
    left_out = sorted(plan.selection.left_out)
    if not left_out:
        return []
    corpus = plan.corpus
    report = check_leak(corpus, corpus, plan.selected, rows_in_splits(corpus, left_out))
    if report.shared:
        shown = "".join(f"; {item}" for item in report.shared[:_SHARED_SHOWN])
        splits = " ".join(f"--exclude-split {s} --test-split {s}" for s in left_out)
        way_out = (
            "pack the corpus again and exclude one side of each pair"
            if plan.config.data.exclude_linked
            else "set data.exclude_linked=true to leave those out, too"
        )
        raise DataError(
            f"the rows to train on are not clean of those in {', '.join(left_out)}, which data.exclude_splits leaves "
            f"to evaluation: {report.verdict}{shown}. `ecgdist check-leak {corpus.location} {corpus.location} "
            f"{splits}` lists them all; {way_out}"
        )
    return [f"what data.exclude_splits leaves to evaluation: {text}" for text in report.open_questions]


def with_whole_paths(config: AnyConfig) -> AnyConfig:
    """Workers run in folders of their own, and reports are made from other ones."""
    places: dict[str, Any] = {"corpus": Location.of(config.corpus).uri, "out": Location.of(config.out).uri}
    if config.data.record_rows is not None:
        record = Location.of(config.data.record_rows)
        if record.is_s3:
            raise ConfigError(
                f"data.record_rows = {record}: lines cannot be added to objects; name a folder that all nodes share"
            )
        places["data"] = config.data.model_copy(update={"record_rows": record.uri})
    return config.model_copy(update=places)


def with_stage_of(run: Location, config: AnyConfig) -> AnyConfig:
    """A run that goes on keeps its ZeRO stage, unless the configuration names one."""
    if config.engine.zero_stage is not None or not (run / RUN).exists():
        return config
    return with_stage(config, int(read_run(run)["config"]["engine"]["zero_stage"]))


def check_folder(run: Location, plan: Plan, what: str = PRETRAINING) -> bool:
    """Whether `run` is this run's folder already; one that holds anything else is refused.

    Args:
        run: the folder.
        plan: of the run.
        what: the kind of run.

    Raises:
        ConfigError: if the folder is not empty and not a run, or a run that began with other settings.
    """
    if (run / RUN).exists():
        content = read_run(run)
        if kind_of(content) != what:
            raise ConfigError(f"{run} holds a run of {kind_of(content)}, not of {what}; choose another --out")
        # Also where there is no checkpoint yet: the model is published with what run.json says.
        _state_at_start(run, type(plan.config)).refuse_other_run(plan.state(0, plan.config.workers.most))
        return True
    if run.is_file() or not all(map(is_lease_file, run.list_files())):
        raise ConfigError(f"{run} exists and is not a run; choose another --out, or remove it first")
    return False


def claim_run(run: Location, plan: Plan, what: str = PRETRAINING) -> None:
    """Make `run` this run's folder; whoever calls this holds its lease.

    Raises:
        ConfigError: as `check_folder`.
    """
    if check_folder(run, plan, what):
        if not (run / CONFIG).exists():  # whoever claimed it was killed just then
            _write_config(run, read_run(run)["config"])
        return
    content: dict[str, Any] = {
        "kind": what,
        "model_format": FORMAT_VERSION,
        "config": plan.config.model_dump(mode="json"),
        "settings": plan.state(0, plan.config.workers.most).settings,
        "corpus_id": plan.corpus.corpus_id,
        "global_batch": plan.order.global_batch,
        "steps_per_epoch": plan.order.steps_per_epoch,
        "total_steps": plan.total_steps,
        "versions": {name: version(name) for name in _PACKAGES} | {"python": platform.python_version()},
    }
    (run / RUN).write_bytes(json.dumps(content, indent=1).encode() + b"\n")
    _write_config(run, content["config"])


def _write_config(run: Location, config: dict[str, Any]) -> None:
    """For the same command, to run the same again elsewhere."""
    (run / CONFIG).write_bytes(yaml.safe_dump(config, sort_keys=False).encode())


def _state_at_start(run: Location, kind: type[TrainConfig]) -> TrainState:
    """What ``run.json`` says that the run began as."""
    content = read_run(run)
    config = build(kind, content["config"], str(run / RUN))
    return TrainState(
        step=0,
        total_steps=content["total_steps"],
        world_size=config.workers.most,
        corpus_id=content["corpus_id"],
        settings=content["settings"],
    )
