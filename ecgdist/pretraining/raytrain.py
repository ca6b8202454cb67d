"""Ray Train, as a run uses it: what the cluster must have, and workers that come, go and come back."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError

from ecgdist.errors import ConfigError, TrainingError
from ecgdist.lease import Lease
from ecgdist.pretraining.config import TrainConfig
from ecgdist.pretraining.console import Mailbox
from ecgdist.pretraining.controller import GiveNotice
from ecgdist.pretraining.nodes import check_node
from ecgdist.pretraining.notices import HeedSigterm
from ecgdist.pretraining.stopping import Cause, Stopped
from ecgdist.raytools import find_user_error
from ecgdist.scratch import scratch_folder
from ecgdist.timelimits import COUNTED_AGAIN_S, DRAINED_S

_SETTINGS = {
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": f"{COUNTED_AGAIN_S:g}",
    # A drain notice may come half a minute before the end.
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1",
}
"""Ray Train's own settings, where the environment does not say otherwise."""
_SHOWN = 300
"""Letters of Ray's words for a lost worker that an error quotes."""


def local_cpus(config: TrainConfig) -> int:
    """Logical CPUs that a local cluster needs for the run: for its workers, and for the read tasks that feed them.

    Of these there are two around the start of a segment.
    """
    return math.ceil(config.workers.most * (config.workers.cpus_each + 2 * config.data.stream.cpus_per_task))


def check_cluster(config: TrainConfig) -> bool:
    """Refuse a cluster on which workers would wait for a GPU, or for the CPUs of the tasks that read for them.

    Returns:
        Whether the workers get a GPU each. It is decided once: a run whose last GPU node has been taken away waits for
        another, instead of going on, hundreds of times slower, on the CPUs that are left.

    Raises:
        ConfigError: saying what there is and what is needed.
    """
    return check_resources(config, [node["Resources"] for node in ray.nodes() if node["Alive"]])


def check_resources(config: TrainConfig, nodes: Sequence[Mapping[str, float]]) -> bool:
    """`check_cluster` for a cluster whose nodes have these resources, by Ray's names.

    Raises:
        ConfigError: saying what there is and what is needed.
    """
    workers, stream = config.workers, config.data.stream
    gpus, cpus = (sum(node.get(kind, 0) for node in nodes) for kind in ("GPU", "CPU"))
    if workers.accelerator == "gpu" and gpus < 1:
        raise ConfigError(
            "workers.accelerator = gpu, but the cluster has no GPU; use auto or cpu, or add GPU nodes"
        )
    needed = workers.least * (workers.cpus_each + stream.cpus_per_task)
    if cpus < needed:
        raise ConfigError(
            f"the cluster has {cpus:g} CPUs; {workers.least} workers with workers.cpus_each = "
            f"{workers.cpus_each:g} and a read task of {stream.cpus_per_task:g} CPUs each need {needed:g}"
        )
    on_gpus = workers.accelerator != "cpu" and gpus >= 1
    if workers.is_elastic:
        for node in nodes:
            check_node(config, node.get("CPU", 0), node.get("GPU", 0) if on_gpus else None)
    return on_gpus


TrainLoop = Callable[[dict[str, Any]], Stopped | None]
"""What every worker runs; see `worker.run_worker`."""


def train(
    loop: TrainLoop,
    config: TrainConfig,
    on_gpus: bool,
    mailbox: Mailbox,
    lease: Lease,
    say: Callable[[str], None],
) -> Stopped | None:
    """Train until the run is done or asked to stop; workers that had to leave start again where there is room.

    Args:
        loop: what every worker runs.
        config: of the run.
        on_gpus: whether each worker gets a GPU, from `check_cluster`.
        mailbox: where workers speak to the driver.
        lease: of the run.
        say: tells the user a sentence.

    Returns:
        How far training came if it was asked to stop, None otherwise.

    Raises:
        EcgdistError: that a worker met, as itself.
    """
    start, died = 0, 0
    while True:
        try:
            # Ray's own notes of a run are not what resuming reads. On this machine, every start has its own, and none
            # needs storage that may be away just then.
            with scratch_folder("raytrain") as notes:
                trainer = _trainer(loop, config, on_gpus, mailbox, lease, start, notes)
                stopped = _fit(trainer, config.workers.max_failures)
        except ray.train.ControllerError as error:
            # Ray Train 2.60 gives up when a worker dies between its set-up and the call of the training function.
            died += 1
            dies = isinstance(error.controller_failure, ray.exceptions.RayActorError)
            if not dies or died > config.workers.max_failures:
                raise
            say("a worker died while it was started; starting again")
        else:
            if stopped is None or stopped.cause is Cause.ASKED:
                return stopped
            say(f"{stopped}; starting again")
            _wait_for_drained_nodes()
        start += 1


def _fit(trainer: TorchTrainer, max_failures: int) -> Stopped | None:
    try:
        stopped: Stopped | None = trainer.fit().return_value
    except ray.train.TrainingFailedError as error:
        found = find_user_error(error) or _lost_workers(error, max_failures)
        if found is None:
            raise
        raise found from error
    return stopped


def _lost_workers(error: ray.train.TrainingFailedError, max_failures: int) -> TrainingError | None:
    """What to tell of workers that were killed too often; None if none was. What the others then meet says nothing."""
    failures = error.worker_failures if isinstance(error, ray.train.WorkerGroupError) else {}
    lost = {
        rank: failure
        for rank, failure in failures.items()
        if isinstance(failure, (WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError))
    }
    if not lost:
        return None
    rank = min(lost)
    return TrainingError(
        f"workers were lost more often than workers.max_failures = {max_failures} allows, at last the one of rank "
        f"{rank} ({' '.join(str(lost[rank]).split())[:_SHOWN]}). Look what ends them, often too little memory; the "
        "same command goes on from the last checkpoint"
    )


def _trainer(
    loop: TrainLoop,
    config: TrainConfig,
    on_gpus: bool,
    mailbox: Mailbox,
    lease: Lease,
    start: int,
    notes: Path,
) -> TorchTrainer:
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    workers = config.workers
    trainer = TorchTrainer(
        loop,
        train_loop_config={
            "config": config.model_dump(mode="json"),
            "mailbox": mailbox,
            "attempt": lease.attempt,
            "lease_token": lease.token,
        },
        torch_config=TorchConfig(backend="nccl" if on_gpus else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=(workers.least, workers.most) if workers.is_elastic else workers.most,
            elastic_resize_monitor_interval_s=workers.resize_check_s,
            use_gpu=on_gpus,
            resources_per_worker={"CPU": workers.cpus_each} | ({"GPU": 1.0} if on_gpus else {}),
        ),
        run_config=ray.train.RunConfig(
            name=f"attempt-{lease.attempt}-{start}",
            storage_path=os.fspath(notes),
            failure_config=ray.train.FailureConfig(max_failures=workers.max_failures),
            callbacks=[GiveNotice(), HeedSigterm()],
        ),
    )
    # Ray reserves what workers need in the name of this id, and for three minutes after a controller's death, which no
    # other run may use: under the same id, the next start of this run takes over what the dead one had.
    run_id = hashlib.sha256(config.out.encode()).hexdigest()[:32]
    object.__setattr__(trainer.train_run_context, "run_id", run_id)
    return trainer


def _wait_for_drained_nodes() -> None:
    deadline = time.monotonic() + DRAINED_S
    while time.monotonic() < deadline and ray._private.state.state.get_draining_nodes():
        time.sleep(0.5)
