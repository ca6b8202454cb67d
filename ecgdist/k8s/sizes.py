"""How many pods a run or a sweep needs, and what each must have."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ecgdist.config import build
from ecgdist.downstream.sweep.config import LEADER_CPUS
from ecgdist.errors import ConfigError
from ecgdist.preprocessing import PackStep, Preprocessing
from ecgdist.pretraining.config import PretrainConfig, TrainConfig
from ecgdist.pretraining.nodes import check_node
from ecgdist.pretraining.zero import count_parameters, state_bytes
from ecgdist.record import NUM_LEADS

GIB = 2**30

_RAY_CPUS = 2
"""For Ray's own processes on a node, beside the CPUs that it gives away."""
_PROCESS_GIB = {"cpu": 1.5, "gpu": 4.0}
"""A training process before it holds a model. On CPU 1.1 GB were measured, with a tiny model (SOAK.md)."""
_READER_GIB = 1.5
"""A read task. 1.6 GB were measured, pages of the object store among them (SOAK.md)."""
_READERS = 2
"""Of one worker, around the start of a segment (`StreamLimits.cpus`)."""
_STATES = 2
"""Copies of the training state: the state itself, or what a GPU's is offloaded through, and a checkpoint's."""
_SPARE = 1.25
_NCCL_GIB = 1
"""Of /dev/shm for the GPUs of one pod to talk to each other, for each of them."""


@dataclass(frozen=True)
class Sizes:
    """The numbers of a group of equal pods that train.

    Attributes:
        least, most: pods.
        workers: training workers of one pod.
        gpus: of one pod, one for each worker; 0 on CPU.
        ray_cpus: logical CPUs that Ray may give away on one pod.
        store_gib: of one pod's object store.
        shm_gib: of /dev/shm: the object store, and room for GPUs to talk to each other.
        memory_gib: of one pod, /dev/shm among it.
    """

    least: int
    most: int
    workers: int
    gpus: int
    ray_cpus: int
    store_gib: int
    shm_gib: int
    memory_gib: int

    @property
    def cpus(self) -> int:
        """CPUs of one pod."""
        return self.ray_cpus + _RAY_CPUS

    @classmethod
    def of(
        cls,
        config: TrainConfig,
        workers_per_pod: int,
        on_gpu: bool,
        worker_gib: float | None = None,
        runs: int | None = None,
    ) -> Sizes:
        """Sizes for a run, or several of its kind at the same time.

        Args:
            config: of the run.
            workers_per_pod: at most; on GPUs, how many one machine has.
            on_gpu: whether each worker gets a GPU.
            worker_gib: memory for one worker with its read tasks; None reckons it, for pretraining.
            runs: as many at the same time, each led by a process of its own; None for one that is the job itself.

        Raises:
            ConfigError: if Ray would start more workers on a pod than it can feed, or memory cannot be reckoned.
        """
        workers, stream = config.workers, config.data.stream
        least, most = (runs or 1) * workers.least, (runs or 1) * workers.most
        each = min(workers_per_pod, most)
        leaders = LEADER_CPUS * (runs or 0)
        ray_cpus = math.ceil(each * (workers.cpus_each + _READERS * stream.cpus_per_task) + leaders)
        if workers.is_elastic:
            check_node(config, ray_cpus, each if on_gpu else None)
        gpus = each if on_gpu else 0
        store_gib = max(1, math.ceil(each * _READERS * stream.object_store_bytes / GIB))
        shm_gib = store_gib + max(1, gpus * _NCCL_GIB)
        return cls(
            least=math.ceil(least / each),
            most=math.ceil(most / each),
            workers=each,
            gpus=gpus,
            ray_cpus=ray_cpus,
            store_gib=store_gib,
            shm_gib=shm_gib,
            memory_gib=math.ceil(each * (worker_gib or _worker_gib(config, on_gpu))) + shm_gib,
        )


def _worker_gib(config: TrainConfig, on_gpu: bool) -> float:
    """Memory of one worker's processes, reckoned for a corpus of the default rate and length."""
    if not isinstance(config, PretrainConfig):
        raise ConfigError(
            "the memory of a worker that trains on labels depends on the model in its folder, which is not read here; "
            "give --worker-gib"
        )
    preprocessing = build(Preprocessing, {"pack": PackStep(), "device": config.device})
    parameters = count_parameters(config.encoder, config.objective, preprocessing.window_samples)
    row_bytes = 2 * NUM_LEADS * preprocessing.pack.num_samples
    rows = config.data.shuffle_rows / config.workers.least + _READERS * config.data.stream.kept_rows
    held_bytes = rows * row_bytes + _STATES * state_bytes(parameters, stage=0, workers=1)
    process_gib = _PROCESS_GIB["gpu" if on_gpu else "cpu"]
    return _SPARE * (process_gib + _READERS * _READER_GIB + held_bytes / GIB)
