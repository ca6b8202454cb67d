"""The public training set of the PhysioNet/CinC Challenge 2021 (1.0.3): 88,253 ECGs of eight data sets.

Under ``training/`` each data set has a folder with groups of a thousand records (``ptb-xl/g1/HR00001``). The
record id begins with that folder, so that one data set can be left out by ``challenge2021/ptb-xl/*``.

It repeats what is published elsewhere under other names, and it publishes no patient ids:

* ``ptb-xl`` is PTB-XL 1.0.1 with its 38 duplicates, 500 Hz; HR00001 is ecg_id 1.
* ``chapman_shaoxing`` and ``ningbo`` are ecg-arrhythmia under the same names, but for S23074, there JS23074.
* ``ptb`` (1000 Hz) and ``st_petersburg_incart`` (257 Hz, 30 minutes) hold several ECGs of most patients. The
  sources ``ptb`` and ``incart`` know those patients, so prefer them where patients must not be split; here the flag
  ``patient_unknown`` says that other records may be of the same person.

Waveforms, not names, tell which of these a corpus holds twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from ecgdist.errors import DataError
from ecgdist.sources.base import Listing
from ecgdist.sources.challenge import CHALLENGE_2020, RENAMED, challenge_details
from ecgdist.sources.wfdb_folder import Details, WfdbFolder
from ecgdist.storage import Location

_SUBSETS = (
    "chapman_shaoxing", "cpsc_2018", "cpsc_2018_extra", "georgia", "ningbo", "ptb", "ptb-xl",
    "st_petersburg_incart",
)  # fmt: skip

# Data sets that hold several ECGs of most patients, without saying whose they are.
_OF_UNKNOWN_PATIENTS = ("ptb", "st_petersburg_incart")

# Folders of the archives that the Challenge handed out itself, without groups, before PhysioNet did.
_ARCHIVES = {
    "WFDB_CPSC2018": "cpsc_2018",
    "WFDB_CPSC2018_2": "cpsc_2018_extra",
    "WFDB_ChapmanShaoxing": "chapman_shaoxing",
    "WFDB_Ga": "georgia",
    "WFDB_Ningbo": "ningbo",
    "WFDB_PTB": "ptb",
    "WFDB_PTBXL": "ptb-xl",
    "WFDB_StPetersburg": "st_petersburg_incart",
}


class Challenge2021(WfdbFolder):
    """Every record below the folders of the data sets; it is its own patient."""

    kind: ClassVar[str] = "challenge2021"
    dataset: ClassVar[str] = "challenge2021"
    licence: ClassVar[str] = "CC BY 4.0"
    citation: ClassVar[str] = (
        "Reyna MA et al. Will Two Do? Varying Dimensions in Electrocardiography: the PhysioNet/Computing in "
        "Cardiology Challenge 2021. Computing in Cardiology 48 (2021). "
        "https://doi.org/10.23919/CinC53138.2021.9662687; PhysioNet https://doi.org/10.13026/34va-7q14; "
        f"{CHALLENGE_2020}"
    )
    renamed: ClassVar[Mapping[str, str]] = RENAMED
    in_flight: ClassVar[int] = 8  # of the half hours of INCART, too, which take 44 MB each when they are read

    def list_records(self) -> list[Listing]:
        found = super().list_records()
        ids = [_record_id(listing.key) for listing in found]
        if not any(ids):
            raise DataError(
                f"{self.root} has none of the folders {', '.join(_SUBSETS)}; give the folder that holds them, "
                "or for one data set alone its own kind of source"
            )
        _refuse_copies(self.root, found)
        return [_identified(listing, record_id) for listing, record_id in zip(found, ids, strict=True)]

    def _details(self, comments: Sequence[str]) -> Details:
        return challenge_details(comments)

    def _flags(self, listing: Listing) -> tuple[str, ...]:
        subset = listing.record_id.partition("/")[0]
        return ("patient_unknown",) if subset in _OF_UNKNOWN_PATIENTS else ()


def _place(key: str) -> tuple[str, str, str] | None:
    """A data set by its name on PhysioNet, its folder, and the path below that; None outside of all data sets."""
    folders = key.split("/")
    for depth, folder in enumerate(folders[:-1], start=1):
        subset = _ARCHIVES.get(folder, folder)
        if subset in _SUBSETS:
            return subset, "/".join(folders[:depth]), "/".join(folders[depth:])
    return None


def _record_id(key: str) -> str | None:
    """The path from the data set's folder on, by its name on PhysioNet; None outside of all of them."""
    place = _place(key)
    return None if place is None else f"{place[0]}/{place[2]}"


def _refuse_copies(root: Location, listings: Sequence[Listing]) -> None:
    """Refuse a root that holds a data set twice: as PhysioNet publishes it, and as the Challenge's own archive."""
    folders: dict[tuple[str, str], str] = {}
    for listing in listings:
        if (place := _place(listing.key)) is None:
            continue
        subset, folder, path = place
        name = path.rpartition("/")[2]
        other = folders.setdefault((subset, name), folder)
        if other != folder:
            raise DataError(
                f"{root} holds records of {subset} twice: {name} is in {other} and in {folder}; move one of these two "
                "folders elsewhere, or name the folder of one data set after the other as a source of its own kind"
            )


def _identified(listing: Listing, record_id: str | None) -> Listing:
    if record_id is None:
        detail = f"{listing.key} lies in the folder of no data set of the Challenge"
        return replace(listing, refusal=("unknown_subset", detail))
    return replace(listing, record_id=record_id)
