"""UK Biobank's resting ECGs (data field 20205): one XML file of GE CardioSoft per ECG, 500 Hz, 10 s.

The files are given to approved projects only, so this reader follows public descriptions of them (UK Biobank's page
of field 20205 and open readers), and its tests use files made after these:

* The name is ``EID_20205_INSTANCE_ARRAY.xml``; EID is the participant. It is no part of the record's id, which
  would carry it into a corpus: records are numbered in the order of their names.
* ``CardiologyXML/StripData`` or ``CardiologyXML/Strip/StripData`` holds ``SampleRate`` (Hz), ``Resolution``
  (µV per step) and a ``WaveformData`` for each lead: whole steps, separated by commas.
* ``PatientInfo`` may hold ``Age`` and ``Gender``. Nothing else is read: not names, dates, devices or diagnoses.
"""

from __future__ import annotations

import math
import re
from typing import Any, ClassVar
from xml.etree.ElementTree import ParseError

import numpy as np
import numpy.typing as npt
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from ecgdist.errors import DataError, RecordRefused
from ecgdist.record import Recording
from ecgdist.sources.base import Listing, Source
from ecgdist.sources.hdf5_file import refused
from ecgdist.sources.record_file import open_record_file
from ecgdist.sources.wfdb_header import parse_age, parse_sex
from ecgdist.storage import Location

_NAME = re.compile(r"([0-9]{1,12})_20205_([0-9]{1,3})_([0-9]{1,3})\.xml")
_MAX_BYTES = 2**24  # of a file; a published one has less than 2 MiB
_MAX_DEPTH = 32
_CHUNK_BYTES = 2**16

_STRIPS = (("CardiologyXML", "StripData"), ("CardiologyXML", "Strip", "StripData"))
_RATE, _RESOLUTION, _WAVEFORM = "SampleRate", "Resolution", "WaveformData"
_READ = {(*strip, name) for strip in _STRIPS for name in (_RATE, _RESOLUTION, _WAVEFORM)} | {
    ("CardiologyXML", "PatientInfo", name) for name in ("Age", "Gender")
}


class UkBiobank(Source):
    """Every resting ECG below a folder; what else ends in ``.xml`` there is refused."""

    kind: ClassVar[str] = "ukbiobank"
    dataset: ClassVar[str] = "ukbiobank"
    licence: ClassVar[str] = (
        "UK Biobank material transfer agreement: approved projects only, not to be passed on"
    )
    citation: ClassVar[str] = (
        "Sudlow C et al. UK Biobank: an open access resource for identifying the causes of a wide range of complex "
        "diseases of middle and old age. PLoS Med 12, e1001779 (2015). https://doi.org/10.1371/journal.pmed.1001779; "
        "and the number of your application"
    )

    def list_records(self) -> list[Listing]:
        files = [name for name in self.root.list_files() if name.endswith(".xml")]
        if not files:
            raise DataError(
                f"{self.root} holds no .xml file; a folder of field 20205 holds files such as 1234567_20205_2_0.xml"
            )
        return [_listing(number, key) for number, key in enumerate(files)]

    def _read(self, listing: Listing) -> Recording:
        found = _parse(self.root / listing.key)
        rate_hz = _number(found.texts.get(_RATE), found.units.get(_RATE), "Hz")
        uv_per_step = _number(found.texts.get(_RESOLUTION), found.units.get(_RESOLUTION), "uVperLsb")
        leads, signal = _waveforms(found.waveforms)
        return Recording(
            record_id=listing.record_id,
            source=self.kind,
            signal_uv=signal * uv_per_step,
            rate_hz=rate_hz,
            leads=leads,
            patient_id=listing.patient_id,
            age=parse_age(found.texts.get("Age")) if _in_years(found.units.get("Age")) else None,
            sex=parse_sex(found.texts.get("Gender")),
        )


