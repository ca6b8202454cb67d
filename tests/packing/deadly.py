"""A source whose records end the process that reads them, as a defect of a native library may."""

from __future__ import annotations

import os
from typing import ClassVar

from ecgdist.record import Recording
from ecgdist.sources.base import Listing, Source


class Deadly(Source):
    """One record."""

    kind: ClassVar[str] = "deadly"
    dataset: ClassVar[str] = "deadly"
    licence: ClassVar[str] = "none"
    citation: ClassVar[str] = "none"

    def list_records(self) -> list[Listing]:
        return [Listing("a", "a")]

    def _read(self, listing: Listing) -> Recording:
        os._exit(1)
