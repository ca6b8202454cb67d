"""One WFDB record, from local storage or a bucket, as microvolt.

Only the bytes that the header asks for are read, and they are checked against it before they become microvolt.
A header can name no file outside its own folder. How far symbolic links in a local folder are followed is its
`Location`'s to say.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from ecgdist.errors import RecordRefused
from ecgdist.record import canonical_lead, microvolts_per_unit
from ecgdist.sources import matlab5
from ecgdist.sources.record_file import open_record_file
from ecgdist.sources.wfdb_decode import DECODED, FORMATS, Digital, decode
from ecgdist.sources.wfdb_header import MAX_HEADER_BYTES, Header, SignalLine, parse_header
from ecgdist.sources.wfdb_package import read_with_package
from ecgdist.storage import Location

MAX_VALUES = 2**26
"""Most samples in a record, of all leads together: twelve leads at 500 Hz for three hours, 0.5 GiB in memory."""

_MAX_NAME_BYTES = 255
"""Longest name of a file; asking a bucket for a longer key would look like a failure of the storage."""

_MICROVOLT_PER_STEP = (1e-6, 1e6)
"""One digital unit is at least a millionth of a microvolt and at most a volt; else the gain is wrong."""

# MATLAB files from version 5 on start with this. Those of version 4 are plain WFDB with 24 bytes to skip: type,
# rows, columns, whether imaginary, length of the name, and the name. 30: 16-bit integers, low byte first.
_MATLAB = b"MATLAB "
_MATLAB_4 = struct.Struct("<5i")
_MATLAB_4_INT16 = 30
_MATLAB_OTHER_BYTES = 2**24
"""What a MATLAB 5 file may hold beside the samples that its header announces."""


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
            ``bad_gain``, ``bad_rate``, ``too_long``, ``unknown_format``, ``mixed_rates``,
            ``truncated_signal``, ``unreadable_signal``, ``checksum``, ``unknown_unit`` or ``unsafe_path``.
        StorageError: if the storage itself fails.
    """
    header = parse_header(header_bytes(root, key))
    _check_layout(header)
    folder = root / key.rpartition("/")[0] if "/" in key else root
    digital = _read_digital(header, {name: _beside(folder, name) for name in header.files})
    _check_sums(header, digital)
    return WfdbRecord(
        signal_uv=_to_microvolt(header.signals, digital),
        rate_hz=header.frame_rate_hz * header.signals[0].samples_per_frame,
        leads=tuple(signal.name for signal in header.signals),
        comments=header.comments,
    )


def header_bytes(root: Location, key: str) -> bytes:
    """The header ``root/key.hea``, or as much of it as is enough to refuse it.

    Raises:
        RecordRefused: ``missing_header`` or ``unsafe_path``.
        StorageError: if the storage itself fails.
    """
    with open_record_file(root / f"{key}.hea", "missing_header") as file:
        return file.read(MAX_HEADER_BYTES + 1)


def _check_layout(header: Header) -> None:
    """Refuse what no file can be read by."""
    unknown = {signal.format for signal in header.signals} - FORMATS.keys()
    if unknown:
        raise RecordRefused("unknown_format", f"{', '.join(sorted(unknown))} is not a WFDB signal format")
    per_frame = {signal.samples_per_frame for signal in header.signals}
    if len(per_frame) > 1:
        raise RecordRefused(
            "mixed_rates", f"the leads have {sorted(per_frame)} samples per frame, not all the same"
        )
    for name, rows in header.files.items():
        if len({header.signals[row].format for row in rows}) > 1:
            raise RecordRefused("unreadable_header", f"the leads in {name[:80]!r} have different formats")
    num_values = (header.num_samples or 1) * sum(signal.samples_per_frame for signal in header.signals)
    if num_values > MAX_VALUES:
        raise _too_long(num_values)


def _beside(folder: Location, name: str) -> Location:
    """The signal file that a header names, in the header's own folder."""
    file = folder / name
    leads_away = "/" in name or "\\" in name or name in (".", "..") or len(name.encode()) > _MAX_NAME_BYTES
    if leads_away or not (file.is_s3 or os.path.isfile(file.uri)):
        raise _missing(folder, name)
    return file


def _missing(folder: Location, name: str) -> RecordRefused:
    return RecordRefused("missing_signal", f"the header names {name[:80]!r}, which is not in {folder}")


