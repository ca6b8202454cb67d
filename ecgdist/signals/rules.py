"""Which recordings packing refuses for their quality: rules that a user sets, each with its own reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ecgdist.config import Config
from ecgdist.errors import RecordRefused
from ecgdist.record import STANDARD_LEADS
from ecgdist.signals.limbs import NUM_LIMB_LEADS, limb_residual_uv
from ecgdist.signals.quality import Mask, Signal, clipped_leads, flat_leads

INT16_MAX = 32767

SETTINGS = {
    "nan": "pack.rules.max_nan_share",
    "bad_rate": "pack.rules.min_rate_hz",
    "flat_leads": "pack.rules.max_flat_leads",
    "clipped_leads": "pack.rules.max_clipped_leads",
    "limb_leads_inconsistent": "pack.rules.max_limb_residual_uv",
    "link_outside": "follow_links",
    "too_short": "pack.min_duration_s",
    "unknown_lead": "pack.ignore_leads",
}
"""Which setting can admit what is refused for a reason; reasons that are not here have none."""


class QualityRules(Config):
    """Rules over whole recordings; what they admit keeps its flags. All but the first look at filled signals."""

    max_nan_share: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Largest share of samples without a value (NaN or infinite), of all leads, in any segment. 0 refuses every
    recording with one; above, gaps are filled by straight lines (at an end, by the nearest value), a lead without
    any value becomes a missing one, and the segment has the flag nan_filled."""
    max_abs_uv: float = Field(default=INT16_MAX, gt=0, le=INT16_MAX)
    """A recording beyond this is refused; int16 holds 32767 µV."""
    max_flat_leads: int | None = Field(default=None, ge=0, le=11)
    """Most constant leads; null refuses only a recording with all its leads constant, as every value does."""
    max_clipped_leads: int | None = Field(default=None, ge=0, le=11)
    """Most leads that stay at their extreme value; null refuses none, they only have the flag clipped_leads."""
    max_limb_residual_uv: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Largest RMS by which the limb leads may contradict each other; null refuses none, the flag stays. 25 µV
    is what the flag limb_leads_inconsistent goes by."""
    min_rate_hz: float = Field(default=50.0, gt=0, allow_inf_nan=False)
    """A slower signal does not hold the QRS complex, which reaches 25 Hz and more; often the header means kHz."""

    def check_rate(self, rate_hz: float) -> None:
        """Refuse a sampling rate.

        Raises:
            RecordRefused: ``bad_rate``.
        """
        if not self.min_rate_hz <= rate_hz < np.inf:
            raise RecordRefused(
                "bad_rate",
                f"a sampling rate of {rate_hz:g} Hz is not {self.min_rate_hz:g} Hz or more; check its unit",
            )

    def check_gaps(self, gaps: Mask, largest_share: float) -> None:
        """Refuse a recording with too many samples without a value.

        Args:
            gaps: ``(12, samples)``, True where there is no value.
            largest_share: of the segment that has most.

        Raises:
            RecordRefused: ``nan``, naming leads and counts.
        """
        if largest_share > self.max_nan_share:
            counts = ", ".join(
                f"{name} ({count} of {gaps.shape[1]})"
                for name, count in zip(STANDARD_LEADS, gaps.sum(axis=1).tolist(), strict=True)
                if count
            )
            raise RecordRefused(
                "nan",
                f"samples without a value (NaN or infinite) in lead {counts}: a share of {largest_share:.4g}, "
                f"over rules.max_nan_share = {self.max_nan_share:g}",
            )

    def check_signal(self, signal_uv: Signal, lead_mask: Mask, rate_hz: float) -> None:
        """Refuse a recording for what its signal is like.

        Args:
            signal_uv: ``(12, samples)``, finite.
            lead_mask: ``(12,)``, True where a lead is present.
            rate_hz: sampling rate.

        Raises:
            RecordRefused: ``amplitude``, ``all_flat``, ``flat_leads``, ``clipped_leads`` or
                ``limb_leads_inconsistent``.
        """
        self.check_amplitude(signal_uv)
        flat = flat_leads(signal_uv, lead_mask)
        if flat[lead_mask].all():
            raise RecordRefused(
                "all_flat", "every lead is constant; the electrodes were off or the file is empty"
            )
        _refuse_leads("flat_leads", "constant leads", flat, self.max_flat_leads)
        if self.max_clipped_leads is not None:
            clipped = clipped_leads(signal_uv, rate_hz)
            _refuse_leads("clipped_leads", "clipped leads", clipped, self.max_clipped_leads)
        if self.max_limb_residual_uv is not None and lead_mask[:NUM_LIMB_LEADS].all():
            residual_uv = limb_residual_uv(signal_uv)
            if residual_uv > self.max_limb_residual_uv:
                raise RecordRefused(
                    "limb_leads_inconsistent",
                    f"the limb leads contradict each other by {residual_uv:.4g} µV (RMS), over "
                    f"rules.max_limb_residual_uv = {self.max_limb_residual_uv:g}: check the names of the leads",
                )

    def check_amplitude(self, signal_uv: Signal) -> None:
        """Refuse a signal that goes beyond plus or minus `max_abs_uv`.

        Raises:
            RecordRefused: ``amplitude``, naming the lead and the value.
        """
        peaks = np.maximum(signal_uv.max(axis=1), -signal_uv.min(axis=1))
        worst = int(peaks.argmax())
        if peaks[worst] > self.max_abs_uv:
            raise RecordRefused(
                "amplitude",
                f"lead {STANDARD_LEADS[worst]} reaches {peaks[worst]:.6g} µV, over rules.max_abs_uv = "
                f"{self.max_abs_uv:g}: check the unit and the gain in the header",
            )


def find_gaps(signal_uv: npt.NDArray[np.floating[Any]]) -> Mask | None:
    """``(12, samples)``, True where a sample has no value (NaN or infinite); None if all have one."""
    # A sum is finite if all its terms are, but for overflow, which the slow way then sees through.
    with np.errstate(over="ignore", invalid="ignore"):
        total = signal_uv.sum(dtype=np.float64)
    if np.isfinite(total):
        return None
    gaps = ~np.isfinite(signal_uv)
    return gaps if gaps.any() else None


def fill_gaps(
    signal_uv: npt.NDArray[np.floating[Any]], gaps: Mask, lead_mask: Mask
) -> tuple[npt.NDArray[np.floating[Any]], Mask]:
    """A copy with gaps filled by straight lines, or the nearest value at an end; and the mask of leads left.

    A lead without any value becomes a missing lead: zeros, and off in the mask.
    """
    filled = signal_uv.copy()
    places = np.arange(signal_uv.shape[1])
    for lead in np.flatnonzero(gaps.any(axis=1)):
        gap = gaps[lead]
        filled[lead, gap] = 0 if gap.all() else np.interp(places[gap], places[~gap], signal_uv[lead, ~gap])
    return filled, lead_mask & ~gaps.all(axis=1)


def _refuse_leads(reason: str, what: str, found: Mask, most: int | None) -> None:
    """Refuse a recording with more than `most` leads found wanting."""
    if most is not None and found.sum() > most:
        names = ", ".join(name for name, on in zip(STANDARD_LEADS, found, strict=True) if on)
        raise RecordRefused(reason, f"{what}: {names} ({int(found.sum())}), over rules.max_{reason} = {most}")
