"""What is wrong with a 12-lead signal: reasons to refuse it, and flags to keep beside it.

Signals are ``(12, samples)`` microvolt in standard lead order, with zeros in the rows of missing leads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ecgdist.errors import RecordRefused
from ecgdist.record import NUM_LEADS, STANDARD_LEADS

EXTREME_UV = 10_000.0
"""Beyond 10 mV a surface ECG is an artefact or wrongly scaled; MIMIC-IV-ECG is often cleaned at 10 mV."""

LIMB_TOLERANCE_UV = 25.0
"""Largest RMS by which limb leads may contradict each other: a quarter of a millimetre on ECG paper. A
recorder measures two of the six and derives the others, to its rounding (PTB-XL, Challenge 2021: 3 µV)."""

NUM_LIMB_LEADS = 6

Signal = npt.NDArray[np.floating[Any]] | npt.NDArray[np.integer[Any]]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Measures:
    """Numbers about one segment, kept in the index.

    Attributes:
        nan_share: share of the samples of present leads that had no value in the source (0 if none was filled).
        flat_leads: ``(12,)``, True for a present lead that never changes.
        clipped_leads: ``(12,)``, True for a lead that stays at its extreme value, as a saturated amplifier does.
        peak_uv: largest absolute value, in microvolt.
        limb_residual_uv: see `limb_residual_uv`; None unless all limb leads are there.
    """

    nan_share: float
    flat_leads: Mask
    clipped_leads: Mask
    peak_uv: float
    limb_residual_uv: float | None


def measure(signal_uv: Signal, lead_mask: Mask, nan_share: float = 0.0) -> Measures:
    """Measure a segment."""
    limb = bool(lead_mask[:NUM_LIMB_LEADS].all())
    return Measures(
        nan_share=nan_share,
        flat_leads=flat_leads(signal_uv, lead_mask),
        clipped_leads=np.zeros(NUM_LEADS, dtype=np.bool_),
        peak_uv=float(max(signal_uv.max(), -float(signal_uv.min()))),
        limb_residual_uv=limb_residual_uv(signal_uv) if limb else None,
    )


def flat_leads(signal_uv: Signal, lead_mask: Mask) -> Mask:
    """``(12,)``: True for a lead that is present and does not change at all."""
    flat: Mask = (signal_uv == signal_uv[:, :1]).all(axis=1) & lead_mask
    return flat


def limb_residual_uv(signal_uv: Signal) -> float:
    """How far the six limb leads contradict each other: the largest RMS, in microvolt, of what should be 0.

    Einthoven's law III = II - I (1912), and Goldberger's augmented leads (1942): aVR = -(I + II) / 2,
    aVL = (I - III) / 2, aVF = (II + III) / 2.
    """
    i, ii, iii, avr, avl, avf = signal_uv[:NUM_LIMB_LEADS].astype(np.float64)
    residuals = np.stack([iii - (ii - i), avr + (i + ii) / 2, avl - (i - iii) / 2, avf - (ii + iii) / 2])
    return float(np.sqrt((residuals**2).mean(axis=1)).max())


def quality_flags(signal_uv: Signal, lead_mask: Mask) -> tuple[str, ...]:
    """Sorted slugs of what a user may want to filter by; empty for a clean signal.

    * ``all_flat``: nothing changes in any lead.
    * ``extreme_amplitude``: a sample is beyond `EXTREME_UV`.
    * ``flat_leads``: at least one lead is constant.
    * ``limb_leads_inconsistent``: all limb leads are there and do not fit together (`limb_residual_uv`), as
      when names were exchanged in the file or one lead has a wrong gain.
    """
    flags = []
    flat = flat_leads(signal_uv, lead_mask)
    if flat.any():
        flags.append("flat_leads")
    if flat[lead_mask].all():
        flags.append("all_flat")
    # Not abs(): the int16 value -32768 has none.
    if signal_uv.max() > EXTREME_UV or signal_uv.min() < -EXTREME_UV:
        flags.append("extreme_amplitude")
    if lead_mask[:NUM_LIMB_LEADS].all() and limb_residual_uv(signal_uv) > LIMB_TOLERANCE_UV:
        flags.append("limb_leads_inconsistent")
    return tuple(sorted(flags))


def refuse_unusable(signal_uv: Signal, lead_mask: Mask, max_abs_uv: float) -> None:
    """Refuse a recording that can teach a model nothing, or that does not fit into int16.

    Raises:
        RecordRefused: ``nan`` for a sample without a value, ``amplitude`` for one beyond `max_abs_uv`,
            ``all_flat`` if no lead ever changes.
    """
    missing = (~np.isfinite(signal_uv)).sum(axis=1)
    if missing.any():
        counts = ", ".join(
            f"{name} ({count} of {signal_uv.shape[1]})"
            for name, count in zip(STANDARD_LEADS, missing, strict=True)
            if count
        )
        raise RecordRefused("nan", f"samples without a value (NaN or infinite) in lead {counts}")
    refuse_amplitude(signal_uv, max_abs_uv)
    if flat_leads(signal_uv, lead_mask)[lead_mask].all():
        raise RecordRefused(
            "all_flat", "every lead is constant; the electrodes were off or the file is empty"
        )


def refuse_amplitude(signal_uv: Signal, max_abs_uv: float) -> None:
    """Refuse a signal that goes beyond plus or minus `max_abs_uv`.

    Raises:
        RecordRefused: ``amplitude``, naming the lead and the value.
    """
    peaks = np.abs(signal_uv).max(axis=1)
    worst = int(peaks.argmax())
    if peaks[worst] > max_abs_uv:
        raise RecordRefused(
            "amplitude",
            f"lead {STANDARD_LEADS[worst]} reaches {peaks[worst]:.6g} µV, over max_abs_uv = {max_abs_uv:g}: "
            "check the unit and the gain in the header",
        )
