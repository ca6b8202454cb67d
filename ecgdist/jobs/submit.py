"""Submit a command as a Ray job: checked before anything is sent."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from ray.job_submission import JobSubmissionClient

from ecgdist.config import Config, build, merged, parse_overrides, read_yaml
from ecgdist.errors import ConfigError
from ecgdist.jobs.cluster import explained, look_over
from ecgdist.jobs.kinds import kind_of
from ecgdist.jobs.places import Settled, settle
from ecgdist.jobs.secrets import refuse_secrets
from ecgdist.jobs.upload import CONFIG, LIMIT_MB, SCRIPT, Upload, prepared

COMMAND, OUT, DIGEST = "command", "out", "config_sha256"
"""Keys of a job's metadata: its command, where its results will be, and a digest of its whole configuration."""


@dataclass(frozen=True)
class Options:
    """How a job is sent.

    Attributes:
        environment: variables of the job; see `ecgdist.jobs.secrets.job_environment`.
        python: interpreter on the cluster's head; None takes this one if the cluster is this machine, else ``python``.
        with_code: send this package along.
        shared_files: every node sees the local paths of the configuration.
        limit_mb: most that is sent.
        driver_cpus, driver_gpus: claimed for the process of the command itself.
        job_id: None makes one up.
    """

    environment: Mapping[str, str]
    python: str | None = None
    with_code: bool = False
    shared_files: bool = False
    limit_mb: float = LIMIT_MB
    driver_cpus: float = 0
    driver_gpus: float = 0
    job_id: str | None = None


@dataclass(frozen=True)
class JobRequest:
    """A command with its configuration, ready to be sent.

    Attributes:
        command: a key of `ecgdist.jobs.kinds.KINDS`.
        config: validated, with all defaults.
        settled: what is sent of it.
    """

    command: str
    config: Config
    settled: Settled

    @classmethod
    def load(cls, command: str, file: str | None, overrides: Sequence[str] = ()) -> JobRequest:
        """Read and check a configuration.

        Raises:
            ConfigError: for a wrong key or value, or one that holds credentials.
        """
        kind, origin = kind_of(command), file or "configuration"
        values = merged(read_yaml(file) if file else {}, parse_overrides(overrides))
        refuse_secrets(values, origin)  # before a message about a wrong value could show one
        build(kind.config(), values, origin)
        settled = settle(values, kind)
        return cls(command, build(kind.config(), settled.values, origin), settled)

    @property
    def out(self) -> str:
        """Folder or file of the results; empty if they are only printed."""
        return getattr(self.config, "out", None) or ""

    @property
    def digest(self) -> str:
        """SHA-256 of the whole configuration."""
        text = json.dumps(self.config.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def metadata(self) -> dict[str, str]:
        """What the cluster's list of jobs says of it."""
        return {
            COMMAND: self.command,
            OUT: self.out,
            DIGEST: self.digest,
            "ecgdist": metadata.version("ecgdist"),
            "ray": metadata.version("ray"),
        }

    def new_id(self) -> str:
        """A name for the job, which says what it is."""
        folder = re.sub(r"[^A-Za-z0-9]+", "-", self.out.rstrip("/").rpartition("/")[2]).strip("-")[:40]
        return "-".join(part for part in (self.command, folder, secrets.token_hex(3)) if part)

    def check_places(self, address: str) -> None:
        """Refuse local paths, for a cluster of other machines.

        Raises:
            ConfigError: naming them.
        """
        if self.settled.local:
            named = ", ".join(f"{key} = {path}" for key, path in self.settled.local)
            raise ConfigError(
                f"the cluster at {address} is not this machine alone, and its nodes would look for these on their own "
                f"disks: {named}; put them into s3://, or add --shared-files if all nodes see them at the same path"
            )

    def prepared(self, options: Options) -> AbstractContextManager[Upload]:
        """What would be sent, for the time of a block."""
        return prepared(self.settled.values, self.settled.files, options.with_code)


def entrypoint_of(command: str, python: str) -> str:
    """What the cluster's shell runs."""
    return shlex.join([python, SCRIPT, command, CONFIG])


def submit(
    request: JobRequest,
    options: Options,
    client: JobSubmissionClient,
    address: str,
    say: Callable[[str], None],
) -> str:
    """Send a job to a cluster. Returns its id.

    Raises:
        ConfigError: if the cluster cannot be used, or would not find what the configuration names, or the files are
            too large; nothing has been sent then.
    """
    with request.prepared(options) as upload:
        upload.check_size(options.limit_mb)
        is_here, warnings = look_over(address)
        for warning in warnings:
            say(f"warning: {warning}")
        if not (is_here or options.shared_files):
            request.check_places(address)
        python = options.python or (sys.executable if is_here else "python")
        say(f"sending {upload}")
        return _send(client, request, options, upload, entrypoint_of(request.command, python))


def _send(
    client: JobSubmissionClient, request: JobRequest, options: Options, upload: Upload, entrypoint: str
) -> str:
    environment: dict[str, Any] = {
        "working_dir": str(upload.working_dir),
        "env_vars": dict(options.environment),
    }
    if upload.modules:
        environment["py_modules"] = [str(module) for module in upload.modules]
    job_id = options.job_id or request.new_id()
    address = client.get_address()
    try:
        with explained(address):
            sent: str = client.submit_job(
                entrypoint=entrypoint,
                submission_id=job_id,
                runtime_env=environment,
                metadata=request.metadata,
                entrypoint_num_cpus=options.driver_cpus or None,
                entrypoint_num_gpus=options.driver_gpus or None,
            )
            return sent
    except RuntimeError as error:
        raise ConfigError(
            f"the cluster at {address} does not take job {job_id}: {_last_line(error)}"
        ) from error


def _last_line(error: RuntimeError) -> str:
    """Of a traceback that the dashboard sends in place of a sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else type(error).__name__
