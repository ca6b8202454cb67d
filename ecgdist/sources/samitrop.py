"""SaMi-Trop: 1,631 ECGs of as many patients with chronic Chagas cardiomyopathy, 400 Hz, in one HDF5 file.

What to know of the data set:

* ``exams.hdf5`` holds ``tracings`` alone, (1631, 4096, 12) float64 in millivolt. Row i is row i of ``exams.csv``:
  nothing but the position joins them, so a table of another length is an error.
* Exams of 7 or 10 s lie between zeros, which are stripped.
* ``normal_ecg`` is the only label: a normal tracing of a patient who is ill. Deaths are not read.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy.typing as npt

from ecgdist.errors import DataError, RecordRefused
from ecgdist.record import Recording
from ecgdist.sources.base import Listing
from ecgdist.sources.cells import age_of, sex_of, truth, whole_number
from ecgdist.sources.hdf5_file import Hdf5Array, Hdf5File, open_hdf5
from ecgdist.sources.hdf5_rows import Hdf5Rows, required_table
from ecgdist.sources.tables import Row, iter_table
from ecgdist.sources.telehealth import telehealth_array, telehealth_recording

_TABLE = "exams.csv"
_FILE = "exams.hdf5"
_COLUMNS = ("exam_id", "age", "is_male", "normal_ecg")


class SamiTrop(Hdf5Rows):
    """One record per row of the table; its id is ``exam_id``, which is the patient's, too."""

    kind: ClassVar[str] = "samitrop"
    dataset: ClassVar[str] = "samitrop"
    licence: ClassVar[str] = "CC BY 4.0"
    citation: ClassVar[str] = (
        "Ribeiro ALP et al. Sami-Trop: 12-lead ECG traces with age and mortality annotations. Zenodo (2021). "
        "https://doi.org/10.5281/zenodo.4905618; Cardoso CS et al. BMJ Open 6, e011181 (2016). "
        "https://doi.org/10.1136/bmjopen-2016-011181"
    )

    def list_records(self) -> list[Listing]:
        table = required_table(self.root, _TABLE, _FILE)
        rows = list(iter_table(table, _COLUMNS))
        try:
            with open_hdf5(self.root / _FILE) as file:
                num_exams = telehealth_array(file).shape[0]
        except RecordRefused as refused:
            raise DataError(f"{self.root / _FILE} cannot be used: {refused.detail}") from refused
        if num_exams != len(rows):
            raise DataError(
                f"{table} has {len(rows)} rows and {_FILE} {num_exams} exams; only their order joins them, so "
                "use both as published"
            )
        listings: dict[str, Listing] = {}
        for position, row in enumerate(rows):
            listing = _listing(row, position)
            if listing.record_id in listings:
                refusal = ("duplicate_id", f"an earlier row of {_TABLE} has the same exam_id")
                listing = Listing(f"row {position + 1} of {_TABLE}", _FILE, refusal=refusal)
            listings[listing.record_id] = listing
        return list(listings.values())

    def _array(self, file: Hdf5File, listing: Listing) -> Hdf5Array:
        return telehealth_array(file)

    def _recording(self, listing: Listing, values: npt.NDArray[Any], file: Hdf5File) -> Recording:
        return telehealth_recording(self.kind, listing, values)


def _listing(row: Row, position: int) -> Listing:
    try:
        exam_id = str(whole_number(row["exam_id"]))
        return Listing(
            exam_id,
            _FILE,
            patient_id=exam_id,
            age=age_of(row["age"]),
            sex=sex_of(row["is_male"]),
            labels=("samitrop:normal_ecg",) if truth(row["normal_ecg"]) else (),
            row=position,
        )
    except ValueError as error:
        refusal = ("unreadable_metadata", f"{_TABLE}, row {position + 1}: {error}")
        return Listing(f"row {position + 1} of {_TABLE}", _FILE, refusal=refusal)
