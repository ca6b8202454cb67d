"""Hybrid self-supervised learning: L = w_gen * reconstruction + w_con * contrast on one shared encoder.

After Song et al. 2024 (arXiv 2407.07110); the design of the parts and every value are ours (CMAE, Huang et
al. 2023, is the nearest published one). One weight at 0 gives the pure arms; what that arm does not need is
neither built nor computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from pydantic import model_validator
from torch import Tensor, nn

from ecgdist.config import Config
from ecgdist.errors import ConfigError, DataError, TrainingError
from ecgdist.models.config import EncoderConfig
from ecgdist.models.decoder import Decoder, build_decoder
from ecgdist.models.encoders import ENCODERS, build_encoder
from ecgdist.models.heads import Predictor, Projector
from ecgdist.models.patches import pool
from ecgdist.objectives.contrast import ContrastiveConfig, info_nce
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
    """Contrast with the momentum teacher; weight 0 for the generative arm (GL)."""

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

    @model_validator(mode="after")
    def _learns_something(self) -> ObjectiveConfig:
        if self.generative.weight == 0 and self.contrastive.weight == 0:
            raise ValueError(
                "generative.weight and contrastive.weight are both 0: nothing is learned; set one above 0"
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


class PretrainingModule(nn.Module):
    """A student: one encoder, a decoder if it reconstructs, a projector and a predictor if it contrasts.

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
        self.decoder: Decoder | None = None
        self.projector: Projector | None = None
        self.predictor: Predictor | None = None
        if objective_config.generative.weight > 0:
            with _seeded(decoder_seed):
                self.decoder = build_decoder(encoder_config)
        if objective_config.contrastive.weight > 0:
            with _seeded(heads_seed):
                self.projector, self.predictor = Projector(encoder_config), Predictor(encoder_config)

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
    ) -> dict[str, Tensor]:
        """Losses of some rows of the global batch, as sums; see `combine`.

        Args:
            signal: ``(batch, 12, samples)``, the student's view, filtered and scaled.
            valid_samples: ``(batch,)`` int64; samples from here on are padding.
            lead_mask: ``(batch, 12)`` bool, True = present.
            noise: ``(batch, num_tokens)`` uniform numbers that decide what is hidden.
            row_weight: ``(batch,)`` 1, or 0 for a row that only fills the batch.
            keys, positive, query_patient, key_patient: for the contrastive part, as in `info_nce`.

        Returns:
            ``reconstruction_sum`` and ``contrastive_sum`` (0-d; only of parts with a weight above 0) and,
            detached, ``reconstruction_tokens`` (0-d, how many patches the first sums) and ``embedding``
            ``(batch, dim)``.

        Raises:
            DataError: if the window is not the one the module was built for.
            TrainingError: if the contrastive part lacks one of its inputs.
        """
        tokens, kept, kept_valid, hidden, valid = self._encode(signal, valid_samples, lead_mask, noise)
        embedding = pool(tokens, kept_valid)
        outputs = {"embedding": embedding.detach()}
        if self.decoder is not None:
            prediction = self.decoder(tokens, kept, kept_valid, valid)
            targets = patch_targets(signal, valid_samples, lead_mask, self._layout)
            error, count = reconstruction_sums(prediction, targets, hidden, row_weight)
            outputs |= {"reconstruction_sum": error, "reconstruction_tokens": count.detach()}
        if self.config.contrastive.weight > 0:
            losses = self._contrast(embedding, keys, positive, query_patient, key_patient)
            # The student has seen nothing of a record without one valid token: it has no direction to learn.
            outputs["contrastive_sum"] = (losses * row_weight * kept_valid.any(dim=1)).sum()
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
        tokens, kept, kept_valid, hidden, valid = self._encode(signal, valid_samples, lead_mask, noise)
        targets = patch_targets(signal, valid_samples, lead_mask, self._layout)
        prediction = self.decoder(tokens, kept, kept_valid, valid).float().reshape(targets.values.shape)
        filled = prediction * spread(targets.variance)[:, :, None, None] + targets.mean[:, :, None, None]
        unseen = hidden[:, :, None, None] & targets.present.expand_as(filled)
        waveform = torch.where(unseen, filled, self._layout.patchify(signal.float()))
        missing = ~lead_mask[:, :, None]
        return self._layout.unpatchify(waveform).masked_fill(missing, 0), self._layout.samples(hidden)

    def teacher(self) -> MomentumTeacher | None:
        """A momentum teacher that starts as a copy of this student, or None if nothing is contrasted."""
        return MomentumTeacher(self.encoder, self.projector) if self.projector is not None else None

    def student_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The named weights that the teacher follows: encoder and projector."""
        return (
            (name, weight)
            for name, weight in self.named_parameters()
            if name.startswith(("encoder.", "projector."))
        )

    def _encode(
        self, signal: Tensor, valid_samples: Tensor, lead_mask: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Mask and encode; returns tokens, kept, kept_valid, hidden, valid. The full view hides nothing."""
        if signal.shape[-1] != self.window_samples:
            raise DataError(
                f"this model was built for windows of {self.window_samples} samples and was given "
                f"{signal.shape[-1]}; cut windows of that length, or build it for the new one"
            )
        valid = self.encoder.token_valid(valid_samples, lead_mask, self.num_tokens)
        if not self.encoder.drops_tokens:
            every = torch.arange(self.num_tokens, device=signal.device).expand_as(valid)
            tokens = self.encoder(signal, valid_samples, lead_mask)
            return tokens, every, valid, torch.zeros_like(valid), valid
        kept, kept_valid, hidden = self._masking(noise, valid)
        tokens = self.encoder(signal, valid_samples, lead_mask, kept, kept_valid)
        return tokens, kept, kept_valid, hidden, valid

    def _contrast(
        self,
        embedding: Tensor,
        keys: Tensor | None,
        positive: Tensor | None,
        query_patient: Tensor | None,
        key_patient: Tensor | None,
    ) -> Tensor:
        """One contrastive loss per row: ``(batch, dim)`` -> ``(batch,)``."""
        assert self.projector is not None
        assert self.predictor is not None
        if keys is None or positive is None or query_patient is None or key_patient is None:
            raise TrainingError(
                "the contrastive part needs keys, positive, query_patient and key_patient; compute the "
                "teacher's keys of the global batch first, or set contrastive.weight to 0"
            )
        queries = self.predictor(self.projector(embedding))
        temperature = self.config.contrastive.temperature
        return info_nce(queries, keys, positive, query_patient, key_patient, temperature)


