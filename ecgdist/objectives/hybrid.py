"""Hybrid self-supervised learning: L = w_gen * reconstruction + w_con * contrast on one shared encoder.

After Song et al. 2024 (arXiv 2407.07110); the design of the parts and every value are ours (CMAE, Huang et
al. 2023, is the nearest published one). One weight at 0 gives the pure arms; what that arm does not need is
neither built nor computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from pydantic import model_validator
from torch import Tensor, nn

from ecgdist.config import Config
from ecgdist.errors import ConfigError, DataError, TrainingError
from ecgdist.models.config import EncoderConfig
from ecgdist.models.decoder import Decoder, FeatureDecoder, build_decoder
from ecgdist.models.encoders import ENCODERS, build_encoder
from ecgdist.models.freezing import freeze
from ecgdist.models.heads import Predictor, Projector
from ecgdist.models.patches import pool
from ecgdist.objectives.contrast import ContrastiveConfig
from ecgdist.objectives.method import PairContrast, TeacherContrast
from ecgdist.objectives.reconstruction import (
    GenerativeConfig,
    Masking,
    patch_targets,
    reconstruction_sums,
    spread,
    token_weight,
)
from ecgdist.objectives.teacher import MomentumTeacher


class ObjectiveConfig(Config):
    """What is learned: two parts and their weights."""

    generative: GenerativeConfig = GenerativeConfig()
    """Masked reconstruction; weight 0 for the contrastive arm (CL)."""

    contrastive: ContrastiveConfig = ContrastiveConfig()
    """Contrast of two views of a record; weight 0 for the generative arm (GL)."""

    @property
    def arm(self) -> str:
        """What is learned by, in the words of the paper: generative (GL), contrastive (CL) or hybrid (HL)."""
        if self.contrastive.weight == 0:
            return "generative learning (GL)"
        return "contrastive learning (CL)" if self.generative.weight == 0 else "hybrid learning (HL)"

    @property
    def student_mask_ratio(self) -> float:
        """Share of patches hidden from the student; 0 for the full view."""
        view = self.contrastive.student_view
        masked = self.generative.weight > 0 or view == "masked"
        return self.generative.mask_ratio if masked else 0.0

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
        layers = self.contrastive.feature_decoder_layers
        if layers and (self.student_mask_ratio == 0 or self.contrastive.weight == 0):
            raise ValueError(
                f"contrastive.feature_decoder_layers = {layers} decodes what a masked student does not see, but this "
                "one contrasts nothing or sees everything; leave it out, or use student_view = masked"
            )
        if self.generative.weight > 0 and self.contrastive.student_view == "full":
            raise ValueError(
                "contrastive.student_view = full needs generative.weight = 0: "
                "a student that reconstructs sees the masked view"
            )
        return self


def check_together(encoder: EncoderConfig, objective: ObjectiveConfig) -> Masking:
    """Check that an encoder can serve an objective; returns the mask that they ask for.

    Raises:
        ConfigError: naming the setting that does not fit and what would.
    """
    ratio = objective.student_mask_ratio
    if ratio > 0 and not ENCODERS[encoder.kind].drops_tokens:
        masked = [
            name
            for name, asked in (
                (f"generative.weight = {objective.generative.weight:g}", objective.generative.weight > 0),
                ("contrastive.student_view = masked", objective.contrastive.student_view == "masked"),
            )
            if asked
        ]
        able = ", ".join(kind for kind, other in ENCODERS.items() if other.drops_tokens)
        raise ConfigError(
            f"encoder.kind = {encoder.kind} encodes whole windows and cannot leave hidden tokens out, so it cannot "
            f"serve {' and '.join(masked)}. It serves contrastive learning with the full view "
            f"(generative.weight = 0, contrastive.student_view = auto or full); masked objectives need "
            f"encoder.kind = {able}"
        )
    return Masking(encoder, objective.generative, ratio)


class _Seen(NamedTuple):
    """What the student made of a view.

    Attributes:
        tokens: ``(batch, kept, dim)``, encoded.
        kept: ``(batch, kept)`` int64, their numbers.
        kept_valid: ``(batch, kept)`` bool, False for an unused slot.
        valid: ``(batch, tokens)`` bool, False for a token without signal.
        hidden: ``(batch, tokens)`` bool, True = valid and not encoded.
    """

    tokens: Tensor
    kept: Tensor
    kept_valid: Tensor
    valid: Tensor
    hidden: Tensor

    @property
    def encoded(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What a decoder takes."""
        return self[:4]


