"""What a pretraining run will take on any number of workers: hours, bytes, memory and money, in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ecgdist.config import Config
from ecgdist.planning.communication import Network, step_traffic
from ecgdist.planning.layout import RunLayout
from ecgdist.planning.memory import (
    StateMemory,
    WorkerMemory,
    checkpoint_bytes,
    stage_of,
    state_table,
    worker_memory,
)
from ecgdist.planning.rates import Rate, StreamRate
from ecgdist.planning.reading import read_amplification

WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
"""Numbers of workers that are planned for where none are asked for."""


@dataclass(frozen=True)
class Circumstances:
    """What a plan takes for granted.

    Attributes:
        rate: of training, of one worker.
        stream: of reading, of one worker.
        network: between workers.
        storage_bytes_per_s: what storage gives to all workers together; None: it is no limit.
        price_per_gpu_hour: of one worker's hour, in whatever money; None: unknown.
    """

    rate: Rate
    stream: StreamRate
    network: Network = field(default_factory=Network)
    storage_bytes_per_s: float | None = None
    price_per_gpu_hour: float | None = None


class WorkerEstimate(Config):
    """A run on some number of workers. Times are of one step."""

    workers: int
    zero_stage: int
    rows: int
    """ECGs of the busiest worker in a step."""
    compute_s: float
    communicate_s: float
    stream_s: float
    step_s: float
    bound: Literal["compute", "communication", "stream"]
    """What takes most of a step."""
    ecg_per_s: float
    efficiency: float
    """Speed over that of one worker, by the number of workers."""
    hours: float
    gpu_hours: float
    cost: float | None
    sent_bytes: float
    """By each worker in a step."""
    storage_bytes_per_s: float
    """What storage must give to all workers together."""
    memory: WorkerMemory


class PretrainEstimate(Config):
    """What a run will take: an estimate, not a promise."""

    ecgs: int
    """Selected rows of the corpus."""
    steps: int
    global_batch: int
    epochs: float
    ecgs_seen: int
    """Rows of all steps."""
    parameters: int
    gflop_per_ecg: float
    total_pflop: float
    rate: Rate
    stream: StreamRate
    read_bytes: float | None
    """Over the whole run, by as many workers as are configured; None without a corpus."""
    read_amplification: float
    checkpoint_bytes: float
    checkpoints_kept_bytes: float
    """At once, at most, while a new one is written."""
    by_workers: list[WorkerEstimate]
    not_possible: dict[int, str]
    """Numbers of workers that the run cannot have, and why."""
    state_memory: list[StateMemory]
    price_per_gpu_hour: float | None
    assumptions: list[str]


def estimate_pretraining(
    layout: RunLayout, given: Circumstances, workers: Sequence[int] = WORKERS
) -> PretrainEstimate:
    """Reckon what a run will take.

    Args:
        layout: the run.
        given: speeds, network and price.
        workers: numbers of workers.
    """
    order, config = layout.order, layout.config
    possible = [number for number in sorted(set(workers)) if number <= order.lanes]
    alone = _on_workers(layout, given, 1, None)
    by_workers = [_on_workers(layout, given, number, alone.ecg_per_s) for number in possible]
    amplification = read_amplification(
        order, layout.whole_rows, config.data.stream, min(config.workers.most, order.lanes)
    )
    seen = layout.total_steps * order.global_batch
    checkpoint = checkpoint_bytes(layout)
    kept = config.checkpoint.keep_last + 1 + (config.checkpoint.keep_best is not None)
    read = None if layout.ecg_bytes is None else seen * amplification * layout.ecg_bytes
    return PretrainEstimate(
        ecgs=order.num_rows,
        steps=layout.total_steps,
        global_batch=order.global_batch,
        epochs=layout.total_steps / order.steps_per_epoch,
        ecgs_seen=seen,
        parameters=layout.parameters,
        gflop_per_ecg=layout.flops_per_ecg / 1e9,
        total_pflop=seen * layout.flops_per_ecg / 1e15,
        rate=given.rate,
        stream=given.stream,
        read_bytes=read,
        read_amplification=amplification,
        checkpoint_bytes=checkpoint,
        checkpoints_kept_bytes=kept * checkpoint,
        by_workers=by_workers,
        not_possible={
            number: f"needs data.lanes of at least {number}; it is {order.lanes}"
            for number in sorted(set(workers))
            if number > order.lanes
        },
        state_memory=state_table(layout, possible),
        price_per_gpu_hour=given.price_per_gpu_hour,
        assumptions=_assumptions(layout, given),
    )


def _on_workers(
    layout: RunLayout, given: Circumstances, workers: int, alone_ecg_per_s: float | None
) -> WorkerEstimate:
    """A run on so many workers; `alone_ecg_per_s` is the speed of one, None for itself."""
    order = layout.order
    stage = stage_of(layout.config, layout.parameters, workers)
    rows = len(order.positions_of(0, workers))
    traffic = step_traffic(layout, stage, workers)
    compute_s = rows / given.rate.ecg_per_s
    communicate_s = given.network.seconds(traffic, workers)
    stream_s, storage_bytes = _stream(layout, given, workers, rows)
    step_s = max(compute_s + communicate_s, stream_s)
    times = {"compute": compute_s, "communication": communicate_s, "stream": stream_s}
    bound = "stream" if step_s == stream_s else max(("compute", "communication"), key=times.__getitem__)
    hours = layout.total_steps * step_s / 3600
    speed = order.global_batch / step_s
    return WorkerEstimate.model_validate(
        {
            "workers": workers,
            "zero_stage": stage,
            "rows": rows,
            "compute_s": compute_s,
            "communicate_s": communicate_s,
            "stream_s": stream_s,
            "step_s": step_s,
            "bound": bound,
            "ecg_per_s": speed,
            "efficiency": 1.0 if alone_ecg_per_s is None else speed / (alone_ecg_per_s * workers),
            "hours": hours,
            "gpu_hours": hours * workers,
            "cost": None if given.price_per_gpu_hour is None else hours * workers * given.price_per_gpu_hour,
            "sent_bytes": traffic.sent_bytes(workers),
            "storage_bytes_per_s": storage_bytes / step_s,
            "memory": worker_memory(layout, workers),
        }
    )


def _stream(layout: RunLayout, given: Circumstances, workers: int, rows: int) -> tuple[float, float]:
    """Seconds to read a step's rows, and the bytes that all workers together fetch for it."""
    fetched = layout.order.global_batch * read_amplification(
        layout.order, layout.whole_rows, layout.config.data.stream, workers
    )
    num_bytes = fetched * (layout.ecg_bytes or 0.0)
    own_s = rows / given.stream.ecg_per_s
    shared_s = 0.0 if given.storage_bytes_per_s is None else num_bytes / given.storage_bytes_per_s
    return max(own_s, shared_s), num_bytes


