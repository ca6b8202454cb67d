"""The little that every Ray job needs: a cluster to run on, and errors without Ray's wrapping."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import ray
import ray.data  # sets up its loggers when it is imported, so before they are made quiet

from ecgdist.errors import ConfigError, DataError, EcgdistError, StorageError, TrainingError

OBJECT_STORE_BYTES = 400_000_000
"""Of a local cluster."""
CLUSTER_SETTINGS = {
    # Ray ends idle workers after a second, and a start costs seconds; read tasks may come less often than that.
    "idle_worker_killing_time_threshold_ms": 5_000,
    # To make lost results again, Ray 2.60 keeps what a task was given; of a task that gives blocks one after the other,
    # for ever: about 30 kB of the object store for every segment of a stream. A result is lost with its node alone, and
    # with the one node of a local cluster all is lost.
    "lineage_pinning_enabled": False,
}
"""Ray's own settings of a local cluster."""
NODE_ENVIRONMENT = {
    # The local dashboard and usage report are of no use to a short-lived cluster, and cost memory and time.
    "RAY_USAGE_STATS_ENABLED": "0",
    # glibc spreads threads over eight arenas a core, and what is freed in one is not used in another: a process that
    # reads would gain 12 MB with every 1,000 steps of a small run. With two arenas it gains nothing.
    "MALLOC_ARENA_MAX": "2",
}
"""Variables of the processes of a local cluster, where the user does not say otherwise; `cluster/` sets them, too."""
_NOISY = ("ray.data", "ray.train", "ray._private.authentication.authentication_token_setup")
"""Loggers that report the normal course of things as warnings."""

_ERRORS: dict[str, type[EcgdistError]] = {
    error.__name__: error for error in (ConfigError, DataError, StorageError, TrainingError)
}
_ERROR_COLUMNS = ["error_class", "error_text"]


@contextmanager
def ray_session(num_cpus: int) -> Iterator[None]:
    """Connect to the cluster that ``RAY_ADDRESS`` names, or start a local one for the time of the block.

    Args:
        num_cpus: logical CPUs of a local cluster; they may exceed the cores, since training workers and the
            read tasks that feed them take turns.

    Raises:
        ConfigError: if ``RAY_ADDRESS`` names a cluster that does not answer.
    """
    if ray.is_initialized():
        yield
        return
    for name, value in NODE_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(logging.ERROR)
    if address := os.environ.get("RAY_ADDRESS"):
        _check_address(address)
        ray.init(log_to_driver=False, logging_level=logging.WARNING)
    else:
        ray.init(
            address="local",
            num_cpus=num_cpus,
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.WARNING,
            _system_config=dict(CLUSTER_SETTINGS),  # Ray writes into it
        )
    try:
        yield
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Ray itself would try for minutes to reach a cluster that is not there."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return  # "auto" and "local" are for Ray to understand
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise ConfigError(
            f"no Ray cluster answers at RAY_ADDRESS = {address}; start it, or unset it for a local one"
        ) from error


@contextmanager
def user_errors() -> Iterator[None]:
    """Raise the `EcgdistError` that a Ray task met as itself, not as the wrapped error of a remote task."""
    try:
        yield
    except (ray.exceptions.RayError, RuntimeError) as error:
        found = find_user_error(error)
        if found is None:
            raise
        raise found from error


def find_user_error(error: BaseException) -> EcgdistError | None:
    """The `EcgdistError` that `error` wraps or was caused by, if there is one."""
    return _search(error, set())


def _search(error: BaseException, seen: set[int]) -> EcgdistError | None:
    if id(error) in seen:
        return None
    seen.add(id(error))
    # What a wrapper holds comes first: Ray's take on the class of what they wrap, with a whole traceback as text.
    for inner in _held(error):
        if (found := _search(inner, seen)) is not None:
            return found
    if isinstance(error, EcgdistError):
        return error
    for earlier in (error.__cause__, error.__context__):
        if earlier is not None and (found := _search(earlier, seen)) is not None:
            return found
    return None


def _held(error: BaseException) -> Iterator[BaseException]:
    """Exceptions in the attributes of an exception: ``cause``, or Ray Train's ``worker_failures`` by rank."""
    for value in vars(error).values():
        for item in value.values() if isinstance(value, dict) else (value,):
            if isinstance(item, BaseException):
                yield item


def handing_over_errors(task: Callable[[dict[str, Any]], pa.Table]) -> Callable[[dict[str, Any]], pa.Table]:
    """A task for Ray Data that gives an `EcgdistError` as a block of its own, which `blocks` raises.

    Ray Data would print the traceback of a task that raises, and lose the class of its error on the way.
    """

    def run(batch: dict[str, Any]) -> pa.Table:
        try:
            return task(batch)
        except EcgdistError as error:
            return _error_block(error)

    return run


def handing_over_errors_on_the_way(
    task: Callable[[dict[str, Any]], Iterator[pa.Table]],
) -> Callable[[dict[str, Any]], Iterator[pa.Table]]:
    """`handing_over_errors` for a task that gives one block after the other: the error comes as the last."""

    def run(batch: dict[str, Any]) -> Iterator[pa.Table]:
        try:
            yield from task(batch)
        except EcgdistError as error:
            yield _error_block(error)

    return run


def _error_block(error: EcgdistError) -> pa.Table:
    kind = next(cls.__name__ for cls in type(error).__mro__ if cls.__name__ in _ERRORS)
    return pa.table(dict(zip(_ERROR_COLUMNS, ([kind], [str(error)]), strict=True)))


def blocks(dataset: ray.data.Dataset) -> Iterator[pa.Table]:
    """The blocks of a dataset whose tasks are `handing_over_errors`, as they lie in the object store.

    Raises:
        EcgdistError: the first that a task met.
    """
    # `iter_batches` would keep the last blocks for ever when it is not read to its end (seen with Ray 2.60).
    for bundle in dataset.iter_internal_ref_bundles():
        for entry in bundle.blocks:
            block = ray.get(entry.ref)
            if block.column_names == _ERROR_COLUMNS:
                ((kind, text),) = zip(*block.to_pydict().values(), strict=True)
                raise _ERRORS[kind](text)
            yield block
