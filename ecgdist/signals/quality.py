"""What can be wrong with a 12-lead signal: measures of it, and flags to keep beside it.

Signals are ``(12, samples)`` microvolt in standard lead order, with zeros in the rows of missing leads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ecgdist.record import STANDARD_LEADS
from ecgdist.signals.limbs import NUM_LIMB_LEADS, explain_limb_leads, limb_residual_uv

EXTREME_UV = 10_000.0
"""Beyond 10 mV a surface ECG is an artefact or wrongly scaled; MIMIC-IV-ECG is often cleaned at 10 mV."""

LIMB_TOLERANCE_UV = 25.0
"""Largest RMS by which limb leads may contradict each other: a quarter of a millimetre on ECG paper. A
recorder measures two of the six and derives the others, to its rounding (PTB-XL, Challenge 2021: 3 µV)."""

CLIPPED_MS = 20.0
"""Time at its extreme from which on a lead is called clipped, added over plateaus of `PLATEAU_MS` or more.

With `CLIPPED_FROM_UV` no lead of 496 published ECGs (PTB-XL, Challenge 2021) is flagged; of those ECGs with
their tallest lead clipped at 80 % of its height, 91 % are."""

PLATEAU_MS = 8.0
"""Shortest plateau that counts, and never fewer than 3 samples: a smooth peak may take the same value twice."""

CLIPPED_FROM_UV = 500.0
"""Plateaus nearer to the lead's median are no saturation: compressed files hold quiet stretches constant."""

OPPOSITE = -0.5
"""Correlation of leads I and V6 below which, with aVR going along with V6, the arm electrodes were probably
exchanged. Of 491 published 12-lead ECGs none is flagged; of the same with arms exchanged, 334 (68 %) are."""

Signal = npt.NDArray[np.floating[Any]] | npt.NDArray[np.integer[Any]]
Mask = npt.NDArray[np.bool_]

_I, _AVR, _V6 = (STANDARD_LEADS.index(lead) for lead in ("I", "aVR", "V6"))


@dataclass(frozen=True)
class Measures:
    """Numbers about one segment, kept in the index.

    Attributes:
        nan_share: share of the samples, of the leads that the source has, that had no value in it.
        flat_leads: ``(12,)``, True for a present lead that never changes.
        clipped_leads: ``(12,)``, True for a lead that stays at its extreme value, see `clipped_leads`.
        peak_uv: largest absolute value, in microvolt.
        limb_residual_uv: see `limbs.limb_residual_uv`; None unless all limb leads are there.
    """

    nan_share: float
    flat_leads: Mask
    clipped_leads: Mask
    peak_uv: float
    limb_residual_uv: float | None


def measure(signal_uv: Signal, lead_mask: Mask, clipped: Mask, nan_share: float = 0.0) -> Measures:
    """Measure a segment.

    Args:
        signal_uv: as the corpus stores it.
        lead_mask: ``(12,)``, True where a lead is present.
        clipped: `clipped_leads` of the same stretch at the rate of its source, since resampling bends plateaus.
        nan_share: see `Measures`.
    """
    high, low = signal_uv.max(axis=1), signal_uv.min(axis=1)
    limb = bool(lead_mask[:NUM_LIMB_LEADS].all())
    return Measures(
        nan_share=nan_share,
        flat_leads=(high == low) & lead_mask,
        clipped_leads=clipped,
        # Not abs(): the int16 value -32768 has none.
        peak_uv=max(float(high.max()), -float(low.min())),
        limb_residual_uv=limb_residual_uv(signal_uv) if limb else None,
    )


def flat_leads(signal_uv: Signal, lead_mask: Mask) -> Mask:
    """``(12,)``: True for a lead that is present and does not change at all."""
    flat: Mask = (signal_uv.max(axis=1) == signal_uv.min(axis=1)) & lead_mask
    return flat


def clipped_leads(signal_uv: Signal, rate_hz: float) -> Mask:
    """``(12,)``: True for a lead that stays exactly at its largest or smallest value, as a saturated amplifier does.

    A lead counts where it is at such a value for at least `CLIPPED_MS` in plateaus of at least `PLATEAU_MS`, and
    the value is `CLIPPED_FROM_UV` or more away from the lead's median. Plateaus at either end of the signal do
    not count (recorders repeat the last value, or pad), nor does a plateau at exactly 0 (a gap).

    Args:
        signal_uv: without gaps, at the rate of its source: resampling bends plateaus.
        rate_hz: that rate.
    """
    clipped = np.zeros(len(signal_uv), dtype=np.bool_)
    needed = CLIPPED_MS / 1000 * rate_hz
    for extremes in (signal_uv.max(axis=1, keepdims=True), signal_uv.min(axis=1, keepdims=True)):
        reached = signal_uv == extremes
        often = (reached.sum(axis=1, dtype=np.int32) >= needed) & (extremes[:, 0] != 0)
        for lead in np.flatnonzero(often):
            far = abs(float(extremes[lead, 0]) - float(np.median(signal_uv[lead]))) >= CLIPPED_FROM_UV
            clipped[lead] |= far and _plateau_samples(reached[lead], rate_hz) >= needed
    return clipped


def _plateau_samples(reached: Mask, rate_hz: float) -> int:
    """Samples in the runs of True that are long enough and touch neither end."""
    edges = np.flatnonzero(np.diff(reached.astype(np.int8), prepend=0, append=0))
    starts, stops = edges[::2], edges[1::2]
    lengths = stops - starts
    counted = (starts > 0) & (stops < len(reached)) & (lengths >= max(3, round(PLATEAU_MS / 1000 * rate_hz)))
    return int(lengths[counted].sum())


def quality_flags(signal_uv: Signal, lead_mask: Mask, measures: Measures) -> tuple[str, ...]:
    """Sorted slugs of what a user may want to filter by; empty for a clean signal.

    `corpus.glossary` says what each means.
    """
    flags = []
    if measures.nan_share:
        flags.append("nan_filled")
    if measures.flat_leads.any():
        flags.append("flat_leads")
    if measures.flat_leads[lead_mask].all():
        flags.append("all_flat")
    if measures.clipped_leads.any():
        flags.append("clipped_leads")
    if measures.peak_uv > EXTREME_UV:
        flags.append("extreme_amplitude")
    residual_uv = measures.limb_residual_uv
    if residual_uv is not None and residual_uv > LIMB_TOLERANCE_UV:
        flags.append("limb_leads_inconsistent")
        explained = explain_limb_leads(signal_uv, LIMB_TOLERANCE_UV)
        if explained is not None:
            flags.append(explained.flag)
    elif arms_look_exchanged(signal_uv, lead_mask):
        flags.append("arm_leads_reversed_suspected")
    return tuple(sorted(flags))


def arms_look_exchanged(signal_uv: Signal, lead_mask: Mask) -> bool:
    """Whether lead I runs against V6 and aVR along with it: in most hearts it is the other way round.

    With the electrodes of the arms exchanged, lead I is inverted and aVR and aVL change places, and Einthoven's
    law still holds. Dextrocardia and an extreme axis look alike, hence a suspicion only; see `OPPOSITE`.
    """
    chosen = [_I, _AVR, _V6]
    if not lead_mask[chosen].all():
        return False
    i, avr, v6 = signal_uv[chosen].astype(np.float32)
    i, avr, v6 = i - i.mean(), avr - avr.mean(), v6 - v6.mean()
    together = float(i @ v6)
    if together >= 0:
        return False
    return bool(together < OPPOSITE * np.sqrt(float(i @ i) * float(v6 @ v6)) and float(avr @ v6) > 0)
