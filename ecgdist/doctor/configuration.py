"""A pretraining configuration against the cluster and the machine that it will run on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ecgdist.doctor.finding import Finding
from ecgdist.doctor.machine import (
    Machine,
    cores_finding,
    memory_finding,
    scratch_finding,
    shm_finding,
)
from ecgdist.errors import ConfigError, EcgdistError
from ecgdist.models.compiling import check_compiler
from ecgdist.planning.layout import RunLayout
from ecgdist.planning.memory import checkpoint_bytes, worker_memory
from ecgdist.pretraining.config import PretrainConfig
from ecgdist.pretraining.raytrain import check_resources, local_cpus
from ecgdist.raytools import OBJECT_STORE_BYTES

_UNEVEN = 0.05
"""Share of the workers' time that may be lost to lanes that do not divide evenly."""


def lanes_finding(lanes: int, workers: int) -> Finding:
    """Whether every worker has a lane, and as many as the others: a step takes as long as that of the busiest."""
    check = "lanes"
    if workers > lanes:
        return Finding(
            check=check,
            level="error",
            measured=f"{workers} workers for {lanes} lanes",
            advice=f"use at most {lanes} workers, or set data.lanes to {workers} or more in a new run",
        )
    busiest = math.ceil(lanes / workers)
    idle = 1 - lanes / (busiest * workers)
    measured = f"{lanes} lanes for {workers} workers, {busiest} for the busiest"
    if idle <= _UNEVEN:
        return Finding(check=check, level="ok", measured=measured, values={"idle_share": idle})
    as_fast = math.ceil(lanes / busiest)
    fewer = f"{as_fast} workers are as fast; or " if as_fast < workers else ""
    return Finding(
        check=check,
        level="warning",
        measured=f"{measured}: the others wait {idle:.0%} of the time",
        advice=f"{fewer}make data.lanes a multiple of {workers} in a new run",
        values={"idle_share": idle},
    )


def run_findings(
    config: PretrainConfig, machine: Machine, nodes: Sequence[Mapping[str, float]] | None = None
) -> list[Finding]:
    """What will go wrong with a run.

    Args:
        config: of the run.
        machine: this one, on which a local cluster would start.
        nodes: resources of the nodes of the cluster that it is for, by Ray's names; None for a local one.
    """
    findings = [lanes_finding(config.data.lanes, config.workers.most)]
    if nodes is None:
        findings += _local(config, machine)
    else:
        findings.append(_cluster(config, nodes))
        if not any(node.get("GPU", 0) for node in nodes):
            findings += _compiler(config)
    findings += _corpus(config, machine, is_local=nodes is None)
    return findings


def _local(config: PretrainConfig, machine: Machine) -> list[Finding]:
    findings = [
        shm_finding(machine, OBJECT_STORE_BYTES),
        cores_finding(machine, local_cpus(config), config.workers.most),
        _blocks(config, [OBJECT_STORE_BYTES], config.workers.most),
    ]
    return findings if machine.gpus else findings + _compiler(config)


def _cluster(config: PretrainConfig, nodes: Sequence[Mapping[str, float]]) -> Finding:
    check = "room on the cluster"
    cpus, gpus = (sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU"))
    try:
        check_resources(config, nodes)
    except ConfigError as error:
        return Finding(
            check=check,
            level="error",
            measured=str(error),
            advice="add nodes, or lower workers.count or workers.min",
        )
    workers = config.workers
    needed = workers.most * (workers.cpus_each + config.data.stream.cpus_per_task)
    measured = f"{cpus:g} CPUs and {gpus:g} GPUs, of which {workers.most} workers and their read tasks take {needed:g}"
    if cpus < needed or (gpus and workers.accelerator != "cpu" and gpus < workers.most):
        return Finding(
            check=check,
            level="warning",
            measured=measured,
            advice="training begins with fewer workers, or waits for nodes"
            if workers.is_elastic
            else "add nodes",
        )
    stores = [node.get("object_store_memory", 0.0) for node in nodes]
    blocks = _blocks(config, stores, workers.most)
    return blocks if blocks.level != "ok" else Finding(check=check, level="ok", measured=measured)


def _blocks(config: PretrainConfig, stores: Sequence[float], workers: int) -> Finding:
    """Whether what the streams of all workers may keep in the object stores has room there."""
    check, room = "object store", sum(stores)
    needed = workers * config.data.stream.object_store_bytes
    measured = f"streams may keep {needed / 1e9:.2f} GB in object stores of {room / 1e9:.2f} GB"
    if needed <= room:
        return Finding(check=check, level="ok", measured=measured)
    return Finding(
        check=check,
        level="warning",
        measured=f"{measured}: blocks may be spilled to disk",
        advice=f"lower data.stream.object_store_bytes to {int(room / workers / 1e6):,}_000_000".replace(
            ",", "_"
        ),
    )


def _compiler(config: PretrainConfig) -> list[Finding]:
    if not config.engine.compile:
        return []
    try:
        check_compiler()
    except ConfigError as error:
        return [Finding(check="compiler", level="error", measured=str(error), advice="install g++")]
    return [Finding(check="compiler", level="ok", measured="there is one")]


def _corpus(config: PretrainConfig, machine: Machine, is_local: bool) -> list[Finding]:
    """Whether the corpus can be opened and fits the run, and what the run's state takes."""
    try:
        layout = RunLayout.of_corpus(config)
    except EcgdistError as error:
        what, _, advice = str(error).partition("; ")
        return [
            Finding(check="corpus", level="error", measured=what, advice=advice or "pack it, or name another")
        ]
    order = layout.order
    measured = f"{order.num_rows:,} of {layout.whole_rows.sum():,} ECGs, {layout.total_steps:,} steps of "
    findings = [
        Finding(check="corpus", level="ok", measured=f"{measured}{order.global_batch:,}"),
        scratch_finding(machine, checkpoint_bytes(layout)),
    ]
    if is_local and not machine.gpus:
        workers = config.workers.most
        findings.append(memory_finding(machine, workers * worker_memory(layout, workers).total, workers))
    return findings