def _assumptions(layout: RunLayout, given: Circumstances) -> list[str]:
    """What the numbers stand on, in sentences."""
    network, rate, stream = given.network, given.rate, given.stream
    storage = (
        "storage gives all workers together what they ask for (--storage-gbit sets a limit)"
        if given.storage_bytes_per_s is None
        else f"storage gives all workers together {given.storage_bytes_per_s * 8 / 1e9:g} Gbit/s"
    )
    return [
        f"training: {rate.ecg_per_s:,.4g} ECG/s of one {rate.kind}, {rate.basis} ({rate.source}); "
        "the same however few rows a worker has in a step",
        f"a step takes max(reading, computing + communicating): reading is hidden behind the other two, and no "
        f"communication behind computing; the busiest of W workers has ceil({layout.order.lanes} lanes / W) lanes",
        f"reading: {stream.ecg_per_s:,.0f} ECG/s of one worker's stream ({stream.source}), and {storage}",
        f"communication: rings over links of {network.bytes_per_s * 8 / 1e9:g} Gbit/s each way and "
        f"{network.latency_s * 1e6:g} µs a message ({network.source}); an all-reduce sends 2 (W-1)/W of its bytes "
        "(Patarasuk and Yuan 2009), a gather or scatter (W-1)/W; how often each happens in a step is counted in "
        "DeepSpeed 0.19.8, keys and counts of the contrast left out",
        "memory: weights, gradients and optimizer as ZeRO divides them (Rajbhandari et al. 2020, section 5) and as "
        "DeepSpeed 0.19.8 keeps them; activations by what autograd saves in one micro-batch, attention as fused "
        "kernels do (Dao et al. 2022); no temporary values, no fragmentation, no CUDA context",
        "no time for starting, checkpoints, evaluation, failures or resizing: a run is all its steps without a stop",
    ]
