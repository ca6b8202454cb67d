"""SPH: 25,770 ECGs of 24,666 patients of Shandong Provincial Hospital, 500 Hz, 10 to 56 s, one HDF5 file each.

What to know of the data set:

* ``records/A00001.h5`` holds ``ecg``, (12, samples) float16 in millivolt, standard lead order. The column ``N`` of
  ``metadata.csv`` is the number of samples.
* ``AHA_Code`` holds statements (AHA/ACC/HRS 2007) separated by ``;``, each a code that ``+`` joins to modifiers:
  ``60+310;147`` gives ``aha:60``, ``aha:60+310`` and ``aha:147``. A modifier alone is no finding.
* "Normal ECG" is a statement, ``aha:1``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ecgdist.errors import RecordRefused
from ecgdist.record import NUM_LEADS, STANDARD_LEADS, Recording, Sex, day_of
from ecgdist.sources.base import Listing, Source
from ecgdist.sources.cells import age_of, whole_number
from ecgdist.sources.hdf5_file import open_hdf5, refused
from ecgdist.sources.hdf5_rows import required_table
from ecgdist.sources.tables import Row, iter_table

_TABLE = "metadata.csv"
_COLUMNS = ("ECG_ID", "AHA_Code", "Patient_ID", "Age", "Sex", "N")
_FOLDER = "records/"
_SUFFIX = ".h5"
_ID = re.compile(r"[A-Z][0-9]{1,9}")
_STATEMENT = re.compile(r"[0-9]{1,4}(\+[0-9]{1,4})*")
_SEX: dict[str, Sex] = {"M": "male", "F": "female"}
_RATE_HZ = 500.0
_UV_PER_MV = 1000.0


@dataclass(frozen=True, slots=True)
class SphListing(Listing):
    """A listing that knows how many samples the record has."""

    num_samples: int = 0


class Sph(Source):
    """One record per row of the table; its id is ``ECG_ID``."""

    kind: ClassVar[str] = "sph"
    dataset: ClassVar[str] = "sph"
    licence: ClassVar[str] = "CC BY 4.0"
    citation: ClassVar[str] = (
        "Liu H et al. A large-scale multi-label 12-lead electrocardiogram database with standardized diagnostic "
        "statements. Sci Data 9, 272 (2022). https://doi.org/10.1038/s41597-022-01403-5; figshare "
        "https://doi.org/10.6084/m9.figshare.c.5779802.v1"
    )

    def list_records(self) -> list[Listing]:
        table = required_table(self.root, _TABLE, "records/A00001.h5 and so on")
        files = {
            name for name in self.root.list_files() if name.startswith(_FOLDER) and name.endswith(_SUFFIX)
        }
        listings: dict[str, Listing] = {}
        for number, row in enumerate(iter_table(table, _COLUMNS), start=1):
            listing = _listing(row, number, files)
            if listing.record_id in listings:
                refusal = ("duplicate_id", f"an earlier row of {_TABLE} has the same ECG_ID")
                listing = Listing(f"row {number} of {_TABLE}", "", refusal=refusal)
            listings[listing.record_id] = listing
        known = {listing.key for listing in listings.values()}
        for number, name in enumerate(sorted(files - known), start=1):
            refusal = ("not_in_table", f"{_TABLE} has no row for this file")
            listings[f"stray file {number}"] = Listing(f"stray file {number}", name, refusal=refusal)
        return list(listings.values())

    def _read(self, listing: Listing) -> Recording:
        with open_hdf5(self.root / listing.key) as file:
            array = file.array("ecg", (2,), "f")
            if array.shape[0] != NUM_LEADS:
                raise refused(f"ecg has shape {array.shape}; published is (12, samples)")
            num_samples = listing.num_samples if isinstance(listing, SphListing) else array.shape[1]
            if array.shape[1] != num_samples:
                detail = f"{listing.key} has {array.shape[1]} samples; {_TABLE} says {num_samples}"
                raise RecordRefused("truncated_signal", detail)
            values = array.read(0, NUM_LEADS)
        return listing.recording(self.kind, values.astype(np.float64) * _UV_PER_MV, _RATE_HZ, STANDARD_LEADS)


def _listing(row: Row, number: int, files: set[str]) -> Listing:
    """The listing of one row; whatever is wrong with the row is its refusal."""
    record_id, patient_id = row["ECG_ID"] or "", row["Patient_ID"] or ""
    try:
        if not (_ID.fullmatch(record_id) and _ID.fullmatch(patient_id)):
            raise ValueError("ECG_ID or Patient_ID is not a letter and digits")
        key = f"{_FOLDER}{record_id}{_SUFFIX}"
        return SphListing(
            record_id,
            key,
            patient_id=patient_id,
            day=day_of(row.get("Date")),
            age=age_of(row["Age"]),
            sex=_SEX.get(row["Sex"] or ""),
            labels=_labels(row["AHA_Code"]),
            refusal=None if key in files else ("missing_signal", f"{key} is not in the folder"),
            num_samples=whole_number(row["N"]),
        )
    except ValueError as error:
        refusal = ("unreadable_metadata", f"{_TABLE}, row {number}: {error}")
        return Listing(f"row {number} of {_TABLE}", "", refusal=refusal)


def _labels(text: str | None) -> tuple[str, ...]:
    statements = [part.strip() for part in (text or "").split(";") if part.strip()]
    if not all(_STATEMENT.fullmatch(statement) for statement in statements):
        raise ValueError("AHA_Code is not a list of codes")
    labels = set()
    for statement in statements:
        code, *modifiers = statement.split("+")
        labels |= {f"aha:{code}", *(f"aha:{code}+{modifier}" for modifier in modifiers)}
    return tuple(sorted(labels))
