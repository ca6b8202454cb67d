"""MIMIC-IV-ECG 1.0: 800,035 ECGs of 161,352 patients, 500 Hz, 10 s, listed in ``record_list.csv``.

The list alone is read to list the records: a bucket with their 1.6 million files is never gone through, and a
record whose files are absent is refused when it is read. What to know of the data set:

* Headers name the leads in the order I, II, III, aVR, **aVF, aVL**, V1 to V6. Leads are arranged by name.
* 10,554 records hold invalid samples; packing refuses them as ``nan``. They are 1.3 % of all, so packing needs a
  ``max_refused_share`` of 0.02.
* Nine of ten ECGs are of patients with several: the patient is ``subject_id``.
* There is no age and no sex. ``ecg_time`` is shifted by years, for each patient by as much.
* ``machine_measurements.csv`` is not read: its reports are free text, its numbers say 29999, 32767, -32768 or
  65535 where nothing could be measured, and a filtered copy with 789,481 rows goes round. So records have no
  labels, and that table can take no record away.
"""

from __future__ import annotations

import re
from typing import ClassVar

from ecgdist.errors import DataError
from ecgdist.record import Recording, day_of
from ecgdist.sources.base import Listing, Source
from ecgdist.sources.tables import Row, iter_table
from ecgdist.sources.wfdb_record import read_wfdb

_TABLE = "record_list.csv"
_COLUMNS = ("subject_id", "study_id", "path")

# files/p1000/p10000032/s40689238/40689238: names without a dot, so none that leads out of the folder.
_PATH = re.compile(r"(?:[A-Za-z0-9_-]+/)*[A-Za-z0-9_-]+")


class MimicEcg(Source):
    """One record per row of the list; its id is ``study_id``."""

    kind: ClassVar[str] = "mimic"
    dataset: ClassVar[str] = "mimic"
    licence: ClassVar[str] = "ODbL 1.0; the LICENSE.txt that came with your copy decides"
    citation: ClassVar[str] = (
        "Gow B et al. MIMIC-IV-ECG: Diagnostic Electrocardiogram Matched Subset (version 1.0). PhysioNet (2023). "
        "https://doi.org/10.13026/4nqg-sb35"
    )

    def list_records(self) -> list[Listing]:
        table = self.root / _TABLE
        if not table.is_file():
            raise DataError(
                f"{self.root} has no {_TABLE}; a MIMIC-IV-ECG folder holds that table and, beside it, files/"
            )
        listings: dict[str, Listing] = {}
        for number, row in enumerate(iter_table(table, _COLUMNS), start=1):
            listing = _listing(row, number)
            if listing.record_id in listings:
                refusal = ("duplicate_id", f"an earlier row of {_TABLE} has the same study_id")
                listing = Listing(f"{listing.record_id} (row {number})", listing.key, refusal=refusal)
            listings[listing.record_id] = listing
        return list(listings.values())

    def _read(self, listing: Listing) -> Recording:
        record = read_wfdb(self.root, listing.key)
        return listing.recording(self.kind, record.signal_uv, record.rate_hz, record.leads)


def _listing(row: Row, number: int) -> Listing:
    """The listing of one row; whatever is wrong with the row is its refusal."""
    study, subject, path = (row[name] or "" for name in ("study_id", "subject_id", "path"))
    # In a table whose columns have slipped any cell may hold anything, and record ids enter a corpus.
    wrong = [
        name
        for name, fits in (
            ("study_id", _is_number(study)),
            ("subject_id", _is_number(subject)),
            ("path", _PATH.fullmatch(path)),
        )
        if not fits
    ]
    if not wrong:
        return Listing(study, path, patient_id=subject, day=day_of(row.get("ecg_time")))
    record_id = f"{study if _is_number(study) else 'no study_id'} (row {number})"
    return Listing(
        record_id, "", refusal=("unreadable_metadata", f"{_TABLE}, row {number}: {', '.join(wrong)}")
    )


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
