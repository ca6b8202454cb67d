"""One ECG out of one file, in any of the formats that sources read."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ecgdist.config import Config
from ecgdist.errors import ConfigError, RecordRefused
from ecgdist.record import Recording, canonical_lead
from ecgdist.sources.hdf5_folder import Hdf5Folder
from ecgdist.sources.npy_folder import NpyFolder
from ecgdist.sources.own_table import OwnListing, own_recording
from ecgdist.sources.record_file import open_record_file
from ecgdist.sources.wfdb_record import read_wfdb
from ecgdist.storage import Location

_MAX_CSV_BYTES = 2**28
_ARRAYS: dict[str, type[NpyFolder] | type[Hdf5Folder]] = {
    ".npy": NpyFolder,
    ".h5": Hdf5Folder,
    ".hdf5": Hdf5Folder,
}


class FileOptions(Config):
    """What a file may not say of itself."""

    rate_hz: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Sampling rate (--rate)."""
    leads: tuple[str, ...] | None = None
    """Name of each row or column (--leads)."""
    unit: str | None = None
    """V, mV, uV or nV (--unit)."""
    dataset: str | None = None
    """Path of the dataset in an HDF5 file (--dataset)."""
    row: int | None = Field(default=None, ge=0)
    """Which record of an array of several, from 0 (--row)."""
    ignore_leads: tuple[str, ...] = ()
    """Channels to leave out, whatever their case (--ignore-leads)."""


def read_file(where: str | Location, options: FileOptions | None = None) -> Recording:
    """The ECG in a file: WFDB (the ``.hea``, or the record's path without it), ``.npy``, HDF5 or ``.csv``.

    A WFDB record says its rate, leads and units itself; options that contradict it are refused. A channel that is
    neither one of the twelve leads nor left out knowingly is for the model's preprocessing to refuse.

    Raises:
        ConfigError: if an option is missing; it is named.
        RecordRefused: if the file cannot be used, with the reason.
        StorageError: if it cannot be read.
    """
    given = options or FileOptions()
    return _without(_read(Location.of(where), given), given.ignore_leads)


def _read(file: Location, given: FileOptions) -> Recording:
    folder, _, name = file.uri.rpartition("/")
    suffix = f".{name.rpartition('.')[2].lower()}" if "." in name else ""
    root = Location(folder or "/")
    if suffix in _ARRAYS:
        return _array(_ARRAYS[suffix](root), file, name, given)
    if suffix == ".csv":
        return _csv(file, given)
    stem = name[:-4] if suffix in (".hea", ".dat", ".mat") else name
    if not (root / f"{stem}.hea").is_file():
        raise RecordRefused(
            "unknown_file",
            f"there is no {root / stem}.hea, and the name does not end in .npy, .h5, .hdf5 or .csv",
        )
    return _wfdb(root, stem, given)


def _without(recording: Recording, names: tuple[str, ...]) -> Recording:
    """A recording without the channels of some names."""
    ignored = {name.strip().lower() for name in names}
    kept = [row for row, lead in enumerate(recording.leads) if lead.strip().lower() not in ignored]
    if len(kept) == len(recording.leads):
        return recording
    leads = tuple(recording.leads[row] for row in kept)
    return replace(recording, signal_uv=recording.signal_uv[kept], leads=leads)


def _wfdb(root: Location, stem: str, given: FileOptions) -> Recording:
    record = read_wfdb(root, stem)
    if given.rate_hz not in (None, record.rate_hz):
        raise ConfigError(
            f"the header says {record.rate_hz:g} Hz, --rate {given.rate_hz:g}; leave --rate out"
        )
    if given.leads not in (None, record.leads):
        raise ConfigError(f"the header says the leads {', '.join(record.leads)}; leave --leads out")
    unused = [name for name in ("unit", "dataset", "row") if getattr(given, name) is not None]
    if unused:
        raise ConfigError(
            f"a WFDB record has its units in its header and is one record; leave --{unused[0]} out"
        )
    return Recording(stem, "wfdb", record.signal_uv, record.rate_hz, record.leads)


def _array(source: NpyFolder | Hdf5Folder, file: Location, name: str, given: FileOptions) -> Recording:
    if isinstance(source, Hdf5Folder) and given.dataset is None:
        raise ConfigError(f"{file} may hold many datasets; name one by --dataset, e.g. --dataset ecg")
    return source.read_record(_listing(file, name, given, given.leads))


def _listing(file: Location, name: str, given: FileOptions, leads: tuple[str, ...] | None) -> OwnListing:
    """What the options say of a file that says nothing of itself."""
    if given.rate_hz is None:
        raise ConfigError(f"{file} does not say its sampling rate; give it in hertz, e.g. --rate 500")
    if given.unit is None:
        raise ConfigError(f"{file} does not say its unit; give it, e.g. --unit mV (V, mV, uV or nV)")
    if leads is None:
        raise ConfigError(f"{file} does not name its leads; give them in order, e.g. --leads I,II,V1")
    return OwnListing(
        name,
        name,
        row=given.row,
        rate_hz=given.rate_hz,
        unit=given.unit,
        leads=leads,
        array=given.dataset or "",
    )


def _csv(file: Location, given: FileOptions) -> Recording:
    """One line per sample, one column per lead; the first line may name the leads."""
    with open_record_file(file) as content:
        raw = content.read(_MAX_CSV_BYTES + 1)
    if len(raw) > _MAX_CSV_BYTES:
        raise RecordRefused("too_long", f"{file} has more than {_MAX_CSV_BYTES >> 20} MiB")
    try:
        text = raw.decode("utf-8-sig")
        first = next(csv.reader(io.StringIO(text)), [])
        named = any(canonical_lead(cell) is not None for cell in first)
        if not text.partition("\n")[2 if named else 0].strip():
            raise ValueError("it is empty")
        values: npt.NDArray[np.float64] = np.loadtxt(
            io.StringIO(text), delimiter=",", skiprows=int(named), ndmin=2, comments=None
        )
    except (ValueError, csv.Error) as error:
        raise RecordRefused("unreadable_signal", f"{file} is not a table of numbers: {error}") from error
    leads = given.leads or (tuple(cell.strip() for cell in first) if named else None)
    listing = _listing(file, file.name, given, leads)
    if values.shape[1] != len(listing.leads):
        raise RecordRefused(
            "lead_count", f"{file} has {values.shape[1]} columns for {len(listing.leads)} leads"
        )
    return own_recording("csv", listing, values.T)
