"""The contrastive part of an objective: which method, and its settings."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from ecgdist.config import Config
from ecgdist.objectives.byol import Byol
from ecgdist.objectives.cmsc import Cmsc
from ecgdist.objectives.method import Contrast
from ecgdist.objectives.moco import MocoV3
from ecgdist.objectives.simclr import SimClr

METHODS: dict[str, type[Contrast]] = {"moco": MocoV3, "byol": Byol, "simclr": SimClr, "cmsc": Cmsc}
"""Contrastive methods by their name in a configuration."""

_MOMENTUM_START, _MOMENTUM_END = 0.996, 1.0


class ContrastiveConfig(Config):
    """The contrastive part: what is contrasted with what, and how."""

    method: str = "moco"
    """Name of a row of `METHODS`. moco (MoCo v3): the momentum teacher's embeddings of the global batch, by InfoNCE.
    byol: the teacher's embedding of the same record alone. simclr: both views through the student, by NT-Xent. cmsc:
    two neighbouring windows through the student, and all windows of a patient belong together."""

    weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Factor of the contrastive loss; 0 leaves projector, predictor and teacher out."""

    ramp_share: float = Field(default=0.0, ge=0, le=1)
    """Share of all steps over which the weight rises linearly from zero; 0 begins with the whole weight."""

    temperature: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Divides cosine similarities; None takes the method's (moco 0.2, simclr 0.5, cmsc 0.1). byol has none."""

    two_views: bool = False
    """For methods with a teacher: the student sees both views, and each is contrasted with the teacher's embedding of
    the other, as MoCo v3 and BYOL were published; twice the work. The other methods always do so."""

    same_patient: Literal["auto", "positive", "ignored"] = "auto"
    """What other records of a patient are: positive, which cmsc alone can do and does if nothing else is asked for, or
    ignored: neither positive nor negative."""

    feature_decoder_layers: int = Field(default=0, ge=0)
    """Transformer blocks that predict the hidden tokens of a masked student before it is contrasted (CMAE: 2); 0
    contrasts the mean of the visible tokens."""

    freeze_stem: bool = False
    """Leave the encoder's stem as it is drawn, which MoCo v3 found to keep the training of transformers stable."""

    momentum_start: float = Field(default=_MOMENTUM_START, ge=0, le=1)
    """Share of itself that the teacher keeps per step, at the first step (BYOL, CMAE: 0.996)."""

    momentum_end: float = Field(default=_MOMENTUM_END, ge=0, le=1)
    """The same at the last step; between them it follows a half cosine."""

    student_view: Literal["auto", "masked", "full"] = "auto"
    """What the student sees: auto is masked if it also reconstructs, full if not. There is one student pass a view,
    so a student that reconstructs cannot have the full view."""

    @property
    def kind(self) -> type[Contrast]:
        """The class of the method."""
        return METHODS[self.method]

    @property
    def student_passes(self) -> int:
        """How many views of a record the student sees."""
        return 2 if self.two_views or not self.kind.has_teacher else 1

    def build(self) -> Contrast:
        """The method with its settings."""
        settings: dict[str, object] = {}
        temperature = self.temperature or self.kind.default_temperature
        if temperature is not None:
            settings["temperature"] = temperature
        if self.method == "cmsc":
            settings["same_patient_positive"] = self.same_patient != "ignored"
        return self.kind(**settings)

    @field_validator("method")
    @classmethod
    def _known(cls, method: str) -> str:
        if method not in METHODS:
            raise ValueError(f"there is no such method; choose one of {', '.join(METHODS)}")
        return method

    @model_validator(mode="after")
    def _momentum_does_not_fall(self) -> ContrastiveConfig:
        if self.momentum_end < self.momentum_start:
            raise ValueError(
                f"momentum_end {self.momentum_end} is below momentum_start {self.momentum_start}; "
                "the teacher must slow down, not speed up"
            )
        return self

    @model_validator(mode="after")
    def _settings_belong_to_the_method(self) -> ContrastiveConfig:
        if self.temperature is not None and self.kind.default_temperature is None:
            raise ValueError(
                f"temperature = {self.temperature:g}, but {self.method} divides by none; leave it out"
            )
        if self.same_patient == "positive" and self.method != "cmsc":
            raise ValueError(
                f"same_patient = positive needs method = cmsc; {self.method} ignores other records of a patient"
            )
        if not self.kind.has_teacher:
            momentum = self.momentum_start, self.momentum_end
            if momentum != (_MOMENTUM_START, _MOMENTUM_END) or self.two_views:
                raise ValueError(
                    f"{self.method} has no teacher, but both views through the student; leave momentum_start, "
                    "momentum_end and two_views out"
                )
        return self
