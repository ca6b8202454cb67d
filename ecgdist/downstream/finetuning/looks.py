"""Looks at the validation split while a model is trained: which was the best, and when to end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Look(NamedTuple):
    """What the validation split said after a step."""

    step: int
    value: float


def looks_in(rows: Sequence[Mapping[str, Any]], metric: str, until: int) -> list[Look]:
    """What the validation split said, by the rows of a run's metrics up to a step."""
    return [Look(row["step"], row[metric]) for row in rows if metric in row and row["step"] <= until]


def best_look(looks: Sequence[Look], mode: str) -> Look:
    """The best one; of equals, the first."""
    return max(looks, key=lambda look: (look.value if mode == "max" else -look.value, -look.step))


def ends_early(looks: Sequence[Look], mode: str, patience: int | None) -> bool:
    """Whether the last `patience` looks were none better than one before them."""
    if patience is None or not looks:
        return False
    best = best_look(looks, mode)
    return sum(look.step > best.step for look in looks) >= patience
