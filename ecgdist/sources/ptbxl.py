"""PTB-XL: twelve-lead ECGs of 10 s with metadata in ``ptbxl_database.csv`` (releases 1.0.1 to 1.0.3)."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

from ecgdist.errors import DataError
from ecgdist.record import Recording, Sex, day_of
from ecgdist.sources.base import Listing, Source
from ecgdist.sources.labels import without_mark
from ecgdist.sources.tables import Row, integer, read_table
from ecgdist.sources.wfdb_record import read_wfdb

_TABLE = "ptbxl_database.csv"
_COLUMNS = ("ecg_id", "patient_id", "age", "sex", "scp_codes", "strat_fold", "filename_lr", "filename_hr")

_SEX: dict[int, Sex] = {0: "male", 1: "female"}

# The 71 statements of scp_statements.csv. Nothing else becomes a label: a cell that has slipped may hold free text.
_SCP_CODES = {
    "1AVB", "2AVB", "3AVB", "ABQRS", "AFIB", "AFLT", "ALMI", "AMI", "ANEUR", "ASMI", "BIGU", "CLBBB",
    "CRBBB", "DIG", "EL", "HVOLT", "ILBBB", "ILMI", "IMI", "INJAL", "INJAS", "INJIL", "INJIN", "INJLA",
    "INVT", "IPLMI", "IPMI", "IRBBB", "ISCAL", "ISCAN", "ISCAS", "ISCIL", "ISCIN", "ISCLA", "ISC_",
    "IVCD", "LAFB", "LAO/LAE", "LMI", "LNGQT", "LOWT", "LPFB", "LPR", "LVH", "LVOLT", "NDT", "NORM",
    "NST_", "NT_", "PAC", "PACE", "PMI", "PRC(S)", "PSVT", "PVC", "QWAVE", "RAO/RAE", "RVH", "SARRH",
    "SBRAD", "SEHYP", "SR", "STACH", "STD_", "STE_", "SVARR", "SVTAC", "TAB_", "TRIGU", "VCLVH", "WPW",
}  # fmt: skip


class PtbXl(Source):
    """One record per row of the table; the 500 Hz file where the folder has it, else the 100 Hz one.

    Attributes:
        file_columns: columns that name a record's files; the first that the folder has is read.
    """

    file_columns: ClassVar[tuple[str, ...]] = ("filename_hr", "filename_lr")
    kind: ClassVar[str] = "ptbxl"
    dataset: ClassVar[str] = "ptbxl"
    licence: ClassVar[str] = "CC BY 4.0"
    citation: ClassVar[str] = (
        "Wagner P, Strodthoff N, Bousseljot R-D, Kreiseler D, Lunze FI, Samek W, Schaeffter T. PTB-XL, a "
        "large publicly available electrocardiography dataset. Sci Data 7, 154 (2020). "
        "https://doi.org/10.1038/s41597-020-0495-6; PhysioNet https://doi.org/10.13026/kfzx-aw45"
    )

    def list_records(self) -> list[Listing]:
        files = frozenset(self.root.list_files())
        listings: dict[str, Listing] = {}
        for number, row in enumerate(self._rows(files), start=1):
            listing = _listing(row, number, files, self.file_columns)
            if listing.record_id in listings:
                again = f"{listing.record_id} (row {number})"
                refusal = ("duplicate_id", f"an earlier row of {_TABLE} has the same ecg_id")
                listing = Listing(again, listing.key, refusal=refusal)
            listings[listing.record_id] = listing
        return list(listings.values())

    def _rows(self, files: frozenset[str]) -> list[Row]:
        if _TABLE not in files:
            raise DataError(
                f"{self.root} has no {_TABLE}; "
                "a PTB-XL folder holds that table and, beside it, records500/ or records100/"
            )
        return read_table(self.root / _TABLE, _COLUMNS)

    def _read(self, listing: Listing) -> Recording:
        record = read_wfdb(self.root, listing.key)
        return listing.recording(self.kind, record.signal_uv, record.rate_hz, record.leads)


class PtbXl100(PtbXl):
    """The same records at 100 Hz, whether or not the folder has the 500 Hz files, too."""

    file_columns: ClassVar[tuple[str, ...]] = ("filename_lr",)
    kind: ClassVar[str] = "ptbxl100"


def _listing(
    row: Mapping[str, str | None], number: int, files: frozenset[str], file_columns: Sequence[str]
) -> Listing:
    """The listing of one row; whatever is wrong with the row is its refusal."""
    keys = [key for column in file_columns if (key := row[column])]
    key = next((key for key in keys if f"{key}.hea" in files), None)
    absent = ("missing_header", f"the folder has no header {' or '.join(keys) or '(the row names no file)'}")
    try:
        ecg_id = integer(row["ecg_id"])
        if ecg_id is None:
            raise ValueError("ecg_id is empty")
        patient_id, sex, fold = integer(row["patient_id"]), integer(row["sex"]), integer(row["strat_fold"])
        return Listing(
            record_id=str(ecg_id),
            key=key or next(iter(keys), ""),
            patient_id=None if patient_id is None else str(patient_id),
            age=_age(row["age"]),
            sex=None if sex is None else _SEX.get(sex),
            labels=_labels(row["scp_codes"]),
            split=None if fold is None else f"fold{fold}",
            day=day_of(row.get("recording_date")),
            refusal=None if key else absent,
        )
    except ValueError as error:
        ecg_id_cell = row["ecg_id"] or ""
        # In a table whose columns have slipped any cell may hold a report, and record ids enter a corpus.
        record_id = f"{ecg_id_cell if ecg_id_cell.isdecimal() else 'no ecg_id'} (row {number})"
        refusal = ("unreadable_metadata", f"{_TABLE}, row {number}: {error}")
        return Listing(record_id, key or "", refusal=refusal)


def _age(text: str | None) -> float | None:
    age = float(text or "nan")
    if age < 0 or math.isinf(age):
        raise ValueError(f"{text!r} is no age")
    return None if math.isnan(age) else without_mark(age)


def _labels(text: str | None) -> tuple[str, ...]:
    """Every code of ``"{'NORM': 100.0, 'SR': 0.0}"``; a likelihood of 0 means ungraded, not absent."""
    try:
        codes = ast.literal_eval(text or "{}")
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError(f"scp_codes {text!r} is not a dictionary of codes") from error
    if not isinstance(codes, dict):
        raise ValueError(f"scp_codes {text!r} is not a dictionary of codes")
    if not codes.keys() <= _SCP_CODES:
        raise ValueError("scp_codes holds what is no SCP code of PTB-XL")
    return tuple(sorted(f"scp:{code}" for code in codes))
