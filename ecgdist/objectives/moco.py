"""MoCo v3: contrast with a momentum teacher's embeddings of the global batch (Chen, Xie & He 2021)."""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from ecgdist.models.patches import at_least_float32
from ecgdist.objectives.method import TeacherContrast


class MocoV3(TeacherContrast):
    """InfoNCE of the student's queries and the teacher's keys; see `info_nce`."""

    default_temperature: ClassVar[float | None] = 0.2

    def __init__(self, temperature: float) -> None:
        self._temperature = temperature

    def losses(
        self, queries: Tensor, keys: Tensor, positive: Tensor, query_patient: Tensor, key_patient: Tensor
    ) -> Tensor:
        """See `TeacherContrast.losses`."""
        return info_nce(queries, keys, positive, query_patient, key_patient, self._temperature)


def info_nce(
    queries: Tensor,
    keys: Tensor,
    positive: Tensor,
    query_patient: Tensor,
    key_patient: Tensor,
    temperature: float,
) -> Tensor:
    """InfoNCE (van den Oord et al. 2018, eq. 4), times 2 T as in MoCo v3 (Chen, Xie & He 2021).

    With cosine similarities s and temperature T, row i gives

        -2 T log( exp(s_i+ / T) / sum_k exp(s_ik / T) )

    Where we differ: k runs over the positive and the keys of *other patients*; another record of the same
    patient is no negative.

    Args:
        queries, keys, positive, query_patient, key_patient: as in `TeacherContrast.losses`.
        temperature: T.

    Returns:
        ``(rows,)`` losses in float32 (float64 for float64 queries).
    """
    normalised_queries = F.normalize(at_least_float32(queries), dim=1)
    normalised_keys = F.normalize(at_least_float32(keys), dim=1)
    scores = normalised_queries @ normalised_keys.T / temperature
    own = F.one_hot(positive, len(keys)).bool()
    same_patient = query_patient[:, None] == key_patient[None, :]
    allowed = scores.masked_fill(same_patient & ~own, -math.inf)
    own_score = scores.gather(1, positive[:, None]).squeeze(1)
    return 2 * temperature * (allowed.logsumexp(dim=1) - own_score)
