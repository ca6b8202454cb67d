"""Read one pool: fetch its row groups by range reads, and put its rows in the order's sequence."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa

from ecgdist.corpus import Corpus
from ecgdist.corpus.schema import signal_array, signal_column
from ecgdist.errors import DataError
from ecgdist.record import NUM_LEADS
from ecgdist.storage import Location
from ecgdist.streaming.order import Order, PoolItem
from ecgdist.streaming.selection import Selection

_COLUMNS = ("signal", "record_id", "segment", "source", "patient_key", "lead_mask", "valid_samples")


@dataclass(frozen=True)
class PoolReader:
    """Everything a read task needs; picklable."""

    location: Location
    corpus_id: str
    order: Order
    selection: Selection

    def read(self, item: PoolItem) -> pa.Table:
        """The rows of a pool that are still needed, in order.

        Returns:
            Columns ``signal`` (int16 bytes, 12 x samples), ``row_id``, ``patient`` (int64), ``lead_mask``,
            ``valid_samples``, and ``lane`` and ``step`` of the item, by which the consumer checks its order.
        """
        corpus = _open(self.location, self.corpus_id)
        groups, places = self.order.pool(item.epoch, item.lane, item.pool)
        groups, places = groups[item.skip :], places[item.skip :]
        count = len(groups)
        signal = np.empty((count, NUM_LEADS, corpus.num_samples), dtype="<i2")
        lead_mask, valid = np.empty(count, np.int16), np.empty(count, np.int32)
        patient = np.empty(count, np.int64)
        row_id = np.empty(count, object)
        for group in np.unique(groups):
            here = np.flatnonzero(groups == group)
            offsets = self.selection.row_offsets(int(group), places[here])
            facts = corpus.read_group(int(group), _COLUMNS, offsets)
            signal[here] = signal_array(facts["signal"], corpus.num_samples)
            lead_mask[here] = facts["lead_mask"].to_numpy()
            valid[here] = facts["valid_samples"].to_numpy()
            patient[here] = [patient_number(key) for key in facts["patient_key"].to_pylist()]
            names = zip(*(facts[c].to_pylist() for c in ("source", "record_id", "segment")), strict=True)
            row_id[here] = [f"{source}/{record}#{segment}" for source, record, segment in names]
        return pa.table(
            {
                "signal": signal_column(signal),
                "row_id": pa.array(row_id, pa.string()),
                "patient": patient,
                "lead_mask": lead_mask,
                "valid_samples": valid,
                "lane": np.full(count, item.lane, np.int32),
                "step": np.full(count, item.step, np.int64),
            }
        )


def patient_number(patient_key: str) -> int:
    """A patient key's first 63 bits: what the loss compares to know two ECGs of one patient."""
    return int(patient_key[:16], 16) >> 1


@lru_cache(maxsize=2)
def _open(location: Location, corpus_id: str) -> Corpus:
    corpus = Corpus(location)
    if corpus.corpus_id != corpus_id:
        raise DataError(
            f"{location} was replaced by another corpus during the run ({corpus_id} -> {corpus.corpus_id})"
        )
    return corpus
