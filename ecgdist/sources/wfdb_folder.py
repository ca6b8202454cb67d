"""A folder of WFDB records at any depth: PhysioNet archives, the Challenge 2020/2021 sets, own exports.

Metadata are in the comments of each header (Challenge style: ``#Age: 56``, ``#Sex: F``, ``#Dx: 59118001``),
so they are known when a record is read, not when it is listed: a bucket of a million records is listed
without opening one of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar

from ecgdist.errors import DataError, RecordRefused
from ecgdist.record import Recording, Sex
from ecgdist.sources.base import Listing, Source
from ecgdist.sources.labels import diagnoses
from ecgdist.sources.wfdb_header import comment_fields, named_files, parse_age, parse_sex
from ecgdist.sources.wfdb_record import header_bytes, read_wfdb

_HEADER = ".hea"
_SIGNAL_SUFFIXES = (".dat", ".mat", ".flac")

# In a bucket it is the answers that take time; a folder of the Challenge has a thousand headers.
_HEADERS_AT_ONCE = 16


@dataclass(frozen=True)
class Details:
    """What the comments of a header say of a record; the fields are those of `Recording`."""

    patient_id: str | None = None
    age: float | None = None
    sex: Sex | None = None
    labels: tuple[str, ...] = ()


class WfdbFolder(Source):
    """Every WFDB record below a folder; its id is its path without extension, and it is its own patient.

    Attributes:
        renamed: names of headers whose signal file is published under another name, and that name.
    """

    kind: ClassVar[str] = "wfdb"
    dataset: ClassVar[str] = "wfdb"
    licence: ClassVar[str] = "as stated by the publisher of the files"
    citation: ClassVar[str] = (
        "Goldberger A et al. PhysioBank, PhysioToolkit, and PhysioNet. Circulation 101 (2000) e215-e220, "
        "https://doi.org/10.1161/01.CIR.101.23.e215; and the citation that comes with the files"
    )
    renamed: ClassVar[Mapping[str, str]] = {}

    def list_records(self) -> list[Listing]:
        files = self.root.list_files()
        headers = [name.removesuffix(_HEADER) for name in files if name.endswith(_HEADER)]
        listings = [Listing(key, key) for key in headers]
        for key in self._without_header(files, headers):
            detail = f"{key}{_HEADER} does not exist and no header beside it names this signal file"
            listings.append(Listing(key, key, refusal=("missing_header", detail)))
        if not listings:
            raise DataError(
                f"{self.root} holds no WFDB record ({_HEADER} with its signal file); check the path"
            )
        return sorted(listings, key=lambda listing: listing.key)

    def _without_header(self, files: Iterable[str], headers: Sequence[str]) -> set[str]:
        """Stems of signal files that no header accounts for."""
        stems = {*headers, *map(self._signal_stem, headers)}
        stray: dict[str, list[str]] = defaultdict(list)
        for name in files:
            stem, dot, suffix = name.rpartition(".")
            if f"{dot}{suffix}" in _SIGNAL_SUFFIXES and stem not in stems:
                folder, _, base = name.rpartition("/")
                stray[folder].append(base)
        beside = self._named_by_headers([key for key in headers if key.rpartition("/")[0] in stray])
        return {
            "/".join(filter(None, (folder, base.rpartition(".")[0])))
            for folder, bases in stray.items()
            for base in bases
            if base not in beside.get(folder, ())
        }

    def _named_by_headers(self, headers: Sequence[str]) -> Mapping[str, set[str]]:
        """Names of the files, by folder, that these headers may point to."""
        named: dict[str, set[str]] = defaultdict(set)
        with ThreadPoolExecutor(_HEADERS_AT_ONCE) as pool:
            for key, names in zip(headers, pool.map(self._named_by_header, headers), strict=True):
                named[key.rpartition("/")[0]] |= names
        return named

    def _named_by_header(self, key: str) -> set[str]:
        try:
            return named_files(header_bytes(self.root, key))
        except RecordRefused:  # which reading the record will say
            return set()

    def _signal_stem(self, header: str) -> str:
        folder, slash, name = header.rpartition("/")
        return f"{folder}{slash}{self.renamed.get(name, name)}"

    def _read(self, listing: Listing) -> Recording:
        record = read_wfdb(self.root, listing.key)
        details = self._details(record.comments)
        return Recording(
            record_id=listing.record_id,
            source=self.kind,
            signal_uv=record.signal_uv,
            rate_hz=record.rate_hz,
            leads=record.leads,
            patient_id=listing.patient_id or details.patient_id,
            age=details.age,
            sex=details.sex,
            labels=details.labels,
            flags=self._flags(listing),
        )

    def _flags(self, listing: Listing) -> tuple[str, ...]:
        """Flags of a record that its listing decides."""
        return ()

    def _details(self, comments: Sequence[str]) -> Details:
        """What the comments, without their ``#``, say; codes are labels as published."""
        fields = comment_fields(comments)
        return Details(
            age=parse_age(fields.get("age")),
            sex=parse_sex(fields.get("sex")),
            labels=diagnoses(fields.get("dx")),
        )