class PretrainingModule(nn.Module):
    """A student: one encoder, a decoder if it reconstructs, a projector if it contrasts, a predictor if the method
    has one.

    Seed torch before building it. Each part has its own stream of random numbers, so the same seed gives the
    same encoder in every arm (and from `build_encoder`), and the same decoder and heads in every arm that
    has them.

    Attributes:
        encoder: what pretraining is for.
        num_tokens: tokens of a window, hence the width of `noise`.
    """

    def __init__(
        self, encoder_config: EncoderConfig, objective_config: ObjectiveConfig, window_samples: int
    ) -> None:
        """Build the parts that the objective needs.

        Raises:
            ConfigError: if encoder, objective and window do not fit each other.
        """
        super().__init__()
        self._masking = check_together(encoder_config, objective_config)
        self.config, self.window_samples = objective_config, window_samples
        self._layout = encoder_config.layout
        self.encoder = build_encoder(encoder_config)
        self.num_tokens = self.encoder.num_tokens(window_samples)
        decoder_seed, heads_seed = torch.randint(2**31, (2,), device="cpu").tolist()
        contrastive = objective_config.contrastive
        self._contrast = contrastive.build() if contrastive.weight > 0 else None
        self.decoder: Decoder | None = None
        self.projector: Projector | None = None
        self.predictor: Predictor | None = None
        self.feature_decoder: FeatureDecoder | None = None
        if objective_config.generative.weight > 0:
            with _seeded(decoder_seed):
                self.decoder = build_decoder(encoder_config)
        if self._contrast is not None:
            with _seeded(heads_seed):
                self.projector = Projector(encoder_config)
                if self._contrast.has_predictor:
                    self.predictor = Predictor(encoder_config)
                if contrastive.feature_decoder_layers:
                    self.feature_decoder = FeatureDecoder(encoder_config, contrastive.feature_decoder_layers)
            if contrastive.freeze_stem:
                freeze(self.encoder.get_submodule("stem"))

    def forward(
        self,
        signal: Tensor,
        valid_samples: Tensor,
        lead_mask: Tensor,
        noise: Tensor,
        row_weight: Tensor,
        keys: Tensor | None = None,
        positive: Tensor | None = None,
        query_patient: Tensor | None = None,
        key_patient: Tensor | None = None,
        only_query: bool = False,
    ) -> dict[str, Tensor]:
        """Losses of some rows of the global batch, as sums; see `combine`.

        Args:
            signal: ``(batch, 12, samples)``, the student's view, filtered and scaled.
            valid_samples: ``(batch,)`` int64; samples from here on are padding.
            lead_mask: ``(batch, 12)`` bool, True = present.
            noise: ``(batch, num_tokens)`` uniform numbers that decide what is hidden.
            row_weight: ``(batch,)`` 1, or 0 for a row that only fills the batch.
            keys, positive, query_patient, key_patient: for the contrastive part, as in `TeacherContrast.losses`; of a
                method without a teacher, `keys` are ``cached`` of `PairContrast.share`.
            only_query: give ``query`` alone.

        Returns:
            with `only_query`, ``query`` ``(batch, dim)``, what the student contrasts, zeros for a row without signal;
            ``reconstruction_sum`` and ``contrastive_sum`` (0-d; only of parts with a weight above 0) and,
            detached, ``reconstruction_tokens`` (0-d, how many patches the first sums) and ``embedding``
            ``(batch, dim)``.

        Raises:
            DataError: if the window is not the one the module was built for.
            TrainingError: if the contrastive part lacks one of its inputs.
        """
        seen = self._encode(signal, valid_samples, lead_mask, noise)
        embedding = pool(seen.tokens, seen.kept_valid)
        if only_query:
            return {"query": self._query(seen, embedding)}
        outputs = {"embedding": embedding.detach()}
        if self.decoder is not None:
            prediction = self.decoder(*seen.encoded)
            targets = patch_targets(signal, valid_samples, lead_mask, self._layout)
            error, count = reconstruction_sums(prediction, targets, seen.hidden, row_weight)
            outputs |= {"reconstruction_sum": error, "reconstruction_tokens": count.detach()}
        if self._contrast is not None:
            if keys is None or positive is None or query_patient is None or key_patient is None:
                raise TrainingError(
                    "the contrastive part needs keys, positive, query_patient and key_patient; compute the "
                    "keys of the global batch first, or set contrastive.weight to 0"
                )
            query = self._query(seen, embedding)
            if isinstance(self._contrast, PairContrast):
                outputs["contrastive_sum"] = self._contrast.share(
                    query, keys, positive, key_patient, row_weight
                )
            elif isinstance(self._contrast, TeacherContrast):
                losses = self._contrast.losses(query, keys, positive, query_patient, key_patient)
                outputs["contrastive_sum"] = (losses * row_weight * seen.kept_valid.any(dim=1)).sum()
        return outputs

    @torch.no_grad()
    def count_tokens(
        self, signal: Tensor, valid_samples: Tensor, lead_mask: Tensor, noise: Tensor, row_weight: Tensor
    ) -> Tensor:
        """The ``reconstruction_tokens`` that `forward` will return for these records, without the model, 0-d.

        The sum over all processes and micro-batches is what the reconstruction loss is divided by.

        Args:
            signal, valid_samples, lead_mask, noise, row_weight: as in `forward`.
        """
        targets = patch_targets(signal, valid_samples, lead_mask, self._layout)
        valid = self.encoder.token_valid(valid_samples, lead_mask, self.num_tokens)
        _, _, hidden = self._masking(noise, valid)
        return token_weight(targets, hidden, row_weight).sum()

    @torch.no_grad()
    def reconstruct(
        self, signal: Tensor, valid_samples: Tensor, lead_mask: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Fill hidden patches with what the decoder predicts, given the true mean and spread of each patch.

        Args:
            signal, valid_samples, lead_mask, noise: as in `forward`.

        Returns:
            the waveform ``(batch, 12, samples)`` in float32, with zeros in missing leads, and which samples
            belong to hidden patches, bool of the same shape.

        Raises:
            ConfigError: if the module has no decoder.
            DataError: if the window is not the one the module was built for.
        """
        if self.decoder is None:
            raise ConfigError(
                "this model has generative.weight = 0 and so no decoder; nothing can be reconstructed"
            )
        seen = self._encode(signal, valid_samples, lead_mask, noise)
        targets = patch_targets(signal, valid_samples, lead_mask, self._layout)
        prediction = self.decoder(*seen.encoded).float().reshape(targets.values.shape)
        filled = prediction * spread(targets.variance)[:, :, None, None] + targets.mean[:, :, None, None]
        unseen = seen.hidden[:, :, None, None] & targets.present.expand_as(filled)
        waveform = torch.where(unseen, filled, self._layout.patchify(signal.float()))
        missing = ~lead_mask[:, :, None]
        return self._layout.unpatchify(waveform).masked_fill(missing, 0), self._layout.samples(seen.hidden)

    def teacher(self, compute_dtype: torch.dtype = torch.float32) -> MomentumTeacher | None:
        """A momentum teacher that starts as a copy of this student, or None if nothing is contrasted with one.

        Args:
            compute_dtype: of its matrix products; its weights are fp32 whatever it is.
        """
        if self._contrast is None or not self._contrast.has_teacher:
            return None
        assert self.projector is not None
        return MomentumTeacher(self.encoder, self.projector, compute_dtype)

    def student_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The named weights that the teacher follows: encoder and projector."""
        return (
            (name, weight)
            for name, weight in self.named_parameters()
            if name.startswith(("encoder.", "projector."))
        )

    def _encode(self, signal: Tensor, valid_samples: Tensor, lead_mask: Tensor, noise: Tensor) -> _Seen:
        """Mask and encode. The full view hides nothing."""
        if signal.shape[-1] != self.window_samples:
            raise DataError(
                f"this model was built for windows of {self.window_samples} samples and was given "
                f"{signal.shape[-1]}; cut windows of that length, or build it for the new one"
            )
        valid = self.encoder.token_valid(valid_samples, lead_mask, self.num_tokens)
        if not self.encoder.drops_tokens:
            every = torch.arange(self.num_tokens, device=signal.device).expand_as(valid)
            tokens = self.encoder(signal, valid_samples, lead_mask)
            return _Seen(tokens, every, valid, valid, torch.zeros_like(valid))
        kept, kept_valid, hidden = self._masking(noise, valid)
        tokens = self.encoder(signal, valid_samples, lead_mask, kept, kept_valid)
        return _Seen(tokens, kept, kept_valid, valid, hidden)

    def _query(self, seen: _Seen, embedding: Tensor) -> Tensor:
        """What is contrasted: ``(batch, dim)`` -> ``(batch, projected)``.

        The student has seen nothing of a record without one valid token: it has no direction to learn, and zeros.
        """
        assert self.projector is not None
        if self.feature_decoder is not None:
            embedding = self.feature_decoder(*seen.encoded)
        query: Tensor = self.projector(embedding)
        if self.predictor is not None:
            query = self.predictor(query)
        return query * seen.kept_valid.any(dim=1, keepdim=True)


def combine(
    sums: Mapping[str, Tensor],
    reconstruction_tokens: Tensor,
    global_batch: int,
    config: ObjectiveConfig,
    progress: float = 1.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss that sums of a global batch, or of a share of it, stand for.

    The losses of all shares add up to the loss of the whole, and so do their gradients; an engine that
    averages gradients over W processes is given W times this loss.

    Args:
        sums: what `PretrainingModule` returned, for all or some rows.
        reconstruction_tokens: `count_tokens` summed over the global batch, 0-d.
        global_batch: number of records in the global batch, without rows that only fill.
        config: the weights.
        progress: share of the run's steps that this one completes; what weights rise by.

    Returns:
        the loss, and its parts before weighting, detached: ``reconstruction``, ``contrastive``.
    """
    weighted: list[Tensor] = []
    parts: dict[str, Tensor] = {}
    if config.generative.weight > 0:
        reconstruction = sums["reconstruction_sum"] / reconstruction_tokens.clamp(min=1)
        weighted.append(_ramped(config.generative, progress) * reconstruction)
        parts["reconstruction"] = reconstruction.detach()
    if config.contrastive.weight > 0:
        contrastive = sums["contrastive_sum"] / (global_batch * config.student_passes)
        weighted.append(_ramped(config.contrastive, progress) * contrastive)
        parts["contrastive"] = contrastive.detach()
    return torch.stack(weighted).sum(), parts


def _ramped(part: GenerativeConfig | ContrastiveConfig, progress: float) -> float:
    """The weight of a part at a share of the run."""
    return part.weight * min(1.0, progress / part.ramp_share) if part.ramp_share else part.weight


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch inside and leave the caller's stream of random numbers as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
