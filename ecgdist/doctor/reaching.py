"""Whether something answers at an address."""

from __future__ import annotations

import socket
import time

from ecgdist.doctor.finding import Finding


def reached(check: str, host: str, port: int, timeout_s: float, advice: str) -> Finding:
    """Whether a connection comes about, and how soon.

    Args:
        check: what is looked at, in a few words.
        host: to connect to.
        port: to connect to.
        timeout_s: how long to wait.
        advice: what to do if none does.
    """
    began = time.perf_counter()
    try:
        socket.create_connection((host, port), timeout=timeout_s).close()
    except OSError as error:
        return Finding(
            check=check,
            level="error",
            measured=f"{host}:{port} cannot be reached ({error.strerror or error})",
            advice=advice,
        )
    seconds = time.perf_counter() - began
    return Finding(
        check=check,
        level="ok",
        measured=f"{host}:{port} reached in {1000 * seconds:.1f} ms",
        values={"connect_s": seconds},
    )
