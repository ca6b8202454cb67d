"""How much more than its rows a worker reads: pools end in the middle of row groups, which are read whole."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

from ecgdist.streaming.execution import StreamLimits
from ecgdist.streaming.order import Order
from ecgdist.streaming.reads import plan_reads

Ints = npt.NDArray[np.int64]


def read_amplification(order: Order, whole_rows: Ints, limits: StreamLimits, workers: int) -> float:
    """Rows that are read for each row that is used, by the reads that the stream itself would plan.

    It is that of the first worker's first segment; those after it, in other row groups, differ by chance.

    Args:
        order: of the run.
        whole_rows: ``(groups,)`` all rows of each row group, those that are not selected, too.
        limits: of the stream.
        workers: among which the lanes are divided.
    """
    lanes = order.lanes_of(0, workers)
    items = order.items(lanes, 0, order.steps_per_epoch)
    pools = [
        order.pool(i.epoch, i.lane, i.pool)[0] for i in itertools.islice(items, limits.items_per_segment)
    ]
    reads = itertools.chain.from_iterable(plan_reads(pools, limits.kept_rows))
    return float(sum(whole_rows[read.group] for read in reads) / sum(map(len, pools)))
