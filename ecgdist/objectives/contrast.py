"""Contrast of a record's embedding with the teacher's embeddings of the global batch."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from ecgdist.config import Config
from ecgdist.models.patches import at_least_float32


class ContrastiveConfig(Config):
    """The contrastive part: momentum teacher and InfoNCE."""

    weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Factor of the contrastive loss; 0 leaves projector, predictor and teacher out."""

    temperature: float = Field(default=0.2, gt=0, allow_inf_nan=False)
    """Divides cosine similarities (MoCo v3: 0.2)."""

    momentum_start: float = Field(default=0.996, ge=0, le=1)
    """Share of itself that the teacher keeps per step, at the first step (BYOL, CMAE: 0.996)."""

    momentum_end: float = Field(default=1.0, ge=0, le=1)
    """The same at the last step; between them it follows a half cosine."""

    student_view: Literal["auto", "masked", "full"] = "auto"
    """What the student sees: auto is masked if it also reconstructs, full if not. There is one student pass,
    so a student that reconstructs cannot have the full view."""

    @model_validator(mode="after")
    def _momentum_does_not_fall(self) -> ContrastiveConfig:
        if self.momentum_end < self.momentum_start:
            raise ValueError(
                f"momentum_end {self.momentum_end} is below momentum_start {self.momentum_start}; "
                "the teacher must slow down, not speed up"
            )
        return self


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
        queries: ``(rows, dim)``; normalised here.
        keys: ``(keys, dim)`` of the whole global batch; normalised here.
        positive: ``(rows,)`` int64, the number of each query's own key.
        query_patient: ``(rows,)`` int64; a record without a known patient has a number of its own.
        key_patient: ``(keys,)`` int64.
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
