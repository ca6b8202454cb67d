"""This machine: shared memory, cores, memory, disk and GPUs."""

from __future__ import annotations

import ipaddress
import os
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from ecgdist.doctor.finding import Finding

_GB = 1e9


@dataclass(frozen=True)
class Machine:
    """What a machine has.

    Attributes:
        cores: that this process may use.
        shm_bytes: of ``/dev/shm``, all of it; None where there is none.
        memory_bytes: of main memory that is free for new processes.
        scratch_bytes: free where temporary files go.
        gpus: names of the GPUs that torch sees.
        has_nvidia: whether the driver of NVIDIA is there, whatever torch sees.
        nccl: version of NCCL, or None.
        own_address: that its name stands for, or None.
        gloo_interface: of ``GLOO_SOCKET_IFNAME``, or None.
    """

    cores: int
    shm_bytes: int | None
    memory_bytes: int
    scratch_bytes: int
    gpus: tuple[str, ...] = ()
    has_nvidia: bool = False
    nccl: str | None = None
    own_address: str | None = None
    gloo_interface: str | None = None

    @classmethod
    def here(cls) -> Machine:
        """The machine that this process runs on."""
        has_gpu = torch.cuda.is_available()
        return cls(
            cores=len(os.sched_getaffinity(0)),
            shm_bytes=_size("/dev/shm"),
            memory_bytes=_available_memory(),
            scratch_bytes=_free(tempfile.gettempdir()),
            gpus=tuple(torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count()))
            if has_gpu
            else (),
            has_nvidia=Path("/dev/nvidiactl").exists(),
            nccl=".".join(map(str, torch.cuda.nccl.version())) if has_gpu else None,  # type: ignore[no-untyped-call]
            own_address=_own_address(),
            gloo_interface=os.environ.get("GLOO_SOCKET_IFNAME"),
        )


def shm_finding(machine: Machine, object_store_bytes: int) -> Finding:
    """Whether Ray's object store fits into shared memory; Ray would put it on the disk, and the stream would crawl."""
    check = "shared memory"
    shm = 0 if machine.shm_bytes is None else machine.shm_bytes
    measured = f"/dev/shm has {shm / _GB:.2f} GB, the object store takes {object_store_bytes / _GB:.2f} GB"
    values = {"shm_bytes": float(shm), "object_store_bytes": float(object_store_bytes)}
    if shm >= object_store_bytes:
        return Finding(check=check, level="ok", measured=measured, values=values)
    return Finding(
        check=check,
        level="error",
        measured=measured,
        advice=f"give the container at least {1.1 * object_store_bytes / _GB:.2f} GB: --shm-size in Docker, an "
        "emptyDir with medium: Memory at /dev/shm in Kubernetes",
        values=values,
    )


def cores_finding(machine: Machine, logical_cpus: int, workers: int) -> Finding:
    """Whether the processes of a local cluster have a core each.

    Args:
        machine: that the cluster is started on.
        logical_cpus: of the local cluster, for its workers and their read tasks.
        workers: training processes, each of one thread.
    """
    measured = (
        f"{logical_cpus} logical CPUs, {workers} workers and their read tasks, on {machine.cores} cores"
    )
    if workers <= machine.cores:
        return Finding(check="cores", level="ok", measured=measured)
    return Finding(
        check="cores",
        level="warning",
        measured=measured,
        advice=f"workers will take turns; --workers {machine.cores} is as fast and takes less memory",
    )


def memory_finding(machine: Machine, needed_bytes: float, workers: int) -> Finding:
    """Whether the training state of all workers of a local cluster fits into memory."""
    free, needed = machine.memory_bytes / _GB, needed_bytes / _GB
    measured = f"{free:.1f} GB free, {workers} workers take {needed:.1f} GB by estimate"
    if needed_bytes <= machine.memory_bytes:
        return Finding(check="memory", level="ok", measured=measured)
    return Finding(
        check="memory",
        level="error",
        measured=measured,
        advice="lower engine.micro_batch or the number of workers, or choose a smaller encoder; see `ecgdist plan`",
    )


def scratch_finding(machine: Machine, checkpoint_bytes: float) -> Finding:
    """Whether a checkpoint has room where it is written before it is uploaded."""
    measured = f"{machine.scratch_bytes / _GB:.1f} GB free in {tempfile.gettempdir()}"
    if checkpoint_bytes <= machine.scratch_bytes:
        return Finding(check="temporary files", level="ok", measured=measured)
    return Finding(
        check="temporary files",
        level="error",
        measured=f"{measured}, a checkpoint takes {checkpoint_bytes / _GB:.1f} GB",
        advice="free some space, or set TMPDIR to a folder of a larger disk",
    )


def gpu_finding(machine: Machine, wanted: bool) -> Finding:
    """Whether torch sees GPUs, and NCCL to train on several.

    Args:
        machine: that is looked at.
        wanted: whether a run asks for GPUs (``workers.accelerator = gpu``) of this machine.
    """
    check = "GPUs"
    if machine.gpus:
        names = ", ".join(sorted(set(machine.gpus)))
        measured = f"{len(machine.gpus)} ({names}), NCCL {machine.nccl or 'missing'}"
        if machine.nccl is None and len(machine.gpus) > 1:
            return Finding(
                check=check,
                level="error",
                measured=measured,
                advice="install torch's CUDA build, which brings NCCL",
            )
        return Finding(check=check, level="ok", measured=measured)
    if machine.has_nvidia:
        return Finding(
            check=check,
            level="error" if wanted else "warning",
            measured=f"a driver of NVIDIA is there, and torch {torch.__version__} sees no GPU",
            advice="install torch's CUDA build, and a driver that is new enough for it",
        )
    return Finding(
        check=check,
        level="error" if wanted else "ok",
        measured="none on this machine",
        advice="run on a node with GPUs, or set workers.accelerator to auto or cpu" if wanted else None,
    )


def own_address_finding(machine: Machine) -> Finding:
    """Whether training processes of other machines can reach those of this one, on CPU.

    Gloo listens at the address that the machine's name stands for, unless it is told an interface.
    """
    check, address = "own address", machine.own_address
    if machine.gloo_interface is not None:
        return Finding(check=check, level="ok", measured=f"gloo uses {machine.gloo_interface}")
    if address is not None and not ipaddress.ip_address(address).is_loopback:
        return Finding(check=check, level="ok", measured=f"this machine's name stands for {address}")
    return Finding(
        check=check,
        level="warning",
        measured=f"this machine's name stands for {address or 'no address'}, where no other machine reaches it",
        advice="if it is a node that trains on CPU with others, set GLOO_SOCKET_IFNAME to the interface of its address "
        "(such as eth0) before `ray start`, there and on every node like it",
    )


def _own_address() -> str | None:
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return None


def _size(path: str) -> int | None:
    try:
        found = os.statvfs(path)
    except OSError:
        return None
    return found.f_frsize * found.f_blocks


def _free(path: str) -> int:
    found = os.statvfs(path)
    return found.f_frsize * found.f_bavail


def _available_memory() -> int:
    """Bytes that new processes may take: of the machine, or what the container's limit leaves, if that is less."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return free
    return free if limit == "max" else min(free, max(0, int(limit) - used))
