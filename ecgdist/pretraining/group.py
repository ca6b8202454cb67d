"""The few collective operations that training needs, with the same meaning for one process and for many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ecgdist.pretraining.whereabouts import Whereabouts


class Group:
    """The processes that train together: torch's default process group, or this process alone.

    Attributes:
        rank: of this process.
        world_size: number of processes.
        whereabouts: of this process, for those that wait for it.
    """

    def __init__(self) -> None:
        self.whereabouts = Whereabouts()
        self._many = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if self._many else 0
        self.world_size = dist.get_world_size() if self._many else 1

    def sum(self, values: Tensor) -> Tensor:
        """Elementwise sum over all processes; they give values of the same shape."""
        if self.world_size > 1 and values.numel():
            values = values.clone()
            with self.whereabouts.at("all_reduce"):
                dist.all_reduce(values)
        return values

    def gather_rows(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """Rows of all processes by rank: ``(counts[rank], ...)`` -> ``(sum(counts), ...)``. No gradient.

        Collectives need equal shapes, so shorter parts travel padded.
        """
        if self.world_size == 1:
            return rows
        padded = rows.new_zeros((max(counts), *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        with self.whereabouts.at("all_gather"):
            dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    def gather_objects(self, value: Any) -> list[Any]:
        """The value of every process, by rank. For small facts, not for tensors."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        with self.whereabouts.at("all_gather_object"):
            dist.all_gather_object(values, value)
        return values

    def from_first(self, value: Any) -> Any:
        """What rank 0 has."""
        if self.world_size == 1:
            return value
        box = [value]
        with self.whereabouts.at("broadcast_object_list"):
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world_size > 1:
            with self.whereabouts.at("barrier"):
                dist.barrier()
