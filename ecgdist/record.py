"""One ECG recording: lead names, units, and the type that sources hand over."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import Literal

import numpy as np
import numpy.typing as npt

from ecgdist.errors import RecordRefused

STANDARD_LEADS: tuple[str, ...] = (
    "I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6",
)  # fmt: skip
"""The twelve leads in the order that every corpus and model uses."""

NUM_LEADS = len(STANDARD_LEADS)

# MLII is lead II taken from the torso (Mason-Likar); the only 2-lead alias that public data sets need.
_ALIASES = {name.lower(): name for name in STANDARD_LEADS} | {"mlii": "II"}

_UNIT_IN_UV = {"v": 1e6, "mv": 1e3, "uv": 1.0, "µv": 1.0, "μv": 1.0, "nv": 1e-3}

Sex = Literal["male", "female"]

MOST_YEARS = 300.0
"""Beyond it a number is no age. Data sets write 300 for an age above 89."""


@dataclass(frozen=True)
class Recording:
    """One ECG as its source published it, in microvolt.

    Attributes:
        record_id: identifier, unique within the source.
        source: kind of the source, e.g. ``"ptbxl"``.
        signal_uv: ``(leads, samples)`` float array in microvolt; NaN where the source has no value.
        rate_hz: sampling rate.
        leads: the name of each row of `signal_uv`, as published.
        patient_id: the source's id of the patient, or None if it publishes none. Never written to a corpus.
        age: years, or None.
        sex: ``"male"``, ``"female"`` or None.
        labels: prefixed codes, e.g. ``("scp:NORM", "scp:SR")``, sorted.
        split: the official split or fold that the source assigns, e.g. ``"fold3"``, or None.
        flags: slugs of what reading had to do to it, e.g. ``"limb_leads_derived"``; they join the quality flags.
        day: number of the day it was recorded on (`day_of`), or None. Never written to a corpus as it is.
    """

    record_id: str
    source: str
    signal_uv: npt.NDArray[np.floating]
    rate_hz: float
    leads: tuple[str, ...]
    patient_id: str | None = None
    age: float | None = None
    sex: Sex | None = None
    labels: tuple[str, ...] = field(default=())
    split: str | None = None
    flags: tuple[str, ...] = field(default=())
    day: int | None = None


def day_of(text: str | None) -> int | None:
    """The day of a date and time such as ``"1984-11-09 09:17:34"``, counted from 1 January of the year 1; or None."""
    try:
        return date.fromisoformat((text or "").strip()[:10]).toordinal()
    except ValueError:
        return None


def canonical_lead(name: str) -> str | None:
    """The standard name of a lead (``"avr"`` -> ``"aVR"``), or None if it is not one of the twelve."""
    return _ALIASES.get(name.strip().lower())


def microvolts_per_unit(unit: str) -> float:
    """How many microvolts one `unit` is.

    Raises:
        RecordRefused: reason ``unknown_unit`` for anything that is not a multiple of the volt.
    """
    try:
        return _UNIT_IN_UV[unit.strip().lower()]
    except KeyError:
        known = "V, mV, uV, nV"
        raise RecordRefused("unknown_unit", f"unit {unit!r} is not a voltage (accepted: {known})") from None


def arrange_leads(
    signal: npt.NDArray[np.floating], leads: tuple[str, ...], ignore: frozenset[str] = frozenset()
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.bool_]]:
    """Put the rows of a signal in standard order, by name.

    Args:
        signal: ``(leads, samples)``.
        leads: the name of each row.
        ignore: lower-case names of channels to leave out knowingly (Frank leads, respiration).

    Returns:
        ``(12, samples)`` with zeros for a missing lead, and a ``(12,)`` mask, True where a lead is present.

    Raises:
        RecordRefused: ``unknown_lead`` for a name that is neither a lead nor ignored, ``duplicate_lead`` for
            one that occurs twice, ``no_leads`` if nothing is left.
    """
    if len(leads) != signal.shape[0]:
        raise RecordRefused("lead_count", f"{len(leads)} lead names for {signal.shape[0]} rows of signal")
    arranged = np.zeros((NUM_LEADS, signal.shape[1]), dtype=signal.dtype)
    present = np.zeros(NUM_LEADS, dtype=np.bool_)
    for row, name in enumerate(leads):
        if name.strip().lower() in ignore:
            continue
        lead = canonical_lead(name)
        if lead is None:
            raise RecordRefused(
                "unknown_lead",
                f"lead {name!r} is not one of {', '.join(STANDARD_LEADS)}; to drop it, use pack.ignore_leads "
                "(or --ignore-leads, where a command has it)",
            )
        index = STANDARD_LEADS.index(lead)
        if present[index]:
            raise RecordRefused("duplicate_lead", f"lead {lead} occurs twice in {', '.join(leads)}")
        arranged[index] = signal[row]
        present[index] = True
    if not present.any():
        raise RecordRefused("no_leads", f"none of the channels {', '.join(leads)} is a standard lead")
    return arranged, present


def derive_limb_leads(
    signal: npt.NDArray[np.floating], leads: tuple[str, ...]
) -> tuple[npt.NDArray[np.floating], tuple[str, ...]]:
    """Add the four limb leads that follow from I and II.

    Einthoven's law gives III = II - I; Goldberger's leads are aVR = -(I + II) / 2, aVL = I - II / 2 and
    aVF = II - I / 2 (Malmivuo and Plonsey, Bioelectromagnetism, 1995, chapter 15).

    Args:
        signal: ``(leads, samples)``.
        leads: the name of each row; I and II among them, the other four not.

    Returns:
        ``(leads + 4, samples)`` and its lead names.
    """
    one, two = signal[leads.index("I")], signal[leads.index("II")]
    derived = np.stack([two - one, -(one + two) / 2, one - two / 2, two - one / 2])
    return np.concatenate([signal, derived]), (*leads, "III", "aVR", "aVL", "aVF")


def mask_to_bits(present: npt.NDArray[np.bool_]) -> int:
    """A ``(12,)`` lead mask as an integer: bit i is set where lead i is present."""
    return int(sum(1 << i for i, on in enumerate(present) if on))


def bits_to_mask(bits: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """The inverse of `mask_to_bits`, for one integer or an array of them: ``(...)`` -> ``(..., 12)``."""
    mask: npt.NDArray[np.bool_] = (np.asarray(bits)[..., None] >> np.arange(NUM_LEADS)) & 1 != 0
    return mask
