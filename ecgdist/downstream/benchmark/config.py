"""The configuration of a benchmark."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from ecgdist.config import Config, build, merged
from ecgdist.corpus.splits import OnConflict, SeededSplit
from ecgdist.downstream.evaluate import EvaluateConfig
from ecgdist.downstream.finetuning.config import MOST_BATCH, FineTuneConfig
from ecgdist.downstream.scores import SPECIFICITY
from ecgdist.downstream.tasks import Folds
from ecgdist.errors import ConfigError
from ecgdist.models.config import EncoderConfig
from ecgdist.preprocessing import DeviceStep

Mode = Literal["linear", "random", "finetune", "scratch", "attention", "xresnet", "s4d"]

FROZEN = ("linear", "random")
"""Modes in which nothing is trained but a probe."""
_RIVALS = ("xresnet", "s4d")
_SETTLED = (
    "out", "task", "corpus", "model", "mode", "encoder", "device", "folds", "seeded", "on_conflict", "allow_leak",
    "label_share", "label_seed", "seed", "steps", "epochs", "evaluate_epochs", "halving",
)  # fmt: skip

Share = Annotated[float, Field(gt=0, le=1)]


def name_of_task(task: str) -> str:
    """What a task's runs are called after: its name, or that of its file."""
    return task.rpartition("/")[2]


class Cell(NamedTuple):
    """One predictor."""

    task: str
    mode: Mode
    share: float
    seed: int

    @property
    def is_trained(self) -> bool:
        """Whether more than a probe is fitted."""
        return self.mode not in FROZEN

    @property
    def folder(self) -> str:
        """Name of its run, if it is trained."""
        return f"{name_of_task(self.task)}-{self.mode}-{self.share:g}-seed-{self.seed}"


