"""What CODE-15% and IKEM share: ``exams.csv`` and HDF5 parts whose rows are found by ``exam_id``."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

from ecgdist.errors import DataError, RecordRefused
from ecgdist.sources.base import Listing
from ecgdist.sources.cells import whole_number
from ecgdist.sources.hdf5_file import open_hdf5
from ecgdist.sources.hdf5_rows import Hdf5Rows, required_table
from ecgdist.sources.tables import Row, iter_table

_TABLE = "exams.csv"


class ExamParts(Hdf5Rows):
    """One record per row of the table, in the order of the parts; and one, refused, per row that it lacks.

    Attributes:
        columns: of the table.
        part: names of the parts, with their number as a group.
        no_exam: the ``exam_id`` of a row that is no exam.
    """

    columns: ClassVar[tuple[str, ...]]
    part: ClassVar[re.Pattern[str]]
    no_exam: ClassVar[int | None] = None

    def list_records(self) -> list[Listing]:
        table = required_table(self.root, _TABLE, "parts such as exams_part0.hdf5")
        parts = self._parts()
        exams: dict[int, Listing] = {}
        broken: list[Listing] = []
        for number, row in enumerate(iter_table(table, self.columns), start=1):
            try:
                exam_id = whole_number(row["exam_id"])
                if exam_id in exams:
                    raise RecordRefused("duplicate_id", f"an earlier row of {_TABLE} has the same exam_id")
                exams[exam_id] = self._listing(str(exam_id), row)
            except ValueError as error:
                refusal = ("unreadable_metadata", f"{_TABLE}, row {number}: {error}")
                broken.append(Listing(f"row {number} of {_TABLE}", "", refusal=refusal))
            except RecordRefused as refused:
                refusal = (refused.reason, refused.detail)
                broken.append(Listing(f"row {number} of {_TABLE}", "", refusal=refusal))
        unreadable: dict[str, RecordRefused] = {}
        found = [listing for part in parts for listing in self._located(part, exams, unreadable)]
        # What no part held is left over.
        absent = [replace(each, refusal=_why_absent(each, parts, unreadable)) for each in exams.values()]
        return [*found, *absent, *broken]

    def _parts(self) -> list[str]:
        """Paths of the parts that are here; each archive may have been unpacked into a folder of its own."""
        numbers: dict[int, str] = {}
        for path in self.root.list_files():
            match = self.part.fullmatch(_name(path))
            if match and numbers.setdefault(int(match[1]), path) != path:
                raise DataError(f"{self.root} holds {_name(path)} twice; keep one of them")
        return [numbers[number] for number in sorted(numbers)]

    def _located(
        self, part: str, exams: dict[int, Listing], unreadable: dict[str, RecordRefused]
    ) -> Iterator[Listing]:
        """The listing of every row of a part; known exams are taken out of `exams`."""
        try:
            with open_hdf5(self.root / part) as file:
                ids = file.vector("exam_id").tolist()
        except RecordRefused as refused:
            unreadable[_name(part)] = refused
            return
        for row, exam_id in enumerate(ids):
            if exam_id in exams:
                yield replace(exams.pop(exam_id), key=part, row=row)
            elif exam_id != self.no_exam:
                detail = f"{_TABLE} has no row for this exam, or an earlier row of a part holds it"
                yield Listing(f"row {row} of {_name(part)}", part, refusal=("not_in_table", detail), row=row)

    @abstractmethod
    def _listing(self, exam_id: str, row: Row) -> Listing:
        """The listing of a row of the table; its key is the name of the part that should hold it, if it is told.

        Raises:
            ValueError: if a cell is not what the column holds.
        """


def _why_absent(listing: Listing, parts: list[str], unreadable: dict[str, RecordRefused]) -> tuple[str, str]:
    suspects = [listing.key] if listing.key else sorted(unreadable)
    if listing.key and listing.key not in map(_name, parts):
        return (
            "missing_file",
            f"{listing.key} is not in the folder; get it, or leave its rows out of {_TABLE}",
        )
    for name in suspects:
        if name in unreadable:
            return unreadable[name].reason, f"{name}: {unreadable[name].detail}"
    return "missing_signal", "no part holds this exam_id"


def _name(path: str) -> str:
    return path.rpartition("/")[2]
