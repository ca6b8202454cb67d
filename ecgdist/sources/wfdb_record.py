"""One WFDB record, from local storage or a bucket, as microvolt.

The record is staged in a temporary folder (mended header, links to local files or copies of remote ones) and
read there with the `wfdb` package as digital values, which are checked against the header before they become
microvolt.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import wfdb

from ecgdist.errors import RecordRefused, StorageError
from ecgdist.record import canonical_lead, microvolts_per_unit
from ecgdist.sources import matlab5
from ecgdist.sources.wfdb_header import Header, parse_header
from ecgdist.storage import Location, translated

# Bytes per sample and the value that marks an invalid sample (WFDB manual, signal(5)). A compressed file
# (508, 516, 524: FLAC) has no fixed size; differences (8) have no invalid value.
_FORMATS: dict[str, tuple[Fraction | None, int | None]] = {
    "8": (Fraction(1), None),
    "16": (Fraction(2), -(2**15)),
    "24": (Fraction(3), -(2**23)),
    "32": (Fraction(4), -(2**31)),
    "61": (Fraction(2), -(2**15)),
    "80": (Fraction(1), -(2**7)),
    "160": (Fraction(2), -(2**15)),
    "212": (Fraction(3, 2), -(2**11)),
    "310": (Fraction(4, 3), -(2**9)),
    "311": (Fraction(4, 3), -(2**9)),
    "508": (None, -(2**7)),
    "516": (None, -(2**15)),
    "524": (None, -(2**23)),
}

# What `wfdb` and its FLAC reader raise on content that they do not understand.
_CONTENT_ERRORS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError)

# MATLAB files from version 5 on start with this. Those of version 4 are plain WFDB with 24 bytes to skip.
_MATLAB = b"MATLAB "

Digital = npt.NDArray[Any]


@dataclass(frozen=True)
class WfdbRecord:
    """What a WFDB record holds.

    Attributes:
        signal_uv: ``(leads, samples)`` float64 in microvolt; NaN where the file marks a sample as invalid,
            and in a channel that is neither a standard lead nor a voltage.
        rate_hz: sampling rate.
        leads: names as published.
        comments: comment lines without their ``#``.
    """

    signal_uv: npt.NDArray[np.float64]
    rate_hz: float
    leads: tuple[str, ...]
    comments: tuple[str, ...]


def read_wfdb(root: Location, key: str) -> WfdbRecord:
    """Read the record whose header is ``root/key.hea``.

    Raises:
        RecordRefused: ``missing_header``, ``missing_signal``, ``unreadable_header``, ``multi_segment``,
            ``unknown_format``, ``truncated_signal``, ``unreadable_signal``, ``checksum``, ``mixed_rates`` or
            ``unknown_unit``.
        StorageError: if the storage itself fails.
    """
    header = parse_header(_header_bytes(root, key))
    folder = root / key.rpartition("/")[0] if "/" in key else root
    with translated(str(root / key)), tempfile.TemporaryDirectory(prefix="ecgdist-wfdb-") as staged:
        (Path(staged) / "record.hea").write_text(header.text, encoding="ascii")
        for name, alias in header.aliases.items():
            _stage(folder, name, Path(staged) / alias)
        fields, digital = _read_staged(header, Path(staged))
    _check_digital(fields, digital)
    per_frame = set(fields.samps_per_frame)
    if len(per_frame) > 1:
        raise RecordRefused(
            "mixed_rates", f"the leads have {sorted(per_frame)} samples per frame, not all the same"
        )
    return WfdbRecord(
        signal_uv=_to_microvolt(header, fields, digital),
        rate_hz=float(fields.fs * per_frame.pop()),
        leads=tuple(name or "" for name in fields.sig_name),
        comments=tuple(fields.comments),
    )


def _header_bytes(root: Location, key: str) -> bytes:
    header = root / f"{key}.hea"
    try:
        return header.read_bytes()
    except StorageError:
        if header.exists():
            raise
        raise RecordRefused("missing_header", f"{header} does not exist") from None


def _stage(folder: Location, name: str, local: Path) -> None:
    """Make a signal file readable under a local name: a link if it is local, a copy if it is in a bucket."""
    remote = folder / name
    missing = RecordRefused("missing_signal", f"the header names {name!r}, which is not in {folder}")
    if "/" in name:  # a header is data from outside: it must not lead the reader out of the folder
        raise missing
    if not remote.is_s3:
        if not Path(remote.uri).is_file():
            raise missing
        local.symlink_to(remote.uri)
        return
    try:
        remote.download(local)
    except StorageError:
        if remote.exists():
            raise
        raise missing from None


def _read_staged(header: Header, folder: Path) -> tuple[Any, list[Digital]]:
    """The header's fields as `wfdb` reads them, and the stored digital values of every lead."""
    unknown = {signal.format for signal in header.signals} - _FORMATS.keys()
    if unknown:
        raise RecordRefused("unknown_format", f"{', '.join(sorted(unknown))} is not a WFDB signal format")
    record = str(folder / "record")
    starts = {alias: _first_bytes(folder / alias) for alias in header.aliases.values()}
    if any(start.startswith(_MATLAB) for start in starts.values()):
        return _read_matlab(header, folder, list(starts.values()))
    _check_lengths(header, folder)
    try:
        # Skewed leads are shifted by us: the stored checksum is that of the samples as they are in the file.
        fields = wfdb.rdrecord(record, physical=False, smooth_frames=False, ignore_skew=True)
    except _CONTENT_ERRORS as error:
        _parse_fields(record)
        raise RecordRefused("unreadable_signal", f"the signal file cannot be decoded: {error}") from error
    return fields, fields.e_d_signal


