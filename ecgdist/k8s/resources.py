"""What Ray is told that a pod has, and what the pod has: they must agree, or Ray starts more than fits."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ecgdist.k8s.manifests import Manifests, Object, Pod, at, quantity
from ecgdist.timelimits import NOTICE_S as DRAIN_S

GPU = "nvidia.com/gpu"


def memory_is_not_overbooked(pod: Pod, container: Object) -> Iterator[str]:
    """A pod that was promised more than its node has is killed in the middle of a step."""
    asked, most = (at(container, f"resources.{key}", {}).get("memory") for key in ("requests", "limits"))
    if asked is None or most is None or quantity(asked) != quantity(most):
        yield f"memory: requests {asked}, limits {most}"


def cpus_are_requested(pod: Pod, container: Object) -> Iterator[str]:
    """Without a request, a container gets what others leave."""
    if at(container, "resources.requests", {}).get("cpu") is None:
        yield "no resources.requests.cpu"


def ray_cpus_fit(pod: Pod) -> Iterator[str]:
    """Ray starts as many tasks as it believes to have CPUs."""
    if not pod.is_ray_node:
        return
    told, has = pod.start.get("num-cpus"), at(pod.ray, "resources.requests", {}).get("cpu", 0)
    if told is None:
        yield "rayStartParams.num-cpus is not said"
    elif not 0 <= float(told) <= quantity(has):
        yield f"rayStartParams.num-cpus is {told}, resources.requests.cpu {has}"


def ray_gpus_fit(pod: Pod) -> Iterator[str]:
    """A GPU that Ray does not know is paid for and idle; one that is not there fails."""
    if pod.is_ray_node:
        told, has = pod.start.get("num-gpus", "0"), at(pod.ray, "resources.limits", {}).get(GPU, "0")
        if float(told) != quantity(has):
            yield f"rayStartParams.num-gpus is {told}, resources.limits of {GPU} {has}"


def head_takes_no_tasks(pod: Pod) -> Iterator[str]:
    """A task that uses up the head's memory ends the whole run."""
    if pod.role == "head" and pod.start.get("num-cpus") != "0":
        yield f"rayStartParams.num-cpus is {pod.start.get('num-cpus')}, not 0"


def object_store_fits_shm(pod: Pod) -> Iterator[str]:
    """Ray's object store lies in /dev/shm, by default 64 MB in a container: else it goes to disk, or breaks."""
    if not pod.is_ray_node:
        return
    told, shm = pod.start.get("object-store-memory"), _shm_bytes(pod)
    if told is None:
        yield "rayStartParams.object-store-memory is not said"
    elif shm is None:
        yield "/dev/shm is no emptyDir of medium Memory with a sizeLimit"
    elif float(told) > shm:
        yield f"rayStartParams.object-store-memory is {told}, the sizeLimit of /dev/shm {shm:.0f} bytes"


def shm_leaves_memory(pod: Pod) -> Iterator[str]:
    """/dev/shm counts as memory of its pod; processes need at least as much."""
    shm, memory = _shm_bytes(pod), at(pod.spec["containers"][0], "resources.limits", {}).get("memory")
    if pod.is_ray_node and shm is not None and memory is not None and 2 * shm > quantity(memory):
        yield f"/dev/shm may take {shm / 2**30:.3g} of {quantity(memory) / 2**30:.3g} GiB"


def scratch_fits(pod: Pod) -> Iterator[str]:
    """A volume that may grow beyond the pod's ephemeral storage has it evicted."""
    for volume in pod.spec.get("volumes", []):
        limit, most = (
            at(volume, "emptyDir.sizeLimit"),
            at(pod.ray, "resources.limits", {}).get("ephemeral-storage"),
        )
        if limit and most and at(volume, "emptyDir.medium") != "Memory" and quantity(limit) > quantity(most):
            yield f"volume {volume['name']} may take {limit}, ephemeral-storage is limited to {most}"


def worker_drains(pod: Pod) -> Iterator[str]:
    """Only what Ray knows to be leaving can save first: a container's SIGTERM says it to nobody."""
    if pod.role == "worker" and (seconds := _drain_s(pod)) is not None and seconds < DRAIN_S:
        yield f"its preStop gives Ray {seconds} s, less than {DRAIN_S:g}"
    if pod.role == "worker" and _drain_s(pod) is None:
        yield "it has no preStop with ray drain-node --deadline-remaining-seconds"


def grace_outlasts_drain(pod: Pod) -> Iterator[str]:
    """Kubernetes kills what has not ended after the grace period, drained or not."""
    grace = pod.spec.get("terminationGracePeriodSeconds", 30)
    if pod.is_ray_node and grace <= max(DRAIN_S, _drain_s(pod) or 0):
        yield f"terminationGracePeriodSeconds is {grace}, the drain takes {max(DRAIN_S, _drain_s(pod) or 0):g}"


def gpus_cannot_be_asked_alone(pod: Pod, container: Object) -> Iterator[str]:
    """Kubernetes gives whole GPUs: requests are limits."""
    asked, most = (at(container, f"resources.{key}", {}).get(GPU) for key in ("requests", "limits"))
    if asked != most:
        yield f"{GPU}: requests {asked}, limits {most}"


def groups_have_own_names(manifests: Manifests) -> Iterator[str]:
    """Groups of the same name in one cluster would be one group to Ray."""
    for cluster in manifests.clusters:
        names = [group["groupName"] for group in cluster.groups]
        yield from (f"{cluster.where}: group {n} twice" for n in sorted(set(names)) if names.count(n) > 1)


def _shm_bytes(pod: Pod) -> float | None:
    mounted = {each["name"] for each in pod.ray.get("volumeMounts", []) if each["mountPath"] == "/dev/shm"}
    for volume in pod.spec.get("volumes", []):
        if volume["name"] in mounted and at(volume, "emptyDir.medium") == "Memory":
            limit = at(volume, "emptyDir.sizeLimit")
            return None if limit is None else quantity(limit)
    return None


def _drain_s(pod: Pod) -> int | None:
    command = " ".join(at(pod.ray, "lifecycle.preStop.exec.command", []))
    found = re.search(r"ray drain-node .*--deadline-remaining-seconds (\d+)", command, re.S)
    return int(found[1]) if found else None


RULES = (groups_have_own_names,)
POD_RULES = (
    ray_cpus_fit,
    ray_gpus_fit,
    head_takes_no_tasks,
    object_store_fits_shm,
    shm_leaves_memory,
    scratch_fits,
    worker_drains,
    grace_outlasts_drain,
)
CONTAINER_RULES = (memory_is_not_overbooked, cpus_are_requested, gpus_cannot_be_asked_alone)
