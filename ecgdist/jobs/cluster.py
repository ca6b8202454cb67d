"""A Ray cluster that takes jobs, reached through its dashboard."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

from ecgdist.doctor.cluster import examine_cluster, token
from ecgdist.doctor.versions import installed_version
from ecgdist.errors import ConfigError

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
ADDRESS = "RAY_API_SERVER_ADDRESS"
"""The variable that names the dashboard, as for `ray job submit`."""
_NOISY = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
"""Loggers that tell each step of a submission."""
_ANSWER_S = 60.0
"""Longest silence of the dashboard during a request."""
_TOKEN_HINT = "put the cluster's token into a file, and set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH=FILE"


class OutOfReach(ConfigError):  # noqa: N818 - it may pass
    """A cluster that does not answer; it may later."""


class _PatientClient(JobSubmissionClient):  # type: ignore[misc]  # Ray's classes are untyped here
    """Ray's client would wait for ever for a dashboard that has gone silent."""

    def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
        return super()._do_request(method, endpoint, **({"timeout": _ANSWER_S} | options))


def address_of(given: str | None, environment: Mapping[str, str]) -> str:
    """The dashboard's address: the one given, that of the environment, or Ray's usual one on this machine."""
    address = given or environment.get(ADDRESS) or environment.get("RAY_ADDRESS", "")
    return (address if address.startswith(("http://", "https://")) or given else DEFAULT_ADDRESS).rstrip("/")


def connect(address: str) -> JobSubmissionClient:
    """A client of the cluster whose dashboard is at `address`.

    Raises:
        ConfigError: if none answers there, or it does not take our token.
    """
    if not address.startswith(("http://", "https://")):
        raise ConfigError(f"{address!r} is no address of a dashboard; write http://HOST:8265")
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "token" and token(os.environ) is None:
        raise ConfigError(f"RAY_AUTH_MODE = token, but there is no token here: {_TOKEN_HINT}")
    # Ray would take RAY_ADDRESS, where that is set, rather than the address that it is given.
    os.environ[ADDRESS] = address
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        with explained(address):
            return _PatientClient(address)
    except (RuntimeError, KeyError) as error:
        raise ConfigError(
            f"what answers at {address} is no Ray dashboard, or that of a very old Ray; it looks like http://HOST:8265"
        ) from error


@contextmanager
def explained(address: str) -> Iterator[None]:
    """Say in a sentence why a cluster does not do what it is asked.

    Raises:
        ConfigError: instead of what Ray, and the libraries below it, raise; an `OutOfReach` if nothing answers.
    """
    try:
        yield
    except AuthenticationError as error:
        if "Authentication required" in str(error):
            raise ConfigError(
                f"the cluster at {address} asks for a token, and none was sent: {_TOKEN_HINT}"
            ) from None
        raise ConfigError(
            f"the cluster at {address} refuses the token of this environment (RAY_AUTH_TOKEN, or the file that "
            "RAY_AUTH_TOKEN_PATH names): it is another cluster's, or an old one"
        ) from None
    except OSError as error:  # also what `requests` raises
        raise OutOfReach(
            f"no Ray dashboard answers at {address} ({type(error).__name__}); it looks like http://HOST:8265"
        ) from error


def job_details(client: JobSubmissionClient, job_id: str) -> JobDetails:
    """What the cluster knows of a job.

    Raises:
        ConfigError: if it does not know it; an `OutOfReach` if it cannot say so.
    """
    address = client.get_address()
    try:
        with explained(address):
            return client.get_job_info(job_id)
    except RuntimeError as error:  # all that Ray makes of a status
        if "status code 404" in str(error):
            raise ConfigError(
                f"the cluster at {address} knows no job {job_id}; see `ecgdist jobs list`"
            ) from error
        raise OutOfReach(f"the cluster at {address} cannot say how job {job_id} is; try again") from error


def look_over(address: str) -> tuple[bool, list[str]]:
    """Whether all nodes of a cluster are this machine, and what to warn of.

    Raises:
        ConfigError: if it cannot be used: another Ray, no node, no token, an open dashboard in a public network.
    """
    cluster = examine_cluster(address, installed_version("ray"))
    for finding in cluster.findings:
        if finding.level == "error":
            raise ConfigError(f"{address}: {finding.check}: {finding.measured}; {finding.advice}")
    warnings = [f"{one.check}: {one.measured}" for one in cluster.findings if one.level == "warning"]
    return bool(cluster.hosts) and all(map(_is_own, cluster.hosts)), warnings


def _is_own(host: str) -> bool:
    """Whether an address is one of this machine."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True