def _parse_fields(record: str) -> Any:
    try:
        return wfdb.rdheader(record)
    except _CONTENT_ERRORS as error:
        raise RecordRefused("unreadable_header", f"the header cannot be parsed: {error}") from error


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(matlab5.MAGIC))


def _check_lengths(header: Header, folder: Path) -> None:
    """Refuse a signal file that is shorter than the header says; `wfdb` does not always notice."""
    for name, alias in header.aliases.items():
        signals = [signal for signal in header.signals if signal.file == name]
        size, _ = _FORMATS[signals[0].format]
        if size is None:
            continue
        per_frame = sum(signal.samples_per_frame for signal in signals)
        num_samples = per_frame * (header.num_samples or 1)
        needed = signals[0].byte_offset + math.ceil(num_samples * size)
        found = (folder / alias).stat().st_size
        if found < needed:
            raise RecordRefused("truncated_signal", f"{name} has {found} bytes; its header needs {needed}")


def _read_matlab(header: Header, folder: Path, starts: Sequence[bytes]) -> tuple[Any, list[Digital]]:
    """A record whose one signal file is a MATLAB 5 file with a variable ``val`` of (leads, samples)."""
    (name, alias), *others = header.aliases.items()
    if others or starts[0] != matlab5.MAGIC:
        detail = f"{name}: a MATLAB file can be read if it is of version 4, or of version 5 and the only one"
        raise RecordRefused("unknown_format", detail)
    fields = _parse_fields(str(folder / "record"))
    try:
        values = matlab5.read_matrix((folder / alias).read_bytes(), "val")
    except ValueError as error:
        raise RecordRefused("unreadable_signal", f"{name}: {error}") from error
    if len(values) != len(header.signals):
        detail = f"{name}: `val` has {len(values)} rows; its header describes {len(header.signals)} leads"
        raise RecordRefused("unreadable_signal", detail)
    num_samples = header.num_samples or max(1, values.shape[1])
    if values.shape[1] < num_samples:
        detail = f"{name} has {values.shape[1]} samples; its header says {num_samples}"
        raise RecordRefused("truncated_signal", detail)
    return fields, list(values[:, :num_samples])


def _check_digital(fields: Any, digital: Sequence[Digital]) -> None:
    """Compare every lead's stored checksum, the 16-bit sum of its samples (WFDB manual, header(5))."""
    if not fields.fs > 0:
        raise RecordRefused("unreadable_header", f"the sampling rate is {fields.fs} Hz")
    if not any(fields.checksum):
        return  # absent, or the zeros that writers put in who do not compute it
    for name, stored, values in zip(fields.sig_name, fields.checksum, digital, strict=True):
        if stored is None or values.dtype.kind == "f":
            continue
        found = int(values.sum(dtype=np.int64))
        if (found - stored) % 2**16:
            detail = f"lead {name}: the samples sum to {found % 2**16}, the header says {stored % 2**16}"
            raise RecordRefused("checksum", detail)


def _to_microvolt(header: Header, fields: Any, digital: Sequence[Digital]) -> npt.NDArray[np.float64]:
    """``(leads, samples)``: (digital - baseline) / gain in the lead's unit, scaled to microvolt."""
    signal_uv = np.full((len(digital), len(digital[0])), np.nan)
    for row, (line, values) in enumerate(zip(header.signals, digital, strict=True)):
        unit = fields.units[row]
        if canonical_lead(fields.sig_name[row] or "") is None and not _is_voltage(unit):
            continue
        scale = microvolts_per_unit(unit) / fields.adc_gain[row]
        lead = (values.astype(np.float64) - fields.baseline[row]) * scale
        lead[values == _FORMATS[line.format][1]] = np.nan
        aligned = lead[line.skew * line.samples_per_frame :]
        signal_uv[row, : len(aligned)] = aligned
    return signal_uv


def _is_voltage(unit: str) -> bool:
    try:
        microvolts_per_unit(unit)
    except RecordRefused:
        return False
    return True
