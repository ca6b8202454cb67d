"""The form in which the Telehealth Network of Minas Gerais publishes ECGs: CODE-15% and SaMi-Trop."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ecgdist.errors import RecordRefused
from ecgdist.record import NUM_LEADS, STANDARD_LEADS, Recording
from ecgdist.sources.base import Listing
from ecgdist.sources.hdf5_file import Hdf5Array, Hdf5File, refused

PADDING_STRIPPED = "padding_stripped"
"""Flag of a recording from whose ends zeros were taken that its publisher had put there."""

_RATE_HZ = 400.0
_UV_PER_MV = 1000.0


def telehealth_array(file: Hdf5File) -> Hdf5Array:
    """``tracings``: (exams, samples, 12) floats in millivolt, standard lead order.

    Raises:
        RecordRefused: ``unreadable_signal`` if the file has no such array.
        StorageError: if the storage itself fails.
    """
    array = file.array("tracings", (3,), "f")
    if array.shape[2] != NUM_LEADS:
        raise refused(f"tracings has shape {array.shape}; published is (exams, 4096, 12)")
    return array


def telehealth_recording(source: str, listing: Listing, values: npt.NDArray[Any]) -> Recording:
    """The record whose ``(samples, 12)`` values may lie between zeros.

    Raises:
        RecordRefused: ``all_zero`` if there is nothing else.
    """
    kept = without_padding(values)
    return listing.recording(
        source,
        np.ascontiguousarray(kept.T, dtype=np.float64) * _UV_PER_MV,
        _RATE_HZ,
        STANDARD_LEADS,
        (PADDING_STRIPPED,) if len(kept) < len(values) else (),
    )


def without_padding(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """``(samples, leads)`` without the samples at both ends where every lead is exactly zero.

    Raises:
        RecordRefused: ``all_zero`` if nothing is left.
    """
    found = (values != 0).reshape(-1)  # sample by sample; `argmax` ends at the first
    if not found.any():
        raise RecordRefused("all_zero", "every sample of every lead is zero")
    num_leads = values.shape[1]
    first, last = int(found.argmax()), len(found) - 1 - int(found[::-1].argmax())
    return values[first // num_leads : last // num_leads + 1]
