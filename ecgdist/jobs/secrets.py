"""Nothing secret goes along with a job: whoever may list a cluster's jobs reads their environment and configuration."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ecgdist.errors import ConfigError

STOP_WAIT = "RAY_JOB_STOP_WAIT_TIME_S"
"""How long Ray waits for a job that it stops before it kills it; 3 s if nobody says otherwise."""
STOP_WAIT_S = 60
"""Time for a checkpoint."""

_SECRET_NAME = re.compile(
    r"(SECRET|TOKEN|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL)S?(_|$)|KEYS?(_ID)?$", re.IGNORECASE
)
_NAMES_A_FILE = re.compile(r"_(FILE|PATH)$", re.IGNORECASE)
_SECRET_VALUE = re.compile(
    r"[a-z][a-z0-9+.-]*://[^/\s]*@"  # user and password in an address
    r"|\b(AKIA|ASIA)[0-9A-Z]{16}\b"  # id of an access key of AWS
    r"|[?&](X-Amz-(Signature|Credential|Security-Token)|sig)="  # a signed address
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----",
    re.IGNORECASE,
)
_ON_NODES = (
    "whoever may list the cluster's jobs could read it. Set it on the nodes instead, before `ray start`, or as a "
    "Secret of their pods"
)


def job_environment(given: Iterable[str], here: Mapping[str, str]) -> dict[str, str]:
    """The variables that go along with a job: those that were named, and the time to save; no other one from here.

    Args:
        given: ``NAME=VALUE``, or ``NAME`` for the value that it has here.
        here: the environment of this process.

    Raises:
        ConfigError: for a variable that looks like a secret by its name or value, one that is not set, or one given
            twice. No value is shown.
    """
    chosen: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
            raise ConfigError("--env takes NAME=VALUE, or NAME for a variable that is set here")
        if name in chosen:
            raise ConfigError(f"--env {name} is given twice; give it once")
        if _SECRET_NAME.search(name) and not _NAMES_A_FILE.search(name):
            raise ConfigError(f"--env {name} looks like a secret, and does not go along: {_ON_NODES}")
        if not equals and name not in here:
            raise ConfigError(f"--env {name}: it is not set here; write {name}=VALUE")
        chosen[name] = value if equals else here[name]
        if _SECRET_VALUE.search(chosen[name]):
            raise ConfigError(
                f"--env {name} holds what looks like credentials, and does not go along: {_ON_NODES}"
            )
    if not chosen.setdefault(STOP_WAIT, str(STOP_WAIT_S)).isdecimal():
        raise ConfigError(f"--env {STOP_WAIT} must be a whole number of seconds")
    return chosen


def refuse_secrets(values: Any, file: str) -> None:
    """Refuse a configuration that holds credentials.

    Raises:
        ConfigError: naming the setting, without its value.
    """
    for key, text in _texts(values, ""):
        if _SECRET_VALUE.search(text):
            raise ConfigError(f"{file}: {key} holds what looks like credentials: {_ON_NODES}")


def _texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """Every text at any depth, keys too, with its dotted name."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _texts(str(name), f"a key below {key or 'the top level'}")
            yield from _texts(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner, key)
