"""The settings of the generative part of an objective: which method, and what belongs to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator, model_validator

from ecgdist.config import Config, refuse_foreign_settings

if TYPE_CHECKING:
    from ecgdist.objectives.part import GenerativePart


class GenerativeConfig(Config):
    """The generative part: what is predicted of what the student does not see, and how."""

    method: str = "reconstruction"
    """Name of a row of `generation.METHODS`. reconstruction: the waveform of hidden patches, as MTAE, MLAE or ST-MEM,
    by encoder.tokens. wav2vec: which quantised latent a hidden token has (wav2vec 2.0; WCR with cmsc and lead_drop)."""

    weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Factor of the part's loss; 0 leaves the part out."""

    ramp_share: float = Field(default=0.0, ge=0, le=1)
    """Share of all steps over which the weight rises linearly from zero; 0 begins with the whole weight."""

    mask_ratio: float = Field(default=0.75, gt=0, lt=1)
    """Of reconstruction: share of patches hidden from a masked student (ST-MEM: 0.75), also if it only contrasts."""

    mask: Literal["auto", "random", "per_lead"] = "auto"
    """Of reconstruction: how hidden tokens are drawn: random among all, or per_lead, the same share of every lead.
    auto is per_lead for encoder.tokens = lead_time (ST-MEM), else random (MTAE, MLAE)."""

    group_limb_leads: bool = False
    """Of reconstruction, for encoder.tokens = lead: hide I, II, III, aVR, aVL and aVF all or none, as one lead in the
    ratio. Any two of them give the others by addition, which teaches nothing."""

    mask_share: float = Field(default=0.65, gt=0, lt=1)
    """Of wav2vec: length of all hidden spans, before they overlap, as a share of a record's tokens; 0.65 with spans of
    10 hides about half."""

    mask_span: int = Field(default=10, ge=1)
    """Of wav2vec: tokens of one hidden span; at most half of a window's."""

    codebooks: int = Field(default=2, ge=1)
    """Of wav2vec: a quantised latent is an entry of each codebook, one after the other."""

    codes: int = Field(default=320, ge=2)
    """Of wav2vec: entries of a codebook."""

    distractors: int = Field(default=100, ge=1)
    """Of wav2vec: quantised latents of other hidden tokens of the record that a token's own is told from."""

    temperature: float = Field(default=0.1, gt=0, allow_inf_nan=False)
    """Of wav2vec: divides cosine similarities."""

    gumbel_start: float = Field(default=2.0, gt=0, allow_inf_nan=False)
    """Of wav2vec: temperature of the choice of codes at the first step."""

    gumbel_end: float = Field(default=0.5, gt=0, allow_inf_nan=False)
    """Of wav2vec: what that temperature never falls below."""

    gumbel_decay: float = Field(default=0.999995, gt=0, le=1)
    """Of wav2vec: factor of that temperature from one step to the next."""

    final_dim: int | None = Field(default=None, ge=1)
    """Of wav2vec: width of what is compared, a multiple of codebooks; None takes projector_out of the encoder's size
    (base: 256, as published)."""

    diversity_weight: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    """Of wav2vec: factor of the loss for using few codes."""

    penalty_weight: float = Field(default=10.0, ge=0, allow_inf_nan=False)
    """Of wav2vec: factor of the mean square of what the encoder's stem finds, before it is normalised."""

    stem_gradient_scale: float = Field(default=0.1, gt=0, le=1)
    """Of wav2vec: factor of the gradient of what the encoder's stem finds, and so of all layers of the stem before its
    last norm; 1 leaves it as it is."""

    @property
    def kind(self) -> type[GenerativePart]:
        """The class of the method."""
        # Imported here, because the methods import their settings.
        from ecgdist.objectives.generation import METHODS

        return METHODS[self.method]

    @property
    def factors(self) -> dict[str, float]:
        """The names of the part's losses, and what each is multiplied with before they are added and weighted."""
        return self.kind.factors(self)

    @field_validator("method")
    @classmethod
    def _known(cls, method: str) -> str:
        from ecgdist.objectives.generation import METHODS

        if method not in METHODS:
            raise ValueError(f"there is no such method; choose one of {', '.join(METHODS)}")
        return method

    @model_validator(mode="after")
    def _only_settings_of_its_method(self) -> GenerativeConfig:
        from ecgdist.objectives.generation import METHODS

        settings = {method: part.settings for method, part in METHODS.items()}
        refuse_foreign_settings(self, "method", {"weight", "ramp_share"}, settings)
        return self

    @model_validator(mode="after")
    def _one_mask(self) -> GenerativeConfig:
        if self.group_limb_leads and self.mask == "per_lead":
            raise ValueError(
                "group_limb_leads hides whole leads and mask = per_lead patches of every lead; choose one of them"
            )
        return self

    @model_validator(mode="after")
    def _choices_become_firmer(self) -> GenerativeConfig:
        if self.gumbel_end > self.gumbel_start:
            raise ValueError(
                f"gumbel_end {self.gumbel_end} is above gumbel_start {self.gumbel_start}; "
                "the temperature must fall, not rise"
            )
        return self
