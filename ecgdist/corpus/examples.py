"""A few refused recordings, kept so that a report can show why: their signals, and nothing else of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ecgdist.record import NUM_LEADS, STANDARD_LEADS, Recording, bits_to_mask, canonical_lead, mask_to_bits

EXAMPLES = pa.schema(
    [
        ("source", pa.string()),
        ("record_id", pa.string()),
        ("reason", pa.string()),
        ("lead_mask", pa.int16()),
        ("rate_hz", pa.float32()),
        ("signal", pa.binary()),
    ]
)
"""The signal is little-endian int16 microvolt, ``12 x samples`` in standard lead order."""

PER_REASON = 3
"""Recordings kept of each reason of refusal: the first in the order of the listing."""

_LONGEST_S = 10.0
_SLOWEST_HZ = 20.0
_NO_VALUE = -32768
_MOST_UV = 32767
MOST_MV = _MOST_UV / 1000
"""Amplitudes of an example are cut off here."""


@dataclass(frozen=True)
class RefusedExample:
    """The beginning of a refused recording.

    Attributes:
        source: name of the source in the corpus.
        record_id: identifier within the source, as the corpus shows it.
        reason: why it was refused.
        signal_mv: ``(leads, samples)``, NaN where there is no value; cut off at 32.767 mV.
        rate_hz: sampling rate of the source.
        leads: the name of each row.
    """

    source: str
    record_id: str
    reason: str
    signal_mv: npt.NDArray[np.float64]
    rate_hz: float
    leads: tuple[str, ...]


class Examples:
    """Collects the first recordings of each reason."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.by_reason: Counter[str] = Counter()

    def add(self, source: str, record_id: str, reason: str, recording: Recording) -> None:
        """Keep the beginning of a refused recording, if it can be drawn and is one of the first of its reason."""
        if self.by_reason[reason] >= PER_REASON:
            return
        arranged = _arranged(recording)
        if arranged is None:
            return
        signal, lead_mask = arranged
        self.by_reason[reason] += 1
        self.rows.append(
            {
                "source": source,
                "record_id": record_id,
                "reason": reason,
                "lead_mask": mask_to_bits(lead_mask),
                "rate_hz": recording.rate_hz,
                "signal": signal.tobytes(),
            }
        )


def first_of_each_reason(table: pa.Table) -> pa.Table:
    """The first `PER_REASON` rows of each reason, in their order."""
    seen: Counter[str] = Counter()
    keep = []
    for row, reason in enumerate(table["reason"].to_pylist()):
        seen[reason] += 1
        if seen[reason] <= PER_REASON:
            keep.append(row)
    return table.take(keep)


def refused_examples(table: pa.Table) -> list[RefusedExample]:
    """The rows of an examples table as recordings."""
    examples = []
    for row in table.to_pylist():
        mask = bits_to_mask(row["lead_mask"])
        signal = np.frombuffer(row["signal"], dtype="<i2").reshape(NUM_LEADS, -1)[mask]
        examples.append(
            RefusedExample(
                source=row["source"],
                record_id=row["record_id"],
                reason=row["reason"],
                signal_mv=np.where(signal == _NO_VALUE, np.nan, signal / 1000),
                rate_hz=row["rate_hz"],
                leads=tuple(lead for lead, on in zip(STANDARD_LEADS, mask, strict=True) if on),
            )
        )
    return examples


def _arranged(recording: Recording) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.bool_]] | None:
    """The beginning as ``(12, samples)`` int16 and its lead mask; None if nothing of it can be drawn.

    Whatever is wrong with the recording, this must not fail: unknown leads are left out, of two rows of one name
    the first is taken.
    """
    signal_uv, rate_hz = recording.signal_uv, recording.rate_hz
    if signal_uv.ndim != 2 or not _SLOWEST_HZ <= rate_hz < np.inf:
        return None
    begun = signal_uv[:, : round(_LONGEST_S * rate_hz)]
    lead_mask = np.zeros(NUM_LEADS, dtype=np.bool_)
    whole = np.zeros((NUM_LEADS, begun.shape[1]), dtype="<i2")
    # Not strict: too few or too many names may be why it was refused.
    for name, row in zip(recording.leads, begun, strict=False):
        lead = canonical_lead(name)
        if lead is None or lead_mask[STANDARD_LEADS.index(lead)]:
            continue
        place = STANDARD_LEADS.index(lead)
        lead_mask[place] = True
        whole[place] = np.where(np.isfinite(row), np.rint(row.clip(-_MOST_UV, _MOST_UV)), _NO_VALUE)
    return (whole, lead_mask) if lead_mask.any() and begun.shape[1] else None
