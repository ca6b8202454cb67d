"""``records.csv``: how your own ECGs in `.npy` or HDF5 files say what they are.

One line per record, with the columns

* ``record_id``: letters, digits and ``_ . : -``; unique;
* ``file``: path of the array file, relative to the folder of the table;
* ``row``: place of the record in an array of several, from 0; left out or empty where the file is one record;
* ``dataset``: path of the dataset in an HDF5 file (HDF5 only);
* ``rate_hz``, ``unit`` (V, mV, uV, nV) and ``leads``, names separated by spaces or ``;`` in the order of the array;
* if known: ``patient_id``, ``age``, ``sex``, ``split`` and ``labels``. Labels are separated by ``;``, or by spaces if
  each has its prefix (``scp:NORM``); one without gets ``own:``. Sentences are no labels: such a row is refused.

Arrays are (leads, samples) or (samples, leads), with one more dimension in front where a file holds several records.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ecgdist.errors import RecordRefused
from ecgdist.record import Recording, microvolts_per_unit
from ecgdist.sources.base import Listing
from ecgdist.sources.cells import age_of, whole_number
from ecgdist.sources.hdf5_rows import required_table
from ecgdist.sources.tables import Row, iter_table
from ecgdist.sources.wfdb_header import parse_sex
from ecgdist.storage import Location

_TABLE = "records.csv"
_COLUMNS = ("record_id", "file", "rate_hz", "unit", "leads")

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")
_LABEL = re.compile(r"[a-z0-9]{1,16}:[A-Za-z0-9_.+()/-]{1,40}")
_SPLIT = re.compile(r"[a-z0-9][a-z0-9_.-]{0,23}")
_DATASET = re.compile(r"/?[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")


@dataclass(frozen=True, slots=True)
class OwnListing(Listing):
    """A listing that knows what its array holds.

    Attributes:
        rate_hz: sampling rate.
        unit: of the values.
        leads: names in the order of the array.
        array: path of the dataset in an HDF5 file.
    """

    rate_hz: float = 0.0
    unit: str = ""
    leads: tuple[str, ...] = ()
    array: str = ""


def list_own(root: Location, more_columns: tuple[str, ...] = ()) -> list[Listing]:
    """The records of the table of a folder, in the order of files and rows.

    Raises:
        DataError: if there is no such table.
        StorageError: if it cannot be read.
    """
    table = required_table(root, _TABLE, "the files that it names")
    listings: dict[str, Listing] = {}
    for number, row in enumerate(iter_table(table, (*_COLUMNS, *more_columns)), start=1):
        listing = _listing(row, number)
        if listing.record_id in listings:
            refusal = ("duplicate_id", f"an earlier row of {_TABLE} has the same record_id")
            listing = Listing(f"row {number} of {_TABLE}", "", refusal=refusal)
        listings[listing.record_id] = listing
    return sorted(listings.values(), key=lambda each: (each.key, each.row or 0))


def own(listing: Listing) -> OwnListing:
    """The listing, which must be one of `list_own`.

    Raises:
        RecordRefused: ``unreadable_metadata`` if it is not.
    """
    if not isinstance(listing, OwnListing):
        raise RecordRefused("unreadable_metadata", f"the listing does not come from {_TABLE}")
    return listing


def own_recording(source: str, listing: Listing, values: npt.NDArray[Any]) -> Recording:
    """The record whose array, of either orientation, is `values`.

    Raises:
        RecordRefused: ``lead_count`` if the array has another number of leads, ``unknown_unit``.
    """
    listing = own(listing)
    if len(listing.leads) not in values.shape:
        detail = f"the array has shape {values.shape}, and {len(listing.leads)} leads are named"
        raise RecordRefused("lead_count", detail)
    by_lead = values if values.shape[0] == len(listing.leads) else values.T
    return listing.recording(
        source,
        np.ascontiguousarray(by_lead, dtype=np.float64) * microvolts_per_unit(listing.unit),
        listing.rate_hz,
        listing.leads,
    )


def _listing(row: Row, number: int) -> Listing:
    """The listing of one row; whatever is wrong with the row is its refusal."""
    record_id = row["record_id"] or ""
    known = record_id if _ID.fullmatch(record_id) else f"row {number} of {_TABLE}"
    try:
        if known != record_id:
            raise ValueError("record_id is not a word of letters, digits and _ . : -")
        split, dataset = row.get("split") or None, row.get("dataset") or ""
        if split and not _SPLIT.fullmatch(split):
            raise ValueError("split is not a short name such as fold3")
        if dataset and not _DATASET.fullmatch(dataset):
            raise ValueError("dataset is not a path of names")
        return OwnListing(
            record_id,
            _inside(row["file"]),
            patient_id=row.get("patient_id") or None,
            age=age_of(row.get("age")),
            sex=parse_sex(row.get("sex")),
            labels=_labels(row.get("labels")),
            split=split,
            row=whole_number(row["row"]) if row.get("row") else None,
            rate_hz=_rate(row["rate_hz"]),
            unit=row["unit"] or "",
            leads=_leads(row["leads"]),
            array=dataset,
        )
    except RecordRefused as refusal:
        return Listing(known, "", refusal=(refusal.reason, refusal.detail))
    except ValueError as error:
        return Listing(known, "", refusal=("unreadable_metadata", f"{_TABLE}, row {number}: {error}"))


def _inside(file: str | None) -> str:
    """A path below the folder, or a refusal: a table must not lead the reader out of it."""
    parts = (file or "").split("/")
    if not file or "\\" in file or "\0" in file or any(part in ("", ".", "..") for part in parts):
        raise RecordRefused("unsafe_path", f"the file named in {_TABLE} is not a path below its folder")
    return file


def _rate(text: str | None) -> float:
    try:
        return float(text or "")
    except ValueError:
        raise ValueError("rate_hz is not a number") from None


def _leads(text: str | None) -> tuple[str, ...]:
    leads = tuple(re.split(r"[;\s]+", (text or "").strip()))
    if not all(re.fullmatch(r"[A-Za-z0-9_-]{1,16}", name) for name in leads):
        raise ValueError("leads is not a list of names")
    return leads


def _labels(text: str | None) -> tuple[str, ...]:
    labels = set()
    for part in (text or "").split(";"):
        words = part.split()
        if len(words) > 1 and not all(":" in word for word in words):
            raise ValueError("labels holds a sentence; separate labels by ;")
        labels |= {word if ":" in word else f"own:{word}" for word in words}
    if not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("labels is not a list of codes")
    return tuple(sorted(labels))
