"""Differences of all pairs of a comparison, and which of them hold together."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from ecgdist.downstream.bootstrap import P_METHOD, holm
from ecgdist.downstream.metrics import Bootstrap, Macro, paired_difference

LEVEL = 0.05
"""Of significance, for all pairs of a comparison together."""
PAIR_COLUMNS = ("", "difference", "p", "p (Holm)", " ")


class Difference(BaseModel):
    """Macro means of one arm minus those of another, paired by resample.

    Attributes:
        arm: the one.
        other: the other.
        macro: the differences, whose intervals know nothing of other pairs.
        p_value: two-sided, of "there is no difference of macro AUROC".
        p_holm: the same, corrected for the number of pairs.
    """

    model_config = ConfigDict(frozen=True)

    arm: str
    other: str
    macro: Macro
    p_value: float
    p_holm: float

    @property
    def is_clear(self) -> bool:
        """Whether the AUROC differs, with 5 % for all pairs together."""
        return self.p_holm < LEVEL

    def cells(self) -> tuple[str, ...]:
        """Which arms, the difference of their macro AUROC, its p-values, and what they mean."""
        note = "they differ" if self.is_clear else "not told apart"
        figures = (str(self.macro.auroc), f"{self.p_value:.3f}", f"{self.p_holm:.3f}")
        return (f"{self.arm} - {self.other}", *figures, note)


def p_note(pairs: int) -> str:
    """What the p-values of so many pairs are."""
    return (
        f"p: {P_METHOD}; Holm: corrected for the {pairs} pairs, so that below {LEVEL:g} the chance of "
        f"one wrong difference among all of them is below {LEVEL:.0%}"
    )


def all_differences(
    arms: Sequence[str], means: Mapping[str, Bootstrap], fitted: Sequence[str], among: Sequence[str]
) -> tuple[Difference, ...]:
    """Of all pairs of arms, with p-values that are corrected for their number."""
    pairs = list(itertools.combinations(arms, 2))
    found = [paired_difference(means[arm], means[other], fitted, among) for other, arm in pairs]
    corrected = holm([p_value for _, p_value in found])
    return tuple(
        Difference(arm=arm, other=other, macro=differences, p_value=p_value, p_holm=p_holm)
        for (other, arm), (differences, p_value), p_holm in zip(pairs, found, corrected, strict=True)
    )


def too_few_resamples(pairs: int, resamples: int) -> list[str]:
    """No p-value is below 2 / (resamples + 1), which the correction multiplies by the number of pairs."""
    if pairs * 2 / (resamples + 1) < LEVEL:
        return []
    needed = int(pairs * 2 / LEVEL)
    return [
        f"{resamples} resamples cannot tell any of {pairs} pairs apart; set resamples to {needed} or more"
    ]
