"""The configuration of a run: what all kinds of training share, and pretraining."""

from __future__ import annotations

from abc import ABC
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator

from ecgdist.config import Config
from ecgdist.errors import ConfigError
from ecgdist.models.config import EncoderConfig
from ecgdist.objectives.config import ObjectiveConfig, check_together
from ecgdist.preprocessing import DeviceStep
from ecgdist.signals.augment import AugmentConfig
from ecgdist.streaming.execution import StreamLimits
from ecgdist.timelimits import HUNG_AFTER_MINUTES

_GLOBAL_BATCH = 1024
_LEAST_STEPS_PER_EPOCH = 4

Decay = Annotated[float, Field(ge=0, lt=1)]


class OrderConfig(Config):
    """In which order rows are read, and how."""

    lanes: int = Field(default=64, ge=1)
    """Lanes of the order; fixed for the life of a run, at least the largest number of workers."""
    global_batch: int | None = Field(default=None, ge=2)
    """Rows of one optimizer step over all workers; a multiple of `lanes`. None takes 1,024, or the most that
    gives a small corpus four steps an epoch."""
    shuffle_rows: int = Field(default=16384, ge=1)
    """Rows mixed at a time over all lanes; each takes 60 kB of memory."""
    record_rows: str | None = None
    """A folder that all workers' nodes share; every rank writes there which rows it used in which step."""
    stream: StreamLimits = StreamLimits()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.global_batch is not None and self.global_batch % self.lanes:
            below = self.global_batch // self.lanes * self.lanes
            nearest = f"{below} or {below + self.lanes}" if below else str(self.lanes)
            raise ValueError(
                f"data.global_batch = {self.global_batch} is no multiple of data.lanes = {self.lanes}; "
                f"use {nearest}"
            )
        return self

    def resolved_global_batch(self, rows: int, most: int = _GLOBAL_BATCH) -> int:
        """The global batch for so many selected rows: what is configured, or at most `most`."""
        if self.global_batch is not None:
            return self.global_batch
        return max(self.lanes, min(most, rows // _LEAST_STEPS_PER_EPOCH) // self.lanes * self.lanes)


class DataConfig(OrderConfig):
    """What is read, and in which order."""

    exclude_splits: tuple[str, ...] = ("fold9", "fold10", "validation", "test")
    """Splits that pretraining leaves to evaluation; by default PTB-XL's official ones."""
    exclude_linked: bool = True
    """Leave out the other ECGs of their patients, too, and copies of their waveforms under other patients; without it a
    run that would see one does not start."""
    evaluation_corpora: tuple[str, ...] = ()
    """Corpora that will be evaluated on: a run that shares a patient or waveform with one does not start."""


class AdamWConfig(Config):
    """AdamW (Loshchilov & Hutter 2019) with clipped gradients."""

    betas: tuple[Decay, Decay] = (0.9, 0.95)
    """Decay of the first and of the second moment."""
    clip_norm: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient of all parameters together."""


class OptimizerConfig(AdamWConfig):
    """AdamW with linear warm-up and a half-cosine decay to zero."""

    learning_rate: float | None = Field(default=None, gt=0)
    """Peak learning rate; None takes the encoder size's value per 256 rows, scaled by the global batch."""
    weight_decay: float | None = Field(default=None, ge=0)
    """None takes the encoder size's value."""
    warmup_share: float | None = Field(default=None, ge=0, lt=1)
    """Share of all steps over which the learning rate rises from zero; None takes the size's value."""


class EngineConfig(Config):
    """DeepSpeed."""

    zero_stage: Literal[0, 1, 2, 3] | None = None
    """What ZeRO splits over workers: 0 nothing, 1 optimizer state, 2 and gradients, 3 and parameters. None takes the
    lowest whose state fits into 8 GiB of a worker, for every size here 0 in fp32 and 1 in bf16; see
    `zero.default_stage`."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the student's weights and of all matrix products; the teacher's weights and the losses are always fp32."""
    compile: bool = False
    """Compile the layers of encoders and decoders with torch.compile, which needs a C++ compiler, or on GPUs Triton: a
    minute more at the start, faster steps on GPUs."""
    micro_batch: int = Field(default=64, ge=1)
    """Most rows that a worker passes through the model at once; changes memory, not mathematics."""

    @property
    def compute_dtype(self) -> torch.dtype:
        """Of matrix products."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    @property
    def stage(self) -> int:
        """The stage of a run that is laid out (`RunPlan.of` settles it)."""
        if self.zero_stage is None:
            raise ValueError("engine.zero_stage is not settled yet")
        return self.zero_stage


class WorkersConfig(Config):
    """Ray Train: a fixed number of workers (`count`), or any number in a range (`min`, `max`)."""

    count: int | None = Field(default=None, ge=1)
    """Number of training workers, one per GPU where there are GPUs; 1 if nothing else is given."""
    min: int | None = Field(default=None, ge=1)
    """Fewest workers to train with while nodes are missing; instead of `count`, together with `max`."""
    max: int | None = Field(default=None, ge=1)
    """Most workers, to which the run grows when nodes come (back)."""
    resize_check_s: float = Field(default=60.0, gt=0)
    """Seconds between looks whether the cluster has room for more workers; a run with `min` and `max` then grows."""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """`auto` takes GPUs if the cluster has any when the run starts, and CPUs otherwise, and says so."""
    cpus_each: float = Field(default=1.0, gt=0)
    """CPUs that each worker claims beside its GPU."""
    max_failures: int = Field(default=3, ge=0)
    """How many times lost workers are started again."""
    hung_after_minutes: float | None = Field(default=HUNG_AFTER_MINUTES, gt=0)
    """How long a rank may be at one place of a step; then workers are ended and start again. Storage is waited for 10
    minutes, so it should be more; None waits for ever."""

    @model_validator(mode="after")
    def _one_way(self) -> WorkersConfig:
        if (self.min is None) != (self.max is None):
            raise ValueError("workers.min and workers.max go together; give both, or workers.count")
        if self.is_elastic and self.count is not None:
            raise ValueError(
                f"workers.count = {self.count} and workers.min, workers.max set the same thing; give one of them"
            )
        if self.least > self.most:
            raise ValueError(f"workers.min = {self.min} is more than workers.max = {self.max}")
        return self

    @property
    def is_elastic(self) -> bool:
        """Whether the number of workers may change while the run goes on."""
        return self.max is not None

    @property
    def least(self) -> int:
        """Fewest workers."""
        return self.min or self.count or 1

    @property
    def most(self) -> int:
        """Most workers."""
        return self.max or self.count or 1


class KeepBest(Config):
    """Which checkpoint is the best one: by a value of training, averaged over the steps since the one before."""

    metric: Literal["loss", "reconstruction", "prediction", "contrastive", "validation"] = "loss"
    """A value of the metrics; `validation` is for fine-tuning, which keeps its best checkpoint by itself."""
    mode: Literal["min", "max"] = "min"
    """Whether the lowest or the highest value is the best."""


class CheckpointConfig(Config):
    """When training state is saved. One checkpoint is always written at the end."""

    every_minutes: float | None = Field(default=15.0, gt=0)
    """Minutes from one checkpoint to the next, so that a failure costs no more than that; None looks at steps alone."""
    every_steps: int | None = Field(default=None, ge=1)
    """A checkpoint at every multiple of so many steps, too; None looks at minutes alone."""
    keep_last: int = Field(default=2, ge=1)
    """Whole checkpoints kept; older ones are removed."""
    keep_best: KeepBest | None = None
    """Keep the best checkpoint beside the last ones; `ecgdist export RUN --checkpoint best` publishes it."""

    def due_at(self, step: int) -> bool:
        """Whether `every_steps` wants a checkpoint after so many steps."""
        return self.every_steps is not None and step % self.every_steps == 0


class TrainConfig(Config, ABC):
    """What every run has, whatever it trains."""

    corpus: str
    """Folder of the corpus, local or s3://."""
    out: str
    """Folder of the run, local or s3://; the same folder again resumes the run."""
    seed: int = Field(default=0, ge=0)
    """Of initial weights, order, masks, crops and augmentations."""
    steps: int | None = Field(default=None, ge=1)
    """Optimizer steps in all."""
    epochs: float | None = Field(default=None, gt=0)
    """Passes over the selected rows, instead of `steps`."""
    log_every_steps: int = Field(default=10, ge=1)
    """Steps between lines on the console and in the metrics."""
    data: OrderConfig = OrderConfig()
    optimizer: AdamWConfig = AdamWConfig()
    engine: EngineConfig = EngineConfig()
    workers: WorkersConfig = WorkersConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()

    usual_epochs: ClassVar[float]
    """Where neither `steps` nor `epochs` is given."""

    @model_validator(mode="after")
    def _one_length_and_a_lane_each(self) -> Self:
        if self.steps is not None and self.epochs is not None:
            raise ValueError(
                f"steps = {self.steps} and epochs = {self.epochs} set the same thing; give one of them"
            )
        if self.workers.most > self.data.lanes:
            name = "max" if self.workers.is_elastic else "count"
            raise ValueError(
                f"workers.{name} = {self.workers.most} is more than data.lanes = {self.data.lanes}: "
                "every worker needs a lane"
            )
        return self

    def total_steps(self, steps_per_epoch: int) -> int:
        """Optimizer steps of the whole run."""
        if self.steps is not None:
            return self.steps
        return max(1, round((self.epochs or self.usual_epochs) * steps_per_epoch))

    def fixed_part(self) -> dict[str, Any]:
        """The settings that a resumed run must share with the one that began; the others may change."""
        content = self.model_dump(mode="json")
        for free in ("corpus", "out", "log_every_steps", "workers", "checkpoint"):
            del content[free]
        for free in ("stream", "record_rows"):
            del content["data"][free]
        for free in ("micro_batch", "compile"):
            del content["engine"][free]
        return content


class PretrainConfig(TrainConfig):
    """One pretraining run."""

    epochs: float | None = Field(default=None, gt=0)
    """Passes over the selected rows, instead of `steps`; 100 if neither is given."""
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    device: DeviceStep = DeviceStep()
    """Preprocessing on the training device."""
    augment: AugmentConfig = AugmentConfig()
    """What makes the views of an ECG differ beside mask and window; by default nothing."""
    encoder: EncoderConfig = EncoderConfig()
    objective: ObjectiveConfig = ObjectiveConfig()

    usual_epochs: ClassVar[float] = 100.0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        try:
            check_together(self.encoder, self.objective)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        best = self.checkpoint.keep_best
        if best is not None and best.metric not in ("loss", *self.objective.losses):
            raise ValueError(
                f"checkpoint.keep_best.metric = {best.metric}, but the objective has no such part; use loss"
            )
        return self

    def fixed_part(self) -> dict[str, Any]:
        """See `TrainConfig.fixed_part`."""
        content = super().fixed_part()
        del content["data"]["evaluation_corpora"]
        # A view without any says nothing, as in runs that began before there were augmentations.
        content["augment"] = {view: chosen for view, chosen in content["augment"].items() if chosen}
        return content
