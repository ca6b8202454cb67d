"""Storage: everything that a run does with it is done once, under a name of its own, and timed."""

from __future__ import annotations

import os
import secrets
import statistics
import time
from collections.abc import Callable
from typing import TypeVar

from ecgdist.doctor.finding import Finding
from ecgdist.errors import StorageError
from ecgdist.storage import Location

_SMALL_BYTES, _LARGE_BYTES = 1_000, 8_000_000
_REPEATS = 5
_SLOW_S = 1.0
"""A small request that takes longer makes listings and checkpoints crawl."""
_SLOW_MB_PER_S = 10.0
"""An ECG takes 16 kB of a corpus: 600 of them a second."""

Result = TypeVar("Result")


def round_trip(folder: Location) -> list[Finding]:
    """Write, read, overwrite on a condition, list and delete below `folder`, which is left as it was.

    The first step that fails is an error, and those that need it are not tried.
    """
    probe = folder / f"ecgdist-doctor-{secrets.token_hex(8)}"
    findings: list[Finding] = []
    try:
        for step in (_write_and_read, _conditions, _listing):
            found = step(probe)
            findings.append(found)
            if found.level == "error":
                break
    finally:
        findings.append(_clean_up(folder, probe, any(one.level == "error" for one in findings)))
    return findings


def _write_and_read(probe: Location) -> Finding:
    check, small, large = "storage: write and read", os.urandom(_SMALL_BYTES), os.urandom(_LARGE_BYTES)
    try:
        writing = [_timed(lambda: (probe / "small").write_bytes(small))[0] for _ in range(_REPEATS)]
        large_write_s, _ = _timed(lambda: (probe / "large").write_bytes(large))
    except StorageError as error:
        return _failed("storage: write", error)
    try:
        reading = [_timed((probe / "small").read_bytes) for _ in range(_REPEATS)]
        large_read_s, content = _timed((probe / "large").read_bytes)
    except StorageError as error:
        return _failed("storage: read", error)
    if content != large or any(found != small for _, found in reading):
        return Finding(
            check=check,
            level="error",
            measured="what was read is not what was written",
            advice="do not use this storage",
        )
    values = {
        "write_latency_s": statistics.median(writing),
        "read_latency_s": statistics.median(seconds for seconds, _ in reading),
        "write_mb_per_s": _LARGE_BYTES / 1e6 / large_write_s,
        "read_mb_per_s": _LARGE_BYTES / 1e6 / large_read_s,
    }
    slow = (
        max(values["write_latency_s"], values["read_latency_s"]) > _SLOW_S
        or min(values["write_mb_per_s"], values["read_mb_per_s"]) < _SLOW_MB_PER_S
    )
    return Finding(
        check=check,
        level="warning" if slow else "ok",
        measured="1 kB in {write_latency_s:.3f} s and {read_latency_s:.3f} s, 8 MB at {write_mb_per_s:,.0f} and "
        "{read_mb_per_s:,.0f} MB/s".format(**values),
        advice="put workers near the storage: it is too slow to train from" if slow else None,
        values=values,
    )


def _conditions(probe: Location) -> Finding:
    """A run's lease needs writes that fail where the file is there already, or has changed."""
    check, file = "storage: conditional writes", probe / "conditional"
    try:
        seconds, created = _timed(lambda: file.exchange(None, b"first"))
        honoured = file.honours_conditions()
        changed = file.exchange(b"first", b"second")
        content = file.read_bytes()
    except StorageError as error:
        return _failed(check, error)
    if not (created and honoured and changed and content == b"second"):
        return Finding(
            check=check,
            level="error",
            measured="a write was done though its condition did not hold",
            advice="use storage that honours If-None-Match and If-Match: on this one, two processes could train in one "
            "run's folder",
        )
    return Finding(
        check=check, level="ok", measured=f"honoured, {seconds:.3f} s", values={"latency_s": seconds}
    )


def _listing(probe: Location) -> Finding:
    check = "storage: list"
    try:
        seconds, names = _timed(probe.list_files)
    except StorageError as error:
        return _failed(check, error)
    missing = {"small", "large", "conditional"} - set(names)
    if missing:
        return Finding(
            check=check,
            level="error",
            measured=f"{', '.join(sorted(missing))} was written and is not listed",
            advice="use storage whose listings are consistent: checkpoints are found by them",
        )
    return Finding(check=check, level="ok", measured=f"{seconds:.3f} s", values={"latency_s": seconds})


def _clean_up(folder: Location, probe: Location, has_failed: bool) -> Finding:
    """Remove the probe. After another failure, its own failure is no news, but what is left must be told."""
    check = "storage: delete"
    try:
        seconds, _ = _timed(probe.delete)
        left = probe.list_files()
    except StorageError as error:
        found = _failed(check, error)
        return found.model_copy(update={"level": "warning"}) if has_failed else found
    if left:
        return Finding(
            check=check,
            level="error",
            measured=f"{', '.join(left)} is still there",
            advice=f"allow deleting in {folder}, which removing old checkpoints needs, and remove {probe}",
        )
    return Finding(check=check, level="ok", measured=f"{seconds:.3f} s", values={"latency_s": seconds})


def _failed(check: str, error: StorageError) -> Finding:
    """A `StorageError` says what to do after its semicolon, and holds no secret."""
    what, _, advice = str(error).partition("; ")
    return Finding(check=check, level="error", measured=what, advice=advice or "see the message")


def _timed(action: Callable[[], Result]) -> tuple[float, Result]:
    began = time.perf_counter()
    result = action()
    return time.perf_counter() - began, result
