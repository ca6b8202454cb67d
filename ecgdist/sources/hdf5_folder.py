"""A folder of your own HDF5 files with a ``records.csv``; see `ecgdist.sources.own_table`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy.typing as npt

from ecgdist.record import Recording
from ecgdist.sources.base import Listing
from ecgdist.sources.hdf5_file import Hdf5Array, Hdf5File
from ecgdist.sources.hdf5_rows import Hdf5Rows
from ecgdist.sources.own_table import list_own, own, own_recording


class Hdf5Folder(Hdf5Rows):
    """One record per row of the table."""

    kind: ClassVar[str] = "hdf5"
    dataset: ClassVar[str] = "hdf5"
    licence: ClassVar[str] = "as stated by the owner of the files"
    citation: ClassVar[str] = (
        "the one that comes with the files; for HDF5: Folk M et al. An overview of the HDF5 technology suite and its "
        "applications. AD '11, 36-47 (2011). https://doi.org/10.1145/1966895.1966900"
    )

    def list_records(self) -> list[Listing]:
        return list_own(self.root, ("dataset",))

    def _block(self, file: Hdf5File, listings: Sequence[Listing]) -> npt.NDArray[Any]:
        first = listings[0]
        if first.row is not None:
            return super()._block(file, listings)
        array = file.array(own(first).array, (2,), "iuf")
        return array.read(0, array.shape[0])[None]

    def _follows(self, listing: Listing, first: Listing, distance: int) -> bool:
        return super()._follows(listing, first, distance) and own(listing).array == own(first).array

    def _array(self, file: Hdf5File, listing: Listing) -> Hdf5Array:
        return file.array(own(listing).array, (3,), "iuf")

    def _recording(self, listing: Listing, values: npt.NDArray[Any], file: Hdf5File) -> Recording:
        return own_recording(self.kind, listing, values)
