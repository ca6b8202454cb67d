"""WFDB formats that we leave to the `wfdb` package: FLAC (508, 516, 524), differences (8), 10-bit (310, 311).

The record is staged in a temporary folder: a mended header, links to local files or copies of remote ones.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import soundfile
import wfdb

from ecgdist.errors import RecordRefused
from ecgdist.sources.wfdb_decode import FORMATS, Digital
from ecgdist.sources.wfdb_header import Header
from ecgdist.storage import Location, translated

# What `wfdb` and its FLAC reader raise on content that they do not understand.
_CONTENT_ERRORS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError)


def read_with_package(header: Header, files: dict[str, Location], max_values: int) -> list[Digital]:
    """The digital values of every lead, each ``(samples,)``; a FLAC file is checked before it is decoded.

    Args:
        header: of the record.
        files: where each of its signal files is.
        max_values: most samples, of all leads together, that are decoded.

    Raises:
        RecordRefused: ``unreadable_signal``, ``truncated_signal`` or ``too_long``.
        StorageError: if the storage itself fails.
    """
    with tempfile.TemporaryDirectory(prefix="ecgdist-wfdb-") as staged, translated(staged):
        (Path(staged) / "record.hea").write_text(header.text, encoding="ascii")
        for name, alias in header.aliases.items():
            _stage(files[name], Path(staged) / alias)
            if FORMATS[header.signals[header.files[name][0]].format][0] is None:
                _check_flac(header, name, Path(staged) / alias, max_values)
        try:
            # Skewed leads are shifted by us: the stored checksum is that of the samples as they are in the file.
            record = wfdb.rdrecord(f"{staged}/record", physical=False, smooth_frames=False, ignore_skew=True)
        except _CONTENT_ERRORS as error:
            detail = f"the signal file cannot be decoded: {error}"
            raise RecordRefused("unreadable_signal", detail) from error
    digital: list[Digital] = record.e_d_signal
    return digital


def _stage(remote: Location, local: Path) -> None:
    if remote.is_s3:
        remote.download(local)
    else:
        local.symlink_to(remote.uri)


def _check_flac(header: Header, name: str, local: Path, max_values: int) -> None:
    """Refuse a file whose frames are too few, or so many that decoding would fill the memory."""
    try:
        info = soundfile.info(str(local))
    except _CONTENT_ERRORS as error:
        raise RecordRefused("unreadable_signal", f"{name} is not a FLAC file: {error}") from error
    per_frame = header.signals[header.files[name][0]].samples_per_frame
    needed = per_frame * (header.num_samples or 1)
    if info.frames < needed:
        detail = f"{name} has {info.frames} samples per lead; its header needs {needed}"
        raise RecordRefused("truncated_signal", detail)
    if header.num_samples is None and info.frames * info.channels > max_values:
        detail = f"{name} announces {info.frames} samples of {info.channels} leads"
        raise RecordRefused("too_long", detail)