def _too_long(num_values: int) -> RecordRefused:
    detail = f"{num_values} samples of all leads together are more than {MAX_VALUES}; cut the record first"
    return RecordRefused("too_long", detail)


def _read_digital(header: Header, files: dict[str, Location]) -> list[Digital]:
    """The stored digital values of every lead, each ``(samples,)``."""
    by_package = any(signal.format not in DECODED for signal in header.signals)
    digital: dict[int, Digital] = {}
    num_frames = header.num_samples
    for name, location in files.items():
        rows = header.files[name]
        with open_record_file(location, "missing_signal") as file:
            if file.read(len(_MATLAB)) == _MATLAB:
                leads = _read_matlab(header, name, file)
            elif by_package:
                _check_length(header, name, file)
                continue
            else:
                leads = _read_leads(header, name, file, num_frames)
        digital.update(zip(rows, leads, strict=True))
        num_frames = num_frames or leads.shape[1] // header.signals[0].samples_per_frame
    if by_package and not digital:
        return read_with_package(header, files, MAX_VALUES)
    return [digital[row] for row in range(len(header.signals))]


def _read_leads(header: Header, name: str, file: BinaryIO, num_frames: int | None) -> Digital:
    """``(leads, samples)`` of one signal file; without a number of frames, of all that are in it."""
    rows = header.files[name]
    first = header.signals[rows[0]]
    per_frame = len(rows) * first.samples_per_frame
    if num_frames is None:
        num_frames = _frames_in(header, name, file)
    num_values = num_frames * per_frame
    needed = _bytes_of(first.format, num_values)
    if file.seek(0, 2) < first.byte_offset + needed:  # before memory is taken for what is not there
        raise _truncated(name, file, first.byte_offset + needed)
    _check_matlab_4(header, name, file)
    file.seek(first.byte_offset)
    content = file.read(needed)
    if len(content) < needed:  # somebody has cut it meanwhile
        raise _truncated(name, file, first.byte_offset + needed)
    frames = decode(content, first.format, num_values).reshape(num_frames, len(rows), -1)
    return np.ascontiguousarray(frames.transpose(1, 0, 2)).reshape(len(rows), -1)


def _check_matlab_4(header: Header, name: str, file: BinaryIO) -> None:
    """Refuse a MATLAB 4 matrix of our leads whose numbers are not of the type that the WFDB header says."""
    rows = header.files[name]
    first = header.signals[rows[0]]
    if first.format != "16" or first.byte_offset <= _MATLAB_4.size:
        return
    file.seek(0)
    start = file.read(_MATLAB_4.size)
    if len(start) < _MATLAB_4.size:
        return
    number_type, num_rows, num_columns, imaginary, _ = _MATLAB_4.unpack(start)
    if (num_rows, num_columns) != (len(rows), header.num_samples):
        return
    if number_type != _MATLAB_4_INT16 or imaginary:
        detail = (
            f"{name} is a MATLAB 4 file of number type {number_type}; 16-bit integers are {_MATLAB_4_INT16}"
        )
        raise RecordRefused("unknown_format", detail)


def _frames_in(header: Header, name: str, file: BinaryIO) -> int:
    """How many whole frames a file holds; at least one, or it is refused."""
    rows = header.files[name]
    first = header.signals[rows[0]]
    size, _ = FORMATS[first.format]
    if size is None:
        raise AssertionError(f"{name} has no fixed sample size")
    per_frame = len(rows) * first.samples_per_frame
    num_frames = int((file.seek(0, 2) - first.byte_offset) / size) // per_frame
    if num_frames < 1:
        raise _truncated(name, file, first.byte_offset + _bytes_of(first.format, per_frame))
    if num_frames * per_frame > MAX_VALUES:
        raise _too_long(num_frames * per_frame)
    return num_frames


def _check_length(header: Header, name: str, file: BinaryIO) -> None:
    """Refuse a signal file that is shorter than the header says; `wfdb` does not always notice."""
    rows = header.files[name]
    first = header.signals[rows[0]]
    size, _ = FORMATS[first.format]
    if size is None:
        return
    num_frames = header.num_samples or _frames_in(header, name, file)
    needed = first.byte_offset + _bytes_of(first.format, num_frames * len(rows) * first.samples_per_frame)
    if file.seek(0, 2) < needed:
        raise _truncated(name, file, needed)


