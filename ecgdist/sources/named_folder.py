"""Folders of WFDB records that have a name wherever they lie: one data set, published in several layouts."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from ecgdist.errors import DataError
from ecgdist.sources.base import Listing
from ecgdist.sources.wfdb_folder import Details, WfdbFolder


class NamedFolder(WfdbFolder):
    """The records of one data set; a record's id is its name, not its path.

    Releases of one data set put the same names into other folders (``E00001``, ``g1/E00001``), and a path may
    hold the patient's id. Files of another data set are refused, because licence, citation and labels would be
    wrong for them; so is a second file of a name.

    Attributes:
        record_name: pattern of the whole name of a record.
        example: the name of a record.
    """

    record_name: ClassVar[re.Pattern[str]]
    example: ClassVar[str]

    def list_records(self) -> list[Listing]:
        seen: Counter[str] = Counter()
        listings = [self._named(listing, seen) for listing in super().list_records()]
        if not any(map(self.record_name.fullmatch, seen)):
            raise DataError(
                f"{self.root} holds WFDB records, but none with a name of {self.kind} like {self.example}; check "
                "the path and the kind of source (wfdb reads any WFDB record)"
            )
        return listings

    def _named(self, listing: Listing, seen: Counter[str]) -> Listing:
        name = listing.key.rpartition("/")[2]
        if listing.refusal is None:
            seen[name] += 1
        if seen[name] > 1:
            refusal = ("duplicate_id", f"another file of {self.root} has the name {name}")
            return Listing(f"{name} (file {seen[name]})", listing.key, refusal=refusal)
        if not self.record_name.fullmatch(name):
            detail = f"{name} is not the name of a record of {self.kind}, which are like {self.example}"
            return Listing(name, listing.key, refusal=("foreign_record", detail))
        return replace(listing, record_id=name, patient_id=self._patient_of(listing.key))

    def _patient_of(self, key: str) -> str | None:
        """The patient's id as far as the path of a record tells it."""
        return None

    @abstractmethod
    def _details(self, comments: Sequence[str]) -> Details: ...