class _Parser(DefusedXMLParser):  # type: ignore[misc]
    """Accepts a document type that is only named, as vendors write it; it is never fetched. What declares entities or
    anything else in the file is refused."""

    def defused_start_doctype_decl(
        self, name: str, sysid: str | None, pubid: str | None, has_internal_subset: int
    ) -> None:
        if has_internal_subset:
            super().defused_start_doctype_decl(name, sysid, pubid, has_internal_subset)


class _Collector:
    """Keeps the text of the few elements that are read, as the parser comes by; nothing else is held."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.units: dict[str, str | None] = {}
        self.waveforms: list[tuple[str, str]] = []
        self._path: list[str] = []
        self._parts: list[str] | None = None
        self._attributes: dict[str, str] = {}

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self._path.append(tag)
        if len(self._path) > _MAX_DEPTH:
            raise refused(f"the file nests elements more than {_MAX_DEPTH} deep")
        if tuple(self._path) in _READ:
            self._parts, self._attributes = [], attributes

    def data(self, text: str) -> None:
        if self._parts is not None:
            self._parts.append(text)

    def end(self, tag: str) -> None:
        if tuple(self._path) in _READ and self._parts is not None:
            text = "".join(self._parts).strip()
            if tag == _WAVEFORM:
                self.waveforms.append((self._attributes.get("lead", ""), text))
            else:
                self.texts.setdefault(tag, text)
                self.units.setdefault(tag, self._attributes.get("units"))
            self._parts = None
        self._path.pop()

    def close(self) -> None:
        """The parser calls it at the end."""


def _listing(number: int, key: str) -> Listing:
    match = _NAME.fullmatch(key.rpartition("/")[2])
    if match is None:
        detail = "the name is not EID_20205_INSTANCE_ARRAY.xml, so the participant is not known"
        return Listing(f"{number:07d}", key, refusal=("unknown_patient", detail))
    participant, instance, array = match.groups()
    return Listing(f"{number:07d}_{instance}_{array}", key, patient_id=participant)


def _parse(file: Location) -> _Collector:
    """What the file holds of the elements that are read. Nothing that it refers to is fetched."""
    collector = _Collector()
    parser = _Parser(target=collector, forbid_dtd=True, forbid_entities=True, forbid_external=True)
    with open_record_file(file) as content:
        num_bytes = 0
        while chunk := content.read(_CHUNK_BYTES):
            num_bytes += len(chunk)
            if num_bytes > _MAX_BYTES:
                raise RecordRefused("too_large", f"the file has more than {_MAX_BYTES} bytes")
            _feed(parser, chunk)
        _feed(parser, None)
    return collector


def _feed(parser: Any, chunk: bytes | None) -> None:
    try:
        parser.close() if chunk is None else parser.feed(chunk)
    except DefusedXmlException as error:
        raise RecordRefused(
            "unsafe_xml", f"the file declares {type(error).__name__}, which no ECG needs"
        ) from error
    except (ParseError, ValueError, LookupError) as error:
        raise refused(f"not a readable XML file: {error}") from error


def _number(text: str | None, unit: str | None, expected: str) -> float:
    if unit != expected:
        raise RecordRefused("unknown_unit", f"a value is in {unit!r}, not {expected}")
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise refused(f"a value in {expected} is not a positive number")
    return value


def _in_years(unit: str | None) -> bool:
    return (unit or "years").lower() == "years"


def _waveforms(waveforms: list[tuple[str, str]]) -> tuple[tuple[str, ...], npt.NDArray[np.float64]]:
    """Names and ``(leads, samples)`` steps."""
    if not waveforms:
        raise refused("the file holds no WaveformData of a strip")
    try:
        rows = [[int(word) for word in text.rstrip(",").split(",")] for _, text in waveforms]
        signal = np.array(rows, dtype=np.float64)
    except (ValueError, OverflowError) as error:
        raise refused("the leads are not lists of whole numbers of one length") from error
    return tuple(name for name, _ in waveforms), signal
