"""Published layouts of ECG files.

To add one: a file with a `Source` class, a line in `SOURCES`, and a test that uses the shared contract.
"""

from __future__ import annotations

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

__all__ = ["SOURCES", "Listing", "Source", "open_source"]


def open_source(kind: str, root: str | Location, follow_links: bool = False) -> Source:
    """The source of layout `kind` in the folder `root`, which is not looked at yet.

    Args:
        kind: name of the layout.
        root: local folder or ``s3://``.
        follow_links: read through links that lead out of a local folder, too.

    Raises:
        ConfigError: for an unknown kind.
        StorageError: for a root that is neither a local path nor ``s3://``.
    """
    try:
        source = SOURCES[kind]
    except KeyError:
        raise ConfigError(f"unknown source kind {kind!r}; use one of {', '.join(SOURCES)}") from None
    where = Location.of(root)
    return source(where if follow_links else where.confined())
