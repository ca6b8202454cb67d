"""IKEM: 98,130 ECGs of 30,290 patients of a hospital in Prague, 500 Hz, in HDF5 parts with ``exams.csv``.

What to know of the data set; its description errs in the first three points, which others have measured
(ECGBench, the catalogue of ECG data sets by V. Thambawita, from the files):

* An ECG has 4,096 samples at 500 Hz: 8.192 s, not 10 s.
* The int16 values are microvolt, not steps of 4.88 µV.
* ``tracings`` is (exams, 4096, 8) with the leads V1 to V6, **II, I**. The other four limb leads are derived.
* Of 48 records only 2,500 samples are real (``real_lengths``); zeros fill the rest.
* -1 stands for "missing" in every column. There are no diagnoses.
* ``acquisition_date`` is month-day-year: ``05-17-2017``.
* The licence allows no derivatives to be shared: a corpus that holds IKEM stays where it was made.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ecgdist.record import Recording, derive_limb_leads
from ecgdist.sources.base import Listing
from ecgdist.sources.cells import age_of, sex_of
from ecgdist.sources.exam_parts import ExamParts
from ecgdist.sources.hdf5_file import Hdf5Array, Hdf5File, refused
from ecgdist.sources.tables import Row
from ecgdist.sources.telehealth import PADDING_STRIPPED

_LEADS = ("V1", "V2", "V3", "V4", "V5", "V6", "II", "I")
_RATE_HZ = 500.0
_PATIENT = re.compile(r"[0-9A-Za-z]{1,64}")


class Ikem(ExamParts):
    """One record per exam; its id is ``exam_id``."""

    kind: ClassVar[str] = "ikem"
    dataset: ClassVar[str] = "ikem"
    licence: ClassVar[str] = "CC BY-NC-ND 4.0: no derivative, such as a corpus, may be shared"
    citation: ClassVar[str] = (
        "Sejak M, Sido J, Zahour D. IKEM dataset. Zenodo (2023). https://doi.org/10.5281/zenodo.8393007; "
        "Sejak M, Sido J, Zahour D. Knowledge-Based Systems 277, 111014 (2023). "
        "https://doi.org/10.1016/j.knosys.2023.111014"
    )
    columns: ClassVar[tuple[str, ...]] = ("exam_id", "patient_id", "age", "is_male")
    part: ClassVar[re.Pattern[str]] = re.compile(r"exams_part_?([0-9]{1,4})\.hdf5")

    def _listing(self, exam_id: str, row: Row) -> Listing:
        patient = row["patient_id"] or ""
        if patient == "-1":
            patient = ""
        elif not _PATIENT.fullmatch(patient):
            raise ValueError("patient_id is not a word of letters and digits")
        return Listing(
            exam_id,
            "",
            patient_id=patient or None,
            age=age_of(row["age"]),
            sex=sex_of(row["is_male"]),
            day=_day(row.get("acquisition_date")),
        )

    def _array(self, file: Hdf5File, listing: Listing) -> Hdf5Array:
        array = file.array("tracings", (3,), "i")
        if array.shape[2] != len(_LEADS):
            raise refused(f"tracings has shape {array.shape}; published is (exams, 4096, 8)")
        return array

    def _recording(self, listing: Listing, values: npt.NDArray[Any], file: Hdf5File) -> Recording:
        lengths = file.vector("real_lengths")
        if listing.row is None or listing.row >= len(lengths):
            raise refused(f"real_lengths has {len(lengths)} values, which is not one for every exam")
        real = _real_part(values, int(lengths[listing.row]))
        signal_uv, leads = derive_limb_leads(np.ascontiguousarray(real.T, dtype=np.float64), _LEADS)
        flags = ("limb_leads_derived",)
        return listing.recording(
            self.kind,
            signal_uv,
            _RATE_HZ,
            leads,
            (*flags, PADDING_STRIPPED) if len(real) < len(values) else flags,
        )


def _day(text: str | None) -> int | None:
    """The day of ``"05-17-2017"``, counted as `ecgdist.record.day_of` does; or None."""
    try:
        return datetime.strptime((text or "").strip(), "%m-%d-%Y").toordinal()
    except ValueError:
        return None


def _real_part(values: npt.NDArray[Any], length: int) -> npt.NDArray[Any]:
    """The `length` samples that are not padding, which lies behind them, before them or on both sides."""
    padding = len(values) - length
    if not (length > 0 and padding >= 0):
        raise refused(f"real_lengths says {length} of {len(values)} samples")
    for start in (0, padding, padding // 2):
        if not values[:start].any() and not values[start + length :].any():
            return values[start : start + length]
    raise refused(f"real_lengths says {length} samples, and more than these are not zero")