def _bytes_of(wfdb_format: str, num_values: int) -> int:
    size, _ = FORMATS[wfdb_format]
    return math.ceil(num_values * (size or 0))


def _truncated(name: str, file: BinaryIO, needed: int) -> RecordRefused:
    detail = f"{name} has {file.seek(0, 2)} bytes; its header needs {needed}"
    return RecordRefused("truncated_signal", detail)


def _read_matlab(header: Header, name: str, file: BinaryIO) -> Digital:
    """``(leads, samples)`` of a record whose one file is a MATLAB 5 file with such a variable ``val``."""
    file.seek(0)
    max_bytes = _matlab_bytes(header)
    content = file.read(max_bytes + 1)
    if len(header.files) > 1 or not content.startswith(matlab5.MAGIC):
        detail = (
            f"{name}: a MATLAB file can be read if it is of version 4, or of version 5 and the only one; "
            "one of version 7.3 (HDF5) has to be saved again with -v7"
        )
        raise RecordRefused("unknown_format", detail)
    try:
        values = matlab5.read_matrix(content, "val", max_bytes)
    except ValueError as error:
        raise RecordRefused("unreadable_signal", f"{name}: {error}") from error
    if len(values) != len(header.signals):
        detail = f"{name}: `val` has {len(values)} rows; its header describes {len(header.signals)} leads"
        raise RecordRefused("unreadable_signal", detail)
    num_samples = (header.num_samples or 0) * header.signals[0].samples_per_frame or max(1, values.shape[1])
    if values.shape[1] < num_samples:
        detail = f"{name} has {values.shape[1]} samples; its header says {num_samples}"
        raise RecordRefused("truncated_signal", detail)
    return values[:, :num_samples]


def _matlab_bytes(header: Header) -> int:
    if header.num_samples is None:
        return matlab5.MAX_BYTES
    num_values = header.num_samples * sum(signal.samples_per_frame for signal in header.signals)
    return _MATLAB_OTHER_BYTES + 8 * num_values


def _check_sums(header: Header, digital: Sequence[Digital]) -> None:
    """Compare every lead's stored checksum, the 16-bit sum of its samples (WFDB manual, header(5))."""
    if not any(signal.checksum for signal in header.signals):
        return  # absent, or the zeros that writers put in who do not compute it
    for signal, values in zip(header.signals, digital, strict=True):
        if signal.checksum is None or values.dtype.kind == "f":
            continue
        # A sum of 16-bit numbers may overflow: it is wanted modulo 2**16.
        found = int(values.sum(dtype=np.int16 if values.dtype == np.int16 else np.int64))
        if (found - signal.checksum) % 2**16:
            detail = (
                f"lead {signal.name}: the samples sum to {found % 2**16}, "
                f"the header says {signal.checksum % 2**16}"
            )
            raise RecordRefused("checksum", detail)


def _to_microvolt(signals: Sequence[SignalLine], digital: Sequence[Digital]) -> npt.NDArray[np.float64]:
    """``(leads, samples)``: (digital - baseline) / gain in the lead's unit, scaled to microvolt."""
    signal_uv = np.empty((len(digital), len(digital[0])))
    for lead, signal, values in zip(signal_uv, signals, digital, strict=True):
        if canonical_lead(signal.name) is None and not _is_voltage(signal.unit):
            lead[:] = np.nan
            continue
        scale = _microvolt_per_step(signal)
        np.subtract(values, signal.baseline, out=lead, dtype=np.float64)
        lead *= scale
        invalid = FORMATS[signal.format][1]
        if invalid is not None and (missing := values == invalid).any():
            lead[missing] = np.nan
        if signal.skew:
            late = min(signal.skew * signal.samples_per_frame, len(lead))
            lead[: len(lead) - late] = lead[late:].copy()
            lead[len(lead) - late :] = np.nan
    return signal_uv


def _microvolt_per_step(signal: SignalLine) -> float:
    scale = microvolts_per_unit(signal.unit) / signal.gain
    low, high = _MICROVOLT_PER_STEP
    if not low <= scale <= high:
        detail = f"lead {signal.name}: a gain of {signal.gain:g} per {signal.unit} is none of a recorder"
        raise RecordRefused("bad_gain", detail)
    return scale


def _is_voltage(unit: str) -> bool:
    try:
        microvolts_per_unit(unit)
    except RecordRefused:
        return False
    return True
