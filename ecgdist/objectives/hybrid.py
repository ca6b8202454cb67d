"""Hybrid self-supervised learning: L = w_gen * generation + w_con * contrast on one shared encoder.

After Song et al. 2024 (arXiv 2407.07110); the design of the parts and every value are ours (CMAE, Huang et
al. 2023, is the nearest published one). One weight at 0 gives the pure arms; what that arm does not need is
neither built nor computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ecgdist.errors import ConfigError, DataError, TrainingError
from ecgdist.models.config import EncoderConfig
from ecgdist.models.decoder import FeatureDecoder
from ecgdist.models.encoders import build_encoder
from ecgdist.models.freezing import freeze
from ecgdist.models.heads import Predictor, Projector
from ecgdist.objectives.config import ObjectiveConfig, check_together
from ecgdist.objectives.contrast import ContrastiveConfig
from ecgdist.objectives.generative import GenerativeConfig
from ecgdist.objectives.method import PairContrast, TeacherContrast
from ecgdist.objectives.part import GenerativePart, Seen, Window, encode_kept
from ecgdist.objectives.reconstruction import Reconstruction
from ecgdist.objectives.teacher import MomentumTeacher


class PretrainingModule(nn.Module):
    """A student: one encoder, a generative part, a projector if it contrasts, a predictor if the method has one.

    Seed torch before building it. Each part has its own stream of random numbers, so the same seed gives the
    same encoder in every arm (and from `build_encoder`), and the same weights of a part in every arm that has it.

    Attributes:
        encoder: what pretraining is for.
        generative: the generative part, if there is one.
        num_tokens: tokens of a window, hence the width of `noise`.
        looks_ahead: whether something of the global batch has to be known that takes a pass of the student without
            gradient; see `look_ahead` of `forward`.
    """

    def __init__(
        self, encoder_config: EncoderConfig, objective_config: ObjectiveConfig, window_samples: int
    ) -> None:
        """Build the parts that the objective needs.

        Raises:
            ConfigError: if encoder, objective and window do not fit each other.
        """
        super().__init__()
        self._mask = check_together(encoder_config, objective_config)
        self.config, self.window_samples = objective_config, window_samples
        self.encoder = build_encoder(encoder_config)
        self.num_tokens = self.encoder.num_tokens(window_samples)
        generative_seed, heads_seed = torch.randint(2**31, (2,), device="cpu").tolist()
        generative, contrastive = objective_config.generative, objective_config.contrastive
        self._contrast = contrastive.build() if contrastive.weight > 0 else None
        self.generative: GenerativePart | None = None
        self.projector: Projector | None = None
        self.predictor: Predictor | None = None
        self.feature_decoder: FeatureDecoder | None = None
        if generative.weight > 0:
            with _seeded(generative_seed):
                self.generative = generative.kind(encoder_config, generative, self.num_tokens)
        if self._contrast is not None:
            with _seeded(heads_seed):
                self.projector = Projector(encoder_config)
                if self._contrast.has_predictor:
                    self.predictor = Predictor(encoder_config)
                if contrastive.feature_decoder_layers:
                    self.feature_decoder = FeatureDecoder(encoder_config, contrastive.feature_decoder_layers)
            if contrastive.freeze_stem:
                freeze(self.encoder.get_submodule("stem"))
        part = self.generative
        self.looks_ahead = self._is_pair or (part is not None and part.looks_ahead)

    @property
    def _is_pair(self) -> bool:
        return self._contrast is not None and not self._contrast.has_teacher

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
        seeds: Tensor | None = None,
        census: Tensor | None = None,
        step: int = 0,
        look_ahead: bool = False,
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
            seeds, census, step: for a generative part that looks ahead, as in `GenerativePart.sums`.
            look_ahead: give only what has to be known of the whole global batch beforehand.

        Returns:
            with `look_ahead`, ``query`` ``(batch, dim)``, what the student contrasts, zeros for a row without signal,
            if the other view goes through the student, too; and ``look``, see `GenerativePart.look`, if there is a
            generative part. Else a sum for each loss of a part with a weight above 0 (0-d; ``reconstruction_sum``,
            ``contrastive_sum``, ...; see `GenerativeConfig.factors`) and, detached, ``embedding`` ``(batch, dim)``.

        Raises:
            DataError: if the window is not the one the module was built for.
            TrainingError: if a part lacks one of its inputs.
        """
        window = self._window(signal, valid_samples, lead_mask)
        if look_ahead:
            return self._look(window, noise, row_weight)
        seen = self.see(window, noise)
        outputs = {"embedding": seen.embedding.detach()}
        if self.generative is not None:
            sums = self.generative.sums(seen, window, row_weight, seeds, census, step)
            outputs |= {f"{n}_sum": v for n, v in zip(self.config.generative.factors, sums, strict=True)}
        if self._contrast is not None:
            outputs["contrastive_sum"] = self._contrastive_sum(
                seen, row_weight, keys, positive, query_patient, key_patient
            )
        return outputs

    def _contrastive_sum(
        self,
        seen: Seen,
        row_weight: Tensor,
        keys: Tensor | None,
        positive: Tensor | None,
        query_patient: Tensor | None,
        key_patient: Tensor | None,
    ) -> Tensor:
        """The contrastive loss of some rows, as a sum; arguments as of `forward`."""
        if keys is None or positive is None or query_patient is None or key_patient is None:
            raise TrainingError(
                "the contrastive part needs keys, positive, query_patient and key_patient; compute the "
                "keys of the global batch first, or set contrastive.weight to 0"
            )
        query = self.query(seen)
        if isinstance(self._contrast, PairContrast):
            return self._contrast.share(query, keys, positive, key_patient, row_weight)
        assert isinstance(self._contrast, TeacherContrast)
        losses = self._contrast.losses(query, keys, positive, query_patient, key_patient)
        return (losses * row_weight * seen.kept_valid.any(dim=1)).sum()

    def see(self, window: Window, noise: Tensor) -> Seen:
        """Mask and encode; the full view hides nothing.

        Args:
            window: the student's view.
            noise: as in `forward`.
        """
        if self.generative is None:
            return encode_kept(self.encoder, window, self._mask, noise)
        return self.generative.see(self.encoder, window, self._mask, noise)

    def query(self, seen: Seen) -> Tensor:
        """What is contrasted of a view: ``(batch, projected)``.

        The student has seen nothing of a record without one valid token: it has no direction to learn, and zeros.
        """
        assert self.projector is not None
        decoder = self.feature_decoder
        embedding = seen.embedding if decoder is None else decoder(*seen.encoded)
        query: Tensor = self.projector(embedding)
        if self.predictor is not None:
            query = self.predictor(query)
        return query * seen.kept_valid.any(dim=1, keepdim=True)

    @torch.no_grad()
    def count(
        self, signal: Tensor, valid_samples: Tensor, lead_mask: Tensor, noise: Tensor, row_weight: Tensor
    ) -> Tensor:
        """What the losses of the generative part count in these records, without the model: ``(losses,)``.

        The sum over all processes and micro-batches begins the census, and is what the losses are divided by. Empty
        without a generative part.

        Args:
            signal, valid_samples, lead_mask, noise, row_weight: as in `forward`.
        """
        if self.generative is None:
            return row_weight.new_zeros(0)
        window = Window(signal, valid_samples, lead_mask)
        hidden, valid = self._hidden(window, noise)
        return self.generative.counts(window, hidden, valid, row_weight)

    @torch.no_grad()
    def reconstruct(
        self, signal: Tensor, valid_samples: Tensor, lead_mask: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Fill hidden patches with what the decoder predicts; see `Reconstruction.fill`.

        Args:
            signal, valid_samples, lead_mask, noise: as in `forward`.

        Raises:
            ConfigError: if the module has no decoder.
            DataError: if the window is not the one the module was built for.
        """
        if not isinstance(self.generative, Reconstruction):
            raise ConfigError(
                "this model has no decoder (generative.weight = 0, or another generative.method than "
                "reconstruction); nothing can be reconstructed"
            )
        window = self._window(signal, valid_samples, lead_mask)
        return self.generative.fill(self.see(window, noise), window)

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

    def _window(self, signal: Tensor, valid_samples: Tensor, lead_mask: Tensor) -> Window:
        if signal.shape[-1] != self.window_samples:
            raise DataError(
                f"this model was built for windows of {self.window_samples} samples and was given "
                f"{signal.shape[-1]}; cut windows of that length, or build it for the new one"
            )
        return Window(signal, valid_samples, lead_mask)

    def _hidden(self, window: Window, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Which tokens are hidden, and which are valid."""
        valid = self.encoder.token_valid(window.valid_samples, window.lead_mask, self.num_tokens)
        return self._mask(noise, valid)[2], valid

    def _look(self, window: Window, noise: Tensor, row_weight: Tensor) -> dict[str, Tensor]:
        """See `look_ahead` of `forward`."""
        outputs: dict[str, Tensor] = {}
        if self._is_pair:
            outputs["query"] = self.query(self.see(window, noise))
        if self.generative is not None:
            hidden, _ = self._hidden(window, noise)
            outputs["look"] = self.generative.look(self.encoder, window, hidden, row_weight)
        return outputs


def combine(
    sums: Mapping[str, Tensor],
    census: Tensor,
    global_batch: int,
    config: ObjectiveConfig,
    progress: float = 1.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss that sums of a global batch, or of a share of it, stand for.

    The losses of all shares add up to the loss of the whole, and so do their gradients; an engine that
    averages gradients over W processes is given W times this loss.

    Args:
        sums: what `PretrainingModule` returned, for all or some rows.
        census: of the global batch; it begins with `PretrainingModule.count`, summed.
        global_batch: number of records in the global batch, without rows that only fill.
        config: the weights.
        progress: share of the run's steps that this one completes; what weights rise by.

    Returns:
        the loss, and its parts before weighting, detached: ``reconstruction``, ``contrastive``, ...
    """
    weighted: list[Tensor] = []
    parts: dict[str, Tensor] = {}
    if config.generative.weight > 0:
        # Where nothing is hidden from anybody, there is no loss, also none that counts something else.
        is_there = census[0] > 0
        factors = config.generative.factors
        for (name, factor), count in zip(factors.items(), census[: len(factors)], strict=True):
            loss = sums[f"{name}_sum"] / count.clamp(min=1) * is_there
            weighted.append(_ramped(config.generative, progress) * factor * loss)
            parts[name] = loss.detach()
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