def combine(
    sums: Mapping[str, Tensor], reconstruction_tokens: Tensor, global_batch: int, config: ObjectiveConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss that sums of a global batch, or of a share of it, stand for.

    The losses of all shares add up to the loss of the whole, and so do their gradients; an engine that
    averages gradients over W processes is given W times this loss.

    Args:
        sums: what `PretrainingModule` returned, for all or some rows.
        reconstruction_tokens: `count_tokens` summed over the global batch, 0-d.
        global_batch: number of records in the global batch, without rows that only fill.
        config: the weights.

    Returns:
        the loss, and its parts before weighting, detached: ``reconstruction``, ``contrastive``.
    """
    weighted: list[Tensor] = []
    parts: dict[str, Tensor] = {}
    if config.generative.weight > 0:
        reconstruction = sums["reconstruction_sum"] / reconstruction_tokens.clamp(min=1)
        weighted.append(config.generative.weight * reconstruction)
        parts["reconstruction"] = reconstruction.detach()
    if config.contrastive.weight > 0:
        contrastive = sums["contrastive_sum"] / global_batch
        weighted.append(config.contrastive.weight * contrastive)
        parts["contrastive"] = contrastive.detach()
    return torch.stack(weighted).sum(), parts


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch inside and leave the caller's stream of random numbers as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
