"""A fine-tuning run as its driver sees it."""

from __future__ import annotations

from rich.console import Console

from ecgdist.downstream.evaluate import check_leak, check_task
from ecgdist.downstream.finetuning.config import FineTuneConfig
from ecgdist.downstream.finetuning.looks import ends_early, looks_in
from ecgdist.downstream.finetuning.plan import FineTunePlan
from ecgdist.downstream.finetuning.published import publish
from ecgdist.downstream.finetuning.rivals import is_out, samples_of
from ecgdist.downstream.finetuning.worker import tune_worker
from ecgdist.downstream.tasks import TASK_FILES
from ecgdist.pretraining.export import MODEL
from ecgdist.pretraining.job import PretrainResult, TrainingJob, size_of, with_stage_of, with_whole_paths
from ecgdist.pretraining.metrics import read_metrics
from ecgdist.pretraining.raytrain import TrainLoop
from ecgdist.storage import Location

FINE_TUNING = "fine-tuning"


def finetune(config: FineTuneConfig, console: Console | None = None) -> PretrainResult:
    """Train on the labels of a task; with the `out` of an unfinished run, go on from its last checkpoint.

    The test split is not looked at.

    Raises:
        ConfigError: for settings that do not fit the corpus, the cluster or the run that is resumed.
        DataError, StorageError: if corpus, model or the run's folder cannot be used, or test patients were in
            pretraining.
        TrainingError: if training had to stop.
        RunStopped: if it was asked to, by `ecgdist jobs stop` or a signal, and has saved.
    """
    check_task(config.task)  # before anything is read
    run = Location.of(config.out)
    config = with_stage_of(run, with_whole_places(config))
    TuneJob(FineTunePlan.of(config), console or Console()).run()
    return PretrainResult(run, run / MODEL)


def with_whole_places(config: FineTuneConfig) -> FineTuneConfig:
    """The same for processes that work in other folders."""
    config = with_whole_paths(config)
    files = {"model": config.model, "task": config.task if config.task.endswith(TASK_FILES) else None}
    whole = {name: Location.of(where).uri for name, where in files.items() if where is not None}
    return config.model_copy(update=whole)


class TuneJob(TrainingJob):
    """A fine-tuning run."""

    what = FINE_TUNING
    plan: FineTunePlan

    @property
    def loop(self) -> TrainLoop:
        """See `TrainingJob`."""
        return tune_worker

    def check(self) -> list[str]:
        """Refuse to train further what has seen test patients."""
        plan, config = self.plan, self.plan.config
        left_out = [f"label {name} is left out: {why}" for name, why in plan.goal.left_out.items()]
        found = [*plan.setup.open_questions, *left_out]
        if plan.model is None or config.model is None:
            return found
        return [*check_leak(config, plan.model, config.model, plan.setup), *found]

    def headline(self) -> str:
        """See `TrainingJob`."""
        plan, config = self.plan, self.plan.config
        what = {
            "finetune": "fine-tuning",
            "attention": "an attention readout on",
            "scratch": "from scratch,",
        }[config.mode]
        encoder = f"{plan.encoder.kind} {plan.encoder.size}"
        return (
            f"{what} {encoder}: {plan.setup.task.title}, {len(plan.goal.outputs)} outputs, {plan.order.num_rows:,} "
            f"training ECGs of corpus {plan.corpus.corpus_id} ({plan.setup.splits.note}); {size_of(plan)}"
        )

    def export(self, model: Location) -> Location:
        """See `TrainingJob`."""
        publish(self.plan, model)
        return model

    @property
    def steps_needed(self) -> int:
        """Those after which it got no better, or was worse than others, or all."""
        plan, goal, place = self.plan, self.plan.goal, self.plan.config.halving
        looks = looks_in(read_metrics(self.folder), goal.metric, plan.total_steps)
        is_done = ends_early(looks, goal.mode, plan.config.patience)
        if place is not None and not is_done:
            is_done = (
                is_out(place, samples_of(looks, plan.order.global_batch), goal.metric, goal.mode) is True
            )
        return looks[-1].step if is_done else plan.total_steps