class BenchmarkConfig(Config):
    """Ways to use one model, on the labels of some tasks."""

    model: str
    """Model folder, local or s3://."""
    corpus: str
    """Corpus with the labels, local or s3://."""
    out: str
    """Folder of the benchmark, local or s3://; the same again goes on."""
    tasks: tuple[str, ...] = Field(min_length=1)
    """Names of tasks, or paths of .yaml or .csv files."""
    modes: tuple[Mode, ...] = Field(default=("linear", "random", "finetune", "scratch"), min_length=1)
    """`linear`: the probe on the frozen model; `random`: the same on an untrained encoder; `finetune`, `attention`,
    `scratch`: see `ecgdist finetune`; `xresnet`, `s4d`: such an encoder of the model's size, from scratch."""
    label_shares: tuple[Share, ...] = Field(default=(0.01, 0.1, 1.0), min_length=1)
    """Shares of the training patients whose labels are used; validation and test stay whole."""
    label_seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)
    """Each draws patients, initial weights and the order of training; the figures are means over them."""
    steps: int = Field(default=200, ge=1)
    """Optimizer steps of each training, whatever the share of labels."""
    looks: int = Field(default=10, ge=1)
    """Looks at the validation split in each training, of which the best one is kept."""
    finetune: dict[str, Any] = Field(default_factory=dict)
    """Other settings of `ecgdist finetune` that all trainings share."""
    folds: Folds | None = None
    """Folds to use instead of the official ones."""
    seeded: SeededSplit | None = None
    """Draw a split by chance, whole patients at a time, instead of using folds."""
    on_conflict: OnConflict = "refuse"
    """What to do about a patient or waveform in two splits; `drop` takes its rows out of the earlier one."""
    allow_leak: bool = False
    """Go on when test patients were in pretraining; the figures then carry a warning."""
    resamples: int = Field(default=1000, ge=100)
    """Bootstrap resamples of intervals and p-values."""
    seed: int = Field(default=0, ge=0)
    """Of the bootstrap."""
    batch_rows: int = Field(default=64, ge=1)
    """ECGs encoded at once."""
    concurrent: int = Field(default=1, ge=1)
    """Trainings at the same time."""
    hours: float | None = Field(default=None, gt=0)
    """No training is started after so long; the same command goes on. None sets no limit."""

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        for name in ("tasks", "modes", "label_shares", "label_seeds"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} = {list(values)} names one twice")
        if len(set(map(name_of_task, self.tasks))) < len(self.tasks):
            raise ValueError(f"tasks = {list(self.tasks)} has two files of one name; rename one")
        settled = [name for name in _SETTLED if name in self.finetune]
        if settled:
            raise ValueError(f"finetune.{settled[0]} is settled by the benchmark; leave it out")
        try:
            for mode in self.modes:
                cell = Cell(self.tasks[0], mode, self.label_shares[0], self.label_seeds[0])
                if cell.is_trained:
                    self.training(cell, 1000, EncoderConfig(), DeviceStep())
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return self

    def cells(self, task: str) -> Iterator[Cell]:
        """All predictors of a task, those with fewer labels first."""
        for share in sorted(self.label_shares):
            for mode in self.modes:
                for seed in self.label_seeds:
                    yield Cell(task, mode, share, seed)

    def training(self, cell: Cell, rows: int, encoder: EncoderConfig, device: DeviceStep) -> FineTuneConfig:
        """How a predictor is trained.

        Args:
            cell: which.
            rows: that it is trained on.
            encoder: of the model.
            device: preprocessing of the model.

        Raises:
            ConfigError: if settings do not go together.
        """
        settled: dict[str, Any] = {
            "out": f"{self.out}/runs/{cell.folder}",
            "seed": cell.seed,
            "steps": self.steps,
            **self._task(cell),
        }
        if cell.mode in _RIVALS:
            settled |= {
                "mode": "scratch",
                "encoder": {"kind": cell.mode, "size": encoder.size},
                "device": device,
            }
        else:
            settled |= {"mode": cell.mode, "model": self.model}
        workers = self.finetune.get("workers", {})
        lanes = workers.get("max") or workers.get("count") or 1
        own = merged({"data": {"lanes": lanes}}, self.finetune)
        if cell.mode == "attention":
            own = {name: value for name, value in own.items() if name != "layer_decay"}
        config = build(FineTuneConfig, merged(own, settled), cell.folder)
        batch = config.data.resolved_global_batch(rows, MOST_BATCH)
        epochs = self.steps / self.looks / max(1, rows // batch)
        return config.model_copy(update={"evaluate_epochs": epochs})

    def evaluation(self, cell: Cell, run: str | None) -> EvaluateConfig:
        """The evaluation that judges a predictor alone.

        Args:
            cell: which.
            run: its folder, if it was trained.
        """
        values = self._task(cell) | {"resamples": self.resamples, "batch_rows": self.batch_rows}
        if run is not None:
            values |= {"model": f"{run}/model", "mode": "trained", "seed": self.seed}
        else:
            # The seed of an evaluation is also that of its untrained encoder.
            seed = cell.seed if cell.mode == "random" else self.seed
            values |= {"model": self.model, "seed": seed, "specificity": SPECIFICITY}
        return build(EvaluateConfig, values)

    def fixed_part(self) -> dict[str, Any]:
        """What a benchmark that goes on must share with the one that began; tasks, modes and seeds may be added."""
        content = self.model_dump(mode="json")
        free = ("out", "tasks", "modes", "label_shares", "label_seeds", "resamples", "seed", "batch_rows")
        for name in (*free, "concurrent", "hours", "allow_leak"):
            del content[name]
        return content

    def _task(self, cell: Cell) -> dict[str, Any]:
        return {
            "task": cell.task,
            "corpus": self.corpus,
            "folds": self.folds,
            "seeded": self.seeded,
            "on_conflict": self.on_conflict,
            "allow_leak": self.allow_leak,
            "label_share": cell.share,
            "label_seed": cell.seed,
        }
