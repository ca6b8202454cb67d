"""The little that every Ray job needs: a cluster to run on, and errors without Ray's wrapping."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray
import ray.data  # sets up its loggers when it is imported, so before they are made quiet

from ecgdist.errors import EcgdistError

_OBJECT_STORE_BYTES = 400_000_000
_NOISY = ("ray.data", "ray.train", "ray._private.authentication.authentication_token_setup")
"""Loggers that report the normal course of things as warnings."""


@contextmanager
def ray_session(num_cpus: int) -> Iterator[None]:
    """Connect to the cluster that ``RAY_ADDRESS`` names, or start a local one for the time of the block.

    Args:
        num_cpus: logical CPUs of a local cluster; they may exceed the cores, since training workers and the
            read tasks that feed them take turns.
    """
    if ray.is_initialized():
        yield
        return
    # The local dashboard and usage report are of no use to a short-lived cluster, and cost memory and time.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(logging.ERROR)
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False, logging_level=logging.WARNING)
    else:
        ray.init(
            address="local",
            num_cpus=num_cpus,
            object_store_memory=_OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.WARNING,
        )
    try:
        yield
    finally:
        ray.shutdown()


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
    """The `EcgdistError` in the chain of causes of `error`, if there is one."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        inner = getattr(current, "cause", None)
        if isinstance(inner, BaseException):
            # Ray's wrapper first: it takes on the class of what it wraps, but its text is a whole traceback.
            current = inner
        elif isinstance(current, EcgdistError):
            return current
        else:
            current = current.__cause__ or current.__context__
    return None
