"""The configuration of a fine-tuning run."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ecgdist.config import Config
from ecgdist.downstream.evaluate import TaskConfig
from ecgdist.downstream.halving import HalvingPlace
from ecgdist.models.config import EncoderConfig
from ecgdist.preprocessing import DeviceStep
from ecgdist.pretraining.config import AdamWConfig, CheckpointConfig, Decay, OrderConfig, TrainConfig
from ecgdist.signals.augment.choice import Choice

MOST_BATCH = 64
"""Rows of a step where the configuration names no number."""

_LANES = 8


class ReadoutConfig(Config):
    """What stands on the encoder."""

    kind: Literal["linear", "attention"] | None = None
    """`linear`: of the mean over tokens; `attention`: tokens are pooled by attention of a learned query. None is
    attention where the encoder is frozen, and linear elsewhere."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the pooled vector's values that are set to zero in training, anew for each record and step."""


class TunerConfig(AdamWConfig):
    """AdamW with linear warm-up and a half-cosine decay to zero."""

    learning_rate: float = Field(default=1e-3, gt=0)
    """Peak learning rate of the readout; lower layers have less of it where `layer_decay` says so."""
    weight_decay: float = Field(default=1e-3, ge=0)
    """Of matrices."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decay of the first and of the second moment."""
    warmup_share: float = Field(default=0.1, ge=0, lt=1)
    """Share of all steps over which the learning rate rises from zero."""


class FineTuneConfig(TrainConfig, TaskConfig):
    """One fine-tuning run."""

    mode: Literal["finetune", "attention", "scratch"] = "finetune"
    """`finetune` trains all weights of a model; `attention` a readout on a frozen model; `scratch` all weights of an
    encoder that has not seen anything, the supervised baseline."""
    model: str | None = None
    """Model folder, local or s3://; with `scratch`, the one whose encoder and preprocessing are taken, untrained."""
    encoder: EncoderConfig | None = None
    """With `scratch`, the encoder, instead of that of a model: `kind: xresnet` and `kind: s4d` are the usual ones."""
    device: DeviceStep | None = None
    """With `scratch` and `encoder`, preprocessing on the training device."""
    readout: ReadoutConfig = ReadoutConfig()
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """The learning rate of a layer is this times that of the layer above it (Clark et al. 2020, section 3.1)."""
    imbalance: Literal["none", "weighted", "focal"] = "none"
    """`weighted`: positives of a label count as often as they are rarer than negatives, at most 20 times; `focal`:
    records that are right already count less (Lin et al. 2017, eq. 4, gamma = 2)."""
    augment: tuple[Choice, ...] = ()
    """What is done to each training window, in this order; see `augment.student` of pretraining."""
    evaluate_epochs: float = Field(default=1.0, gt=0)
    """Passes over the training rows between two looks at the validation split."""
    patience: int | None = Field(default=10, ge=1)
    """Looks at the validation split without a better one, after which training ends; None goes on to the last step."""
    halving: HalvingPlace | None = None
    """Of a trial of a sweep: where it stands among the others."""
    batch_rows: int = Field(default=64, ge=1)
    """ECGs of the validation split that a worker passes through the model at once."""
    epochs: float | None = Field(default=None, gt=0)
    """Passes over the training rows, instead of `steps`; 30 if neither is given."""
    data: OrderConfig = OrderConfig(lanes=_LANES)
    optimizer: TunerConfig = TunerConfig()
    checkpoint: CheckpointConfig = CheckpointConfig(keep_last=1)

    usual_epochs: ClassVar[float] = 30.0

    @model_validator(mode="after")
    def _fits_its_mode(self) -> Self:
        if self.mode == "scratch":
            if (self.model is None) == (self.encoder is None):
                raise ValueError("mode = scratch takes either model, whose encoder is built anew, or encoder")
            if self.encoder is None and self.device is not None:
                raise ValueError(
                    "device comes with the model; leave it out, or give encoder instead of model"
                )
        elif self.model is None:
            raise ValueError(f"mode = {self.mode} needs model, the folder of a pretrained one")
        elif self.encoder is not None or self.device is not None:
            raise ValueError(f"encoder and device come with the model in mode = {self.mode}; leave them out")
        if self.mode == "attention" and (self.readout.kind == "linear" or self.layer_decay != 1):
            raise ValueError(
                "mode = attention trains an attention readout alone: leave out readout.kind and layer_decay; for a "
                "linear one use `ecgdist evaluate --mode linear`"
            )
        if self.checkpoint.keep_best is not None:
            raise ValueError(
                "checkpoint.keep_best is settled: the best one is the best on the validation split"
            )
        return self

    @property
    def readout_kind(self) -> Literal["linear", "attention"]:
        """The readout's name in `models.readout.READOUTS`."""
        return self.readout.kind or ("attention" if self.mode == "attention" else "linear")

    def fixed_part(self) -> dict[str, Any]:
        """See `TrainConfig.fixed_part`."""
        content = super().fixed_part()
        for free in ("model", "batch_rows", "allow_leak", "halving"):
            del content[free]
        return content
