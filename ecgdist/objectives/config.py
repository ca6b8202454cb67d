"""The settings of an objective, and which encoders can serve it."""

from __future__ import annotations

from pydantic import model_validator

from ecgdist.config import Config
from ecgdist.errors import ConfigError
from ecgdist.models.config import EncoderConfig
from ecgdist.models.encoders import ENCODERS
from ecgdist.objectives.contrast import ContrastiveConfig
from ecgdist.objectives.generative import GenerativeConfig
from ecgdist.objectives.part import Mask
from ecgdist.objectives.reconstruction import Masking


class ObjectiveConfig(Config):
    """What is learned: two parts and their weights."""

    generative: GenerativeConfig = GenerativeConfig()
    """Masked reconstruction or prediction; weight 0 for the contrastive arm (CL)."""

    contrastive: ContrastiveConfig = ContrastiveConfig()
    """Contrast of two views of a record; weight 0 for the generative arm (GL)."""

    @property
    def arm(self) -> str:
        """What is learned by, in the words of the paper: generative (GL), contrastive (CL) or hybrid (HL)."""
        if self.contrastive.weight == 0:
            return "generative learning (GL)"
        return "contrastive learning (CL)" if self.generative.weight == 0 else "hybrid learning (HL)"

    @property
    def is_masked(self) -> bool:
        """Whether something is hidden from the student."""
        return self.generative.weight > 0 or self.contrastive.student_view == "masked"

    @property
    def losses(self) -> tuple[str, ...]:
        """Names of the losses of its parts."""
        generative = tuple(self.generative.factors) if self.generative.weight > 0 else ()
        return (*generative, "contrastive") if self.contrastive.weight > 0 else generative

    @property
    def student_passes(self) -> int:
        """How many views of a record the student sees, each masked and contrasted in the same way."""
        return self.contrastive.student_passes if self.contrastive.weight > 0 else 1

    @model_validator(mode="after")
    def _learns_something(self) -> ObjectiveConfig:
        if self.generative.weight == 0 and self.contrastive.weight == 0:
            raise ValueError(
                "generative.weight and contrastive.weight are both 0: nothing is learned; set one above 0"
            )
        if self.generative.weight > 0 and self.contrastive.student_view == "full":
            raise ValueError(
                "contrastive.student_view = full needs generative.weight = 0: "
                "a student that reconstructs or predicts sees the masked view"
            )
        return self

    @model_validator(mode="after")
    def _what_is_left_out_can_be_decoded(self) -> ObjectiveConfig:
        method, layers = self.generative.method, self.contrastive.feature_decoder_layers
        replaces = self.generative.kind.needs == "replaces_tokens"
        if layers and (not self.is_masked or self.contrastive.weight == 0):
            raise ValueError(
                f"contrastive.feature_decoder_layers = {layers} decodes what a masked student does not see, but this "
                "one contrasts nothing or sees everything; leave it out, or use student_view = masked"
            )
        if replaces and layers and self.generative.weight > 0:
            raise ValueError(
                f"contrastive.feature_decoder_layers = {layers} decodes tokens that were left out, but the student of "
                f"generative.method = {method} encodes all of them, hidden ones as a mask embedding; leave it out"
            )
        if replaces and self.is_masked and self.generative.weight == 0:
            raise ValueError(
                "contrastive.student_view = masked with generative.weight = 0 leaves hidden patches out, as "
                f"generative.method = reconstruction does; leave generative.method = {method} out"
            )
        return self


def check_together(encoder: EncoderConfig, objective: ObjectiveConfig) -> Mask:
    """Check that an encoder can serve an objective; returns the mask that they ask for.

    Raises:
        ConfigError: naming the setting that does not fit and what would.
    """
    _check_kind(encoder, objective)
    generative = objective.generative
    if generative.weight > 0:
        return generative.kind.masking(encoder, generative)
    return Masking(encoder, generative, generative.mask_ratio if objective.is_masked else 0.0)


_HIDES = {
    "drops_tokens": "leave hidden tokens out",
    "replaces_tokens": "replace hidden tokens by a mask embedding",
}
"""What an encoder can do, by the attribute that says so."""


def _check_kind(encoder: EncoderConfig, objective: ObjectiveConfig) -> None:
    generative = objective.generative
    needed = generative.kind.needs if generative.weight > 0 else "drops_tokens"
    if not objective.is_masked or getattr(ENCODERS[encoder.kind], needed):
        return
    asked = []
    if needed == "replaces_tokens":
        asked.append(f"generative.method = {generative.method}")
    elif generative.weight > 0:
        asked.append(f"generative.weight = {generative.weight:g}")
    if objective.contrastive.student_view == "masked":
        asked.append("contrastive.student_view = masked")
    able = ", ".join(kind for kind, other in ENCODERS.items() if getattr(other, needed))
    raise ConfigError(
        f"encoder.kind = {encoder.kind} encodes whole windows and cannot {_HIDES[needed]}, so it cannot "
        f"serve {' and '.join(asked)}. It serves contrastive learning with the full view "
        f"(generative.weight = 0, contrastive.student_view = auto or full); masked objectives need "
        f"encoder.kind = {able}"
    )
