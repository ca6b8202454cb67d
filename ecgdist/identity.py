"""Which process this is, and whether another one is dead: by facts of Linux that do not repeat."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ProcessIdentity:
    """A process.

    Attributes:
        machine: digest of the boot and of the PID namespace; within one, a process id means one thing.
        pid: process id in that namespace.
        started: clock ticks from boot to the start of the process; a process id is given again, but not with this.
    """

    machine: str
    pid: int
    started: int

    @classmethod
    def mine(cls) -> ProcessIdentity:
        """This process."""
        return cls(_machine(), os.getpid(), _started(os.getpid()) or 0)

    def is_visible_here(self) -> bool:
        """Whether it is or was a process that this one would see."""
        return self.machine == _machine()

    def is_dead_here(self) -> bool:
        """Whether it is certain that the process is gone; False where it cannot be seen from here."""
        return self.is_visible_here() and _started(self.pid) != self.started


def _machine() -> str:
    """A digest, so that no name or number of a machine gets into a run's folder."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    namespace = os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(f"{boot} {namespace}".encode()).hexdigest()[:16]


def _started(pid: int) -> int | None:
    """Start of a living process in clock ticks since boot (field 22 of ``/proc/PID/stat``), or None."""
    try:
        # The name, in parentheses, may hold spaces and parentheses itself.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    is_zombie = fields[0] in ("Z", "X")
    return None if is_zombie else int(fields[19])
