"""Which row groups a sequence of pools reads, and for which of its pools each one serves.

Neighbouring pools of a lane share row groups, because a pool ends where it has enough rows and not where a group
ends. Read pool by pool, a group is decompressed for each of them, which is up to three times the work. Here it is
read once, for all pools whose rows there is room to keep.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@dataclass
class GroupRead:
    """One reading of a row group.

    Attributes:
        group: its number.
        slots: for each pool that it serves, by place in the sequence: which rows of the pool lie in the group.
    """

    group: int
    slots: dict[int, Ints] = field(default_factory=dict)


def plan_reads(pools: Sequence[Ints], kept_rows: int) -> list[list[GroupRead]]:
    """For every pool, the readings that must be made for it; what is not among them was read for an earlier one.

    Args:
        pools: the row group of every row of each pool, in the sequence in which the pools are needed.
        kept_rows: most rows that are kept for later pools at any time. Where there are more, those that are
            needed last are read again instead, which is the best choice when the future is known (Belady 1966).
    """
    slots = [_slots_by_group(groups) for groups in pools]
    needed_by: dict[int, list[int]] = defaultdict(list)
    for place, by_group in enumerate(slots):
        for group in by_group:
            needed_by[group].append(place)
    plan: list[list[GroupRead]] = []
    kept: dict[int, dict[int, GroupRead]] = defaultdict(dict)
    room = kept_rows
    for place, by_group in enumerate(slots):
        here = kept.pop(place, {})
        room += sum(len(by_group[group]) for group in here)
        plan.append([])
        for group, rows in by_group.items():
            needed_by[group].pop(0)
            if group in here:
                continue
            read = GroupRead(group, {place: rows})
            plan[-1].append(read)
            for later in needed_by[group]:
                read.slots[later] = slots[later][group]
                kept[later][group] = read
                room -= len(slots[later][group])
        while room < 0:
            last = max(kept)
            group, read = kept[last].popitem()
            room += len(read.slots.pop(last))
            if not kept[last]:
                del kept[last]
    return plan


def _slots_by_group(groups: Ints) -> dict[int, Ints]:
    return {int(group): np.flatnonzero(groups == group) for group in np.unique(groups)}
