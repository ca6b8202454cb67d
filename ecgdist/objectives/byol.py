"""BYOL: predict the momentum teacher's embedding of the other view, without negatives (Grill et al. 2020)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from ecgdist.models.patches import at_least_float32
from ecgdist.objectives.method import TeacherContrast


class Byol(TeacherContrast):
    """The squared distance of normalised vectors, 2 - 2 cos (Grill et al. 2020, eq. 2)."""

    default_temperature: ClassVar[float | None] = None

    def losses(
        self, queries: Tensor, keys: Tensor, positive: Tensor, query_patient: Tensor, key_patient: Tensor
    ) -> Tensor:
        """See `TeacherContrast.losses`; nobody but a query's own key counts."""
        own = at_least_float32(keys)[positive]
        return 2 - 2 * F.cosine_similarity(at_least_float32(queries), own, dim=1)
