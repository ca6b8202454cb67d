"""Published layouts of ECG files.

To add one: a file with a `Source` class, a line in `SOURCES`, and a test that uses the shared contract.
"""

from __future__ import annotations

import re

from ecgdist.errors import ConfigError
from ecgdist.sources.base import Listing, Source
from ecgdist.sources.challenge import ChapmanNingbo, Cpsc2018, Georgia
from ecgdist.sources.challenge2021 import Challenge2021
from ecgdist.sources.code15 import Code15
from ecgdist.sources.hdf5_folder import Hdf5Folder
from ecgdist.sources.ikem import Ikem
from ecgdist.sources.incart import Incart
from ecgdist.sources.mimic import MimicEcg
from ecgdist.sources.npy_folder import NpyFolder
from ecgdist.sources.ptb import Ptb
from ecgdist.sources.ptbxl import PtbXl, PtbXl100
from ecgdist.sources.samitrop import SamiTrop
from ecgdist.sources.sph import Sph
from ecgdist.sources.ukbiobank import UkBiobank
from ecgdist.sources.wfdb_folder import WfdbFolder
from ecgdist.storage import Location

SOURCES: dict[str, type[Source]] = {
    "ptbxl": PtbXl,
    "ptbxl100": PtbXl100,
    "mimic": MimicEcg,
    "challenge2021": Challenge2021,
    "chapman-ningbo": ChapmanNingbo,
    "georgia": Georgia,
    "cpsc2018": Cpsc2018,
    "ptb": Ptb,
    "incart": Incart,
    "code15": Code15,
    "ikem": Ikem,
    "samitrop": SamiTrop,
    "sph": Sph,
    "ukbiobank": UkBiobank,
    "wfdb": WfdbFolder,
    "npy": NpyFolder,
    "hdf5": Hdf5Folder,
}

NAMED_BY_USER = ("wfdb", "npy", "hdf5")
"""Kinds that are a layout only: by a name the user can say whose records they are, and so which ids belong together."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")

__all__ = ["NAMED_BY_USER", "SOURCES", "Listing", "Source", "open_source"]


def open_source(kind: str, root: str | Location, follow_links: bool = False) -> Source:
    """The source of layout `kind` in the folder `root`, which is not looked at yet.

    Args:
        kind: name of the layout; for one of `NAMED_BY_USER` also ``KIND:NAME``, with the name of the data set.
        root: local folder or ``s3://``.
        follow_links: read through links that lead out of a local folder, too.

    Raises:
        ConfigError: for an unknown kind, or a name that it cannot have.
        StorageError: for a root that is neither a local path nor ``s3://``.
    """
    layout, colon, name = kind.partition(":")
    try:
        source = SOURCES[layout]
    except KeyError:
        raise ConfigError(f"unknown source kind {layout!r}; use one of {', '.join(SOURCES)}") from None
    if colon:
        _check_name(layout, name)
    where = Location.of(root)
    return source(where if follow_links else where.confined(), name or None)


def _check_name(layout: str, name: str) -> None:
    """Refuse a name that a folder of this layout cannot have."""
    if layout not in NAMED_BY_USER:
        raise ConfigError(
            f"{layout}:{name}: {layout} is one published data set and takes no name; "
            f"only {', '.join(NAMED_BY_USER)} do"
        )
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{layout}:{name}: a name has 1 to 32 small letters, digits, - and _, and begins with a letter or digit: "
            f"for example {layout}:clinic-1"
        )
    if name in SOURCES or any(name == source.dataset for source in SOURCES.values()):
        raise ConfigError(
            f"{layout}:{name}: {name} is the name of a kind or a published data set; choose another, "
            f"for example {layout}:my-{name}"
        )
