"""The whole examination."""

from __future__ import annotations

import os
from collections.abc import Callable

from ecgdist.doctor.cluster import Cluster, examine_cluster, local_authentication, ray_address_finding
from ecgdist.doctor.configuration import run_findings
from ecgdist.doctor.finding import Examination, Finding
from ecgdist.doctor.machine import Machine, gpu_finding, own_address_finding, shm_finding
from ecgdist.doctor.objectstorage import object_storage_findings
from ecgdist.doctor.roundtrip import round_trip
from ecgdist.doctor.versions import installed_version, version_findings
from ecgdist.errors import ConfigError
from ecgdist.pretraining.config import PretrainConfig
from ecgdist.raytools import OBJECT_STORE_BYTES
from ecgdist.storage import Location


def examine(
    read_config: Callable[[], PretrainConfig] | None = None,
    storage: str | None = None,
    address: str | None = None,
    machine: Machine | None = None,
) -> Examination:
    """Look at all that can be looked at without starting anything.

    Args:
        read_config: gives the configuration of a run; what it refuses is a finding.
        storage: a folder, local or s3://, to try; by default the one that holds the run's.
        address: of the dashboard of a Ray cluster.
        machine: this one; another one is for tests.
    """
    machine = machine or Machine.here()
    findings = version_findings()
    config = None
    if read_config is not None:
        try:
            config = read_config()
        except ConfigError as error:
            findings.append(
                Finding(check="configuration", level="error", measured=str(error), advice="correct it")
            )
    cluster = Cluster()
    if address is not None:
        cluster = examine_cluster(address, installed_version("ray"))
        findings += cluster.findings
        if len(cluster.nodes or ()) > 1 and not _wants_gpu(config):
            findings.append(own_address_finding(machine))
    else:
        findings.append(local_authentication(os.environ))
        if found := ray_address_finding(os.environ.get("RAY_ADDRESS", "")):
            findings.append(found)
    findings.append(gpu_finding(machine, _wants_gpu(config) and address is None))
    if config is not None:
        findings += run_findings(config, machine, cluster.nodes)
    elif address is None:
        findings.append(shm_finding(machine, OBJECT_STORE_BYTES))
    for where in _folders(storage, config):
        findings += _storage(where)
    return Examination(findings=tuple(findings))


def _wants_gpu(config: PretrainConfig | None) -> bool:
    return config is not None and config.workers.accelerator == "gpu"


def _folders(storage: str | None, config: PretrainConfig | None) -> list[Location]:
    """Where to try storage. The run's own folder would not be one any more, with something else in it."""
    if storage is not None:
        return [Location.of(storage)]
    if config is None:
        return []
    run = Location.of(config.out)
    parent = run.uri.rpartition("/")[0]
    return [run if run.is_s3 and parent in ("s3:/", "s3://") else Location.of(parent or "/")]


def _storage(where: Location) -> list[Finding]:
    before = object_storage_findings(where) if where.is_s3 else []
    if any(one.level == "error" for one in before):
        return before
    return before + round_trip(where)
