"""The momentum teacher: a slow float32 copy of the student, outside the training engine."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ecgdist.errors import TrainingError
from ecgdist.models.heads import Projector
from ecgdist.models.interface import Encoder
from ecgdist.models.patches import at_least_float32


class MomentumTeacher(nn.Module):
    """Exponential moving average of a student (He et al. 2020, eq. 2).

    It is kept in float32 whatever the student's type: in bfloat16 an update of a few thousandths rounds to
    nothing. Build it before a training engine takes the student apart.
    """

    def __init__(
        self, encoder: Encoder, projector: Projector, compute_dtype: torch.dtype = torch.float32
    ) -> None:
        """Copy the student's parts.

        Args:
            compute_dtype: of matrix products; bfloat16 is many times as fast on a GPU.
        """
        super().__init__()
        self._compute_dtype = compute_dtype
        self.encoder = copy.deepcopy(encoder).float()
        self.projector = copy.deepcopy(projector).float()
        self.requires_grad_(False)
        self.eval()

    @torch.no_grad()
    def keys(self, signal: Tensor, valid_samples: Tensor, lead_mask: Tensor) -> Tensor:
        """Normalised keys, without gradient: ``(batch, 12, samples)`` -> ``(batch, projected)``.

        Args:
            signal: filtered and scaled.
            valid_samples: ``(batch,)`` int64; samples from here on are padding.
            lead_mask: ``(batch, 12)`` bool, True = present.
        """
        with self._precision(signal.device.type):
            projected = self.projector(self.encoder.embed(signal, valid_samples, lead_mask))
        return F.normalize(at_least_float32(projected), dim=1)

    def _precision(self, device_type: str) -> AbstractContextManager[object]:
        if self._compute_dtype == torch.float32:
            return nullcontext()
        return torch.autocast(device_type, self._compute_dtype)

    @torch.no_grad()
    def update(self, named_student: Iterable[tuple[str, Tensor]], momentum: float) -> None:
        """Move towards the student: t = m t + (1 - m) s, in float32.

        Args:
            named_student: the student's weights under the names they have here (``encoder...``,
                ``projector...``), whole.
            momentum: m.

        Raises:
            TrainingError: if a weight is missing, unknown or of another shape; nothing has been changed then.
        """
        own = dict(self.named_parameters())
        student = dict(named_student)
        _check_names_and_shapes(own, student)
        for name, weight in own.items():
            weight.lerp_(student[name].to(device=weight.device, dtype=weight.dtype), 1 - momentum)


def momentum_at(step: int, total_steps: int, start: float, end: float) -> float:
    """Momentum at `step` of `total_steps`: half a cosine from `start` to `end` (Grill et al. 2020, BYOL)."""
    progress = min(step / max(total_steps, 1), 1.0)
    return end - (end - start) * (math.cos(math.pi * progress) + 1) / 2


def _check_names_and_shapes(own: dict[str, nn.Parameter], student: dict[str, Tensor]) -> None:
    missing, unknown = sorted(own.keys() - student.keys()), sorted(student.keys() - own.keys())
    if missing or unknown:
        raise TrainingError(
            f"the student's weights do not match the teacher's: missing {missing[:3]}, "
            f"unknown {unknown[:3]}; give exactly those that PretrainingModule.student_parameters lists"
        )
    for name, weight in own.items():
        if weight.shape != student[name].shape:
            raise TrainingError(
                f"weight {name} has the shape {tuple(student[name].shape)}, the teacher's "
                f"{tuple(weight.shape)}; gather partitioned weights before updating the teacher"
            )
