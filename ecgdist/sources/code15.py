"""CODE-15%: 345,779 ECGs of 233,770 patients, 400 Hz, in 18 HDF5 parts with metadata in ``exams.csv``.

What to know of the data set:

* A part holds ``tracings``, (exams, 4096, 12) float32 in millivolt with leads I, II, III, aVR, aVL, aVF, V1 to V6,
  and ``exam_id``. The table is not in the order of the parts: exams are found by their id.
* The last row of every part is all zeros and has the id 0. It is no exam, so it is not listed.
* Exams of 7 or 10 s lie between zeros, which are stripped before anything else happens to them.
* 173,347 exams have none of the six findings and are not normal either: they have no label at all. That says
  nothing of the findings; only ``code15:normal_ecg`` says that there is none.
* The recordings are noisy, and their amplitude scale differs between exams.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import numpy.typing as npt

from ecgdist.record import Recording
from ecgdist.sources.base import Listing
from ecgdist.sources.cells import age_of, sex_of, truth, whole_number
from ecgdist.sources.exam_parts import ExamParts
from ecgdist.sources.hdf5_file import Hdf5Array, Hdf5File
from ecgdist.sources.tables import Row
from ecgdist.sources.telehealth import telehealth_array, telehealth_recording

_FINDINGS = ("1dAVb", "RBBB", "LBBB", "SB", "ST", "AF")
_LABELS = (*_FINDINGS, "normal_ecg")


class Code15(ExamParts):
    """One record per exam; its id is ``exam_id``."""

    kind: ClassVar[str] = "code15"
    dataset: ClassVar[str] = "code15"
    licence: ClassVar[str] = "CC BY 4.0"
    citation: ClassVar[str] = (
        "Ribeiro AH et al. CODE-15%: a large scale annotated dataset of 12-lead ECGs. Zenodo (2021). "
        "https://doi.org/10.5281/zenodo.4916206; Ribeiro AH et al. Nat Commun 11, 1760 (2020). "
        "https://doi.org/10.1038/s41467-020-15432-4"
    )
    columns: ClassVar[tuple[str, ...]] = ("exam_id", "age", "is_male", "patient_id", *_LABELS, "trace_file")
    part: ClassVar[re.Pattern[str]] = re.compile(r"exams_part([0-9]{1,4})\.hdf5")
    no_exam: ClassVar[int | None] = 0

    def _listing(self, exam_id: str, row: Row) -> Listing:
        part = row["trace_file"] or ""
        if not self.part.fullmatch(part):
            raise ValueError("trace_file is not the name of a part")
        return Listing(
            exam_id,
            part,
            patient_id=str(whole_number(row["patient_id"])),
            age=age_of(row["age"]),
            sex=sex_of(row["is_male"]),
            labels=tuple(sorted(f"code15:{name}" for name in _LABELS if truth(row[name]))),
        )

    def _array(self, file: Hdf5File, listing: Listing) -> Hdf5Array:
        return telehealth_array(file)

    def _recording(self, listing: Listing, values: npt.NDArray[Any], file: Hdf5File) -> Recording:
        return telehealth_recording(self.kind, listing, values)
