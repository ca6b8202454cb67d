"""The pretraining job as its driver sees it: check, start Ray Train, show progress, publish the model."""

from __future__ import annotations

import json
import platform
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

import yaml
from rich.console import Console

from ecgdist.config import build
from ecgdist.corpus import Corpus
from ecgdist.corpus.leaks import check_leak, rows_in_splits
from ecgdist.corpus.not_compared import other_corpora
from ecgdist.errors import ConfigError, DataError, RunStopped, StorageError, TrainingError
from ecgdist.lease import Lease, is_lease_file
from ecgdist.patience import patiently
from ecgdist.pretraining.checkpoint import CheckpointStore, TrainState, step_of
from ecgdist.pretraining.config import DataConfig, PretrainConfig
from ecgdist.pretraining.console import Mailbox, ProgressView
from ecgdist.pretraining.export import CONFIG, MODEL, RUN, export_model, read_run
from ecgdist.pretraining.plan import RunPlan, with_stage
from ecgdist.pretraining.raytrain import check_cluster, local_cpus, train
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
    console = console or Console()
    run = Location.of(config.out)
    config = _with_stage_of(run, _with_whole_paths(config))
    plan = RunPlan.of(config)
    check_folder(run, plan)
    if not _is_finished(run, console):
        with Lease.take(run, partial(console.print, soft_wrap=True, highlight=False, markup=False)) as lease:
            claim_run(run, plan)
            if not _is_finished(run, console):  # by the process that held the lease until now
                _train(run, plan, console, lease)
    return PretrainResult(run, run / MODEL)


def _is_finished(run: Location, console: Console) -> bool:
    if not (run / MODEL / "config.json").exists():
        return False
    console.print(f"{run} is finished: its model is in {run / MODEL}", soft_wrap=True, highlight=False)
    return True


def _train(run: Location, plan: RunPlan, console: Console, lease: Lease) -> None:
    """Train and publish, while this process holds the run's lease."""
    config = plan.config
    for warning in refuse_shared(plan):
        console.print(f"WARNING: {warning}", soft_wrap=True, highlight=False)
    _announce(plan, console)
    say = partial(console.print, soft_wrap=True, highlight=False, markup=False)
    forget_stop(run)
    with ray_session(num_cpus=local_cpus(config)), user_errors():
        check_cluster(config)
        mailbox = Mailbox()
        try:
            with (
                ProgressView(console, mailbox, plan.total_steps).showing(),
                heeding_signals(partial(_ask_to_stop, run, say)),
            ):
                stopped = beside_signals(lambda: train(config, mailbox, lease, say))
        finally:
            mailbox.close()
    if stopped is not None:
        raise RunStopped(f"{stopped}; the same command goes on from there")
    publish = partial(_publish, run, plan.total_steps, lease)
    model = patiently(publish, tell=lambda error: say(f"WARNING: waiting for storage: {error}"))
    console.print(f"model written to {model}", soft_wrap=True, highlight=False)


def _publish(run: Location, total_steps: int, lease: Lease) -> Location:
    """Write the model of a run whose workers have ended well.

    Raises:
        TrainingError: if they have not come to its end, or another process has taken over.
    """
    lease.check()
    newest = CheckpointStore(run).names()[-1:]
    if not newest or step_of(newest[0]) < total_steps:
        raise TrainingError(
            f"{run}: its workers ended without a word before step {total_steps} (newest checkpoint: "
            f"{newest[0] if newest else 'none'}); their logs may say why. The same command goes on from there"
        )
    (run / MODEL).delete()  # what an interrupted export left is no model, and in the way of one
    return export_model(run, run / MODEL)


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


def _with_whole_paths(config: PretrainConfig) -> PretrainConfig:
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


def _with_stage_of(run: Location, config: PretrainConfig) -> PretrainConfig:
    """A run that goes on keeps its ZeRO stage, unless the configuration names one."""
    if config.engine.zero_stage is not None or not (run / RUN).exists():
        return config
    return with_stage(config, int(read_run(run)["config"]["engine"]["zero_stage"]))


def check_folder(run: Location, plan: RunPlan) -> bool:
    """Whether `run` is this run's folder already; one that holds anything else is refused.

    Raises:
        ConfigError: if the folder is not empty and not a run, or a run that began with other settings.
    """
    if (run / RUN).exists():
        # Also where there is no checkpoint yet: the model is published with what run.json says.
        _state_at_start(run).refuse_other_run(plan.state(0, plan.config.workers.most))
        return True
    if run.is_file() or not all(map(is_lease_file, run.list_files())):
        raise ConfigError(f"{run} exists and is not a run; choose another --out, or remove it first")
    return False


def claim_run(run: Location, plan: RunPlan) -> None:
    """Make `run` this run's folder; whoever calls this holds its lease.

    Raises:
        ConfigError: as `check_folder`.
    """
    if check_folder(run, plan):
        if not (run / CONFIG).exists():  # whoever claimed it was killed just then
            _write_config(run, read_run(run)["config"])
        return
    content: dict[str, Any] = {
        "config": plan.config.model_dump(mode="json"),
        "corpus_id": plan.corpus.corpus_id,
        "global_batch": plan.order.global_batch,
        "steps_per_epoch": plan.order.steps_per_epoch,
        "total_steps": plan.total_steps,
        "versions": {name: version(name) for name in _PACKAGES} | {"python": platform.python_version()},
    }
    (run / RUN).write_bytes(json.dumps(content, indent=1).encode() + b"\n")
    _write_config(run, content["config"])


def _write_config(run: Location, config: dict[str, Any]) -> None:
    """For `ecgdist pretrain`, to run the same again elsewhere."""
    (run / CONFIG).write_bytes(yaml.safe_dump(config, sort_keys=False).encode())


def _state_at_start(run: Location) -> TrainState:
    """What ``run.json`` says that the run began as."""
    content = read_run(run)
    config = build(PretrainConfig, content["config"], str(run / RUN))
    return TrainState(
        step=0,
        total_steps=content["total_steps"],
        world_size=config.workers.most,
        corpus_id=content["corpus_id"],
        settings=config.fixed_part() | {"global_batch": content["global_batch"]},
    )


def _announce(plan: RunPlan, console: Console) -> None:
    order, config = plan.order, plan.config
    workers = config.workers
    number = f"{workers.least} to {workers.most}" if workers.is_elastic else f"{workers.most}"
    left_out = ", ".join(f"{count} in {split}" for split, count in plan.selection.left_out.items())
    if plan.selection.linked:
        left_out += f"; {plan.selection.linked} others of their patients and waveforms"
    usual = DataConfig().exclude_splits
    for split in config.data.exclude_splits:
        if split not in plan.selection.left_out and split not in usual:
            console.print(
                f"WARNING: data.exclude_splits names {split}, which no ECG of the corpus has", highlight=False
            )
    console.print(
        f"pretraining {config.encoder.size} on corpus {plan.corpus.corpus_id}: {order.num_rows:,} ECGs"
        + (f" (left out by data.exclude_splits: {left_out})" if left_out else "")
        + f", {plan.total_steps:,} steps of {order.global_batch}, {order.steps_per_epoch:,} steps an epoch; "
        f"{number} workers, ZeRO stage {config.engine.stage}, {config.engine.precision}",
        soft_wrap=True,
        highlight=False,
    )
