"""What workers send each other in a step, and how long that takes."""

from __future__ import annotations

from dataclasses import dataclass

from ecgdist.planning.layout import RunLayout
from ecgdist.pretraining.step import micro_batches


@dataclass(frozen=True)
class Network:
    """Links between workers, each to its neighbour in a ring; the slowest decides.

    Attributes:
        bytes_per_s: of a link, in each direction.
        latency_s: from the start of a message to its arrival, beside its bytes.
        source: where these numbers come from.
    """

    bytes_per_s: float = 10e9 / 8
    latency_s: float = 50e-6
    source: str = "an assumption: --network-gbit and --latency-us set others"

    def seconds(self, traffic: Traffic, workers: int) -> float:
        """Time of a step's collective operations, one after the other, none hidden behind computing."""
        return sum(
            (all_reduce_s if is_reduced else gather_s)(num_bytes, workers, self)
            for num_bytes, is_reduced in traffic.operations
        )


@dataclass(frozen=True)
class Traffic:
    """Collective operations of a step: the bytes of each, and whether it is an all-reduce or half of one."""

    operations: tuple[tuple[float, bool], ...]

    @property
    def reduced_bytes(self) -> float:
        """Of all all-reduces together."""
        return sum(num_bytes for num_bytes, is_reduced in self.operations if is_reduced)

    @property
    def gathered_bytes(self) -> float:
        """Of all gathers and scatters together."""
        return sum(num_bytes for num_bytes, is_reduced in self.operations if not is_reduced)

    def sent_bytes(self, workers: int) -> float:
        """By each worker."""
        return (2 * self.reduced_bytes + self.gathered_bytes) * (workers - 1) / workers


def all_reduce_s(num_bytes: float, workers: int, network: Network) -> float:
    """Seconds of a ring all-reduce: 2 (W - 1) messages of 1/W of the bytes (Patarasuk and Yuan 2009, section 3)."""
    return 2 * gather_s(num_bytes, workers, network)


def gather_s(num_bytes: float, workers: int, network: Network) -> float:
    """Seconds of a ring all-gather or reduce-scatter: W - 1 messages of 1/W of the bytes (the same, section 3)."""
    messages = workers - 1
    return messages * (num_bytes / workers / network.bytes_per_s + network.latency_s)


def step_traffic(layout: RunLayout, stage: int, workers: int) -> Traffic:
    """What the workers of a run send each other in a step to train.

    Under stages 0 and 1 the gradients are reduced once, under stages 2 and 3 after every micro-batch; stages 1 and 2
    then gather the new weights. Stage 3 gathers the weights twice for every micro-batch (forward and backward), but for
    the small ones, which are gathered once a step, and all that the teacher follows once more. Rajbhandari et al. 2020,
    section 7, count alike, but for the all-reduce of stages 1 and 2: DeepSpeed 0.19.8 makes one where a scatter would
    do. What the contrast and the agreement of all ranks need is left out: a few kilobytes.

    Args:
        layout: the run.
        stage: of ZeRO.
        workers: that train together; a single one sends nothing.
    """
    if workers == 1:
        return Traffic(())
    size = layout.config.engine.compute_dtype.itemsize
    weights = float(layout.parameters * size)
    passes = micro_batches(layout.order, workers, layout.config.engine.micro_batch)
    passes *= layout.config.objective.student_passes
    if stage == 0:
        return Traffic(((weights, True),))
    if stage < 3:
        return Traffic((*[(weights, True)] * (1 if stage == 1 else passes), (weights, False)))
    whole = float(layout.whole_under_3 * size)
    followed = float(layout.teacher_parameters * size)
    gathers = [(weights - whole, False)] * (2 * passes) + [(weights, False)] * passes
    return Traffic((*gathers, (whole, False), (followed, False)))
