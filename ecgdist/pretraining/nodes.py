"""What a node must have for the workers that Ray Train would start on it."""

from __future__ import annotations

from ecgdist.errors import ConfigError
from ecgdist.pretraining.config import TrainConfig


def check_node(config: TrainConfig, cpus: float, gpus: float | None) -> None:
    """Refuse a node of an elastic run on which Ray Train would start more workers than it can feed.

    Ray Train starts as many workers on a node as fit, and knows nothing of read tasks.

    Args:
        config: of the run.
        cpus: logical CPUs of the node.
        gpus: of the node; None if workers get no GPU.

    Raises:
        ConfigError: saying what there is and what is needed.
    """
    workers, read = config.workers, config.data.stream.cpus_per_task
    fitting = min(cpus // workers.cpus_each, workers.most, *([] if gpus is None else [gpus]))
    if fitting * (workers.cpus_each + read) > cpus:
        raise ConfigError(
            f"Ray would start {fitting:g} workers of workers.cpus_each = {workers.cpus_each:g} on a node with "
            f"{cpus:g} CPUs, where their read tasks of {read:g} CPUs each would find no room; "
            "raise workers.cpus_each, lower workers.max, or give workers.count instead of min and max"
        )
