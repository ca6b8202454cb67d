"""What every source is: something that lists records and reads one of them.

A source is small: it holds where its files are and nothing else, because it travels to every task that reads.
What the listing knows of a record travels in that record's `Listing`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ecgdist.errors import RecordRefused
from ecgdist.record import Recording, Sex
from ecgdist.sources.ahead import read_ahead
from ecgdist.storage import Location


@dataclass(frozen=True, slots=True)
class Listing:
    """One record that a source lists: enough to read it on any machine that reaches the source's folder.

    Attributes:
        record_id: identifier, unique within the source.
        key: path of the record's file relative to the source's folder; without extension for WFDB records.
        patient_id: the source's id of the patient, or None. Never written to a corpus.
        age: years, or None where the listing does not know it (reading the record may).
        sex: ``"male"``, ``"female"`` or None.
        labels: prefixed codes, sorted.
        split: the official split or fold, or None.
        refusal: (reason, detail) when the listing alone shows that the record cannot be read.
        row: place of the record in the file `key`, where a file holds many; else None.
        day: number of the day it was recorded on (`record.day_of`), or None. Never written to a corpus as it is.
    """

    record_id: str
    key: str
    patient_id: str | None = None
    age: float | None = None
    sex: Sex | None = None
    labels: tuple[str, ...] = ()
    split: str | None = None
    refusal: tuple[str, str] | None = None
    row: int | None = None
    day: int | None = None

    def recording(
        self,
        source: str,
        signal_uv: npt.NDArray[np.floating],
        rate_hz: float,
        leads: tuple[str, ...],
        flags: tuple[str, ...] = (),
    ) -> Recording:
        """The record with its signal, for a source whose listing knows all else of it; arguments as of `Recording`."""
        return Recording(
            record_id=self.record_id,
            source=source,
            signal_uv=signal_uv,
            rate_hz=rate_hz,
            leads=leads,
            patient_id=self.patient_id,
            age=self.age,
            sex=self.sex,
            labels=self.labels,
            split=self.split,
            flags=flags,
            day=self.day,
        )


class Source(ABC):
    """A published layout of ECG files under one folder.

    Attributes:
        kind: name of the layout on the command line, and `Recording.source` of its records.
        licence: licence of the data, as its publisher states it.
        citation: what to cite, with DOI.
        dataset: the data set that patient ids, folds and codes belong to; two layouts of one data set share it.
        in_flight: recordings that `read_many` reads at the same time from a bucket, and so holds at most; fewer
            suit a source of long recordings.
        root: the folder.
        name: of the data set, where the user gave it one.
    """

    kind: ClassVar[str]
    licence: ClassVar[str]
    citation: ClassVar[str]
    dataset: ClassVar[str]
    in_flight: ClassVar[int] = 16

    def __init__(self, root: Location, name: str | None = None) -> None:
        self.root = root
        self.name = name

    @property
    def dataset_name(self) -> str:
        """The data set that the records of this folder belong to: as the user named it, or that of the layout."""
        return self.name or self.dataset

    @abstractmethod
    def list_records(self) -> list[Listing]:
        """Every record, in an order that depends on names only; what cannot be read carries its refusal.

        Raises:
            DataError: if the folder does not hold this layout.
            StorageError: if the storage cannot be read.
        """

    def read_record(self, listing: Listing) -> Recording:
        """The record that a listing names.

        Raises:
            RecordRefused: if this record cannot be used; the reason is a slug.
            StorageError: if the storage itself fails, which says nothing about the record.
        """
        if listing.refusal is not None:
            raise RecordRefused(*listing.refusal)
        return self._read(listing)

    def read_many(self, listings: Sequence[Listing]) -> Iterator[Recording | RecordRefused]:
        """What `read_record` gives or raises for each of the listings, in their order.

        A source whose files hold many records opens each file once here. At most a few recordings are held at a
        time, however many are asked for. Records in a bucket are read a few at once.

        Raises:
            StorageError: if the storage itself fails.
        """
        if self.root.is_s3:
            yield from read_ahead(self._outcome, listings, self.in_flight)
        else:
            yield from map(self._outcome, listings)

    def _outcome(self, listing: Listing) -> Recording | RecordRefused:
        """What `read_record` gives or raises."""
        try:
            return self.read_record(listing)
        except RecordRefused as refused:
            return refused

    @abstractmethod
    def _read(self, listing: Listing) -> Recording:
        """`read_record` for a listing that is not refused."""
