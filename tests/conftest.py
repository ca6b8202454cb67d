"""What tests share: a real S3 server, a local Ray cluster, and the shipped ECGs packed once."""

from __future__ import annotations

import json
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
import ray
import torch
from botocore.exceptions import BotoCoreError, ClientError
from typer.testing import CliRunner

from ecgdist.cli import app
from ecgdist.corpus import Corpus
from ecgdist.packing import PackConfig, pack
from ecgdist.preprocessing import PackStep
from ecgdist.raytools import CLUSTER_SETTINGS
from ecgdist.sample import sample_folder
from tests.pretraining.processes import Groups, Processes

# Tests share two cores; a thread pool per process would only make them wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
torch.set_num_threads(1)


@dataclass(frozen=True)
class S3Server:
    """A running SeaweedFS with one bucket, named ``ecg``.

    Attributes:
        access_key, secret_key: of who may do everything.
        reader_access_key, reader_secret_key: of who may read and list, not write.
    """

    endpoint: str
    access_key: str
    secret_key: str
    reader_access_key: str
    reader_secret_key: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which any client finds it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def free_port_with_grpc() -> int:
    """A free port whose port + 10000 is free too: SeaweedFS puts its gRPC service there."""
    while True:
        port = free_port()
        if port > 50000:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port + 10000))
            except OSError:
                continue
        return port


@contextmanager
def seaweedfs(folder: Path, volume_mb: int = 64, address: str = "127.0.0.1") -> Iterator[S3Server]:
    """SeaweedFS on free ports, with its files in `folder` (20 volumes at most); it takes seconds to start."""
    access, secret = "tester", secrets.token_hex(16)
    reader, reader_secret = "reader", secrets.token_hex(16)
    identities = [
        {
            "name": "tests",
            "credentials": [{"accessKey": access, "secretKey": secret}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        },
        {
            "name": "reader",
            "credentials": [{"accessKey": reader, "secretKey": reader_secret}],
            "actions": ["Read", "List"],
        },
    ]
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    (folder / "data").mkdir()
    s3_port, master, volume, filer = (free_port_with_grpc() for _ in range(4))
    command = [
        str(Path(sys.executable).with_name("weed")), "server", f"-dir={folder / 'data'}",
        f"-ip={address}", f"-ip.bind={address}", f"-master.port={master}", f"-volume.port={volume}",
        "-filer", f"-filer.port={filer}", "-s3", f"-s3.port={s3_port}", f"-s3.config={folder / 's3.json'}",
        "-volume.max=20", f"-master.volumeSizeLimitMB={volume_mb}", "-s3.port.iceberg=0", "-s3.port.lance=0",
    ]  # fmt: skip
    # It would take the keys of another server, which a test has set, for its own.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=folder, env=environment, start_new_session=True
        )
    server = S3Server(f"http://{address}:{s3_port}", access, secret, reader, reader_secret)
    try:
        _create_bucket(server, process, folder / "log")
        yield server
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One S3 server for the whole session."""
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


def _create_bucket(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server answers and takes an object."""
    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name="us-east-1",
    )
    deadline = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(server.endpoint, timeout=2).close()
        except urllib.error.HTTPError:
            pass  # it answers: an anonymous request is refused
        except OSError as error:
            _still_starting(process, deadline, log, error)
            continue
        try:
            if "ecg" not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
                client.create_bucket(Bucket="ecg")
            client.put_object(Bucket="ecg", Key="probe/ready", Body=b"yes")
        except (BotoCoreError, ClientError) as error:
            _still_starting(process, deadline, log, error)
            continue
        return


def _still_starting(process: subprocess.Popen[bytes], deadline: float, log: Path, error: Exception) -> None:
    if process.poll() is not None or time.monotonic() > deadline:
        raise RuntimeError(f"SeaweedFS did not start ({error}):\n{log.read_text()[-3000:]}")
    time.sleep(0.3)


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The S3 server, with the environment pointing at it."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server


_BEGAN = time.monotonic()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--begin-within-s",
        type=float,
        help="skip, and say so, what would begin later than so many seconds after the start",
    )


_GROUPS = Groups()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if "processes" not in getattr(item, "fixturenames", ()):
        _GROUPS.close()
    most_s = item.config.getoption("--begin-within-s")
    if most_s is not None and time.monotonic() - _BEGAN > most_s:
        pytest.skip(f"there was no time left for it within {most_s:.0f} s")


def pytest_sessionfinish() -> None:
    _GROUPS.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests without a Ray cluster or an S3 server first: their processes and those servers share 6 GiB badly.

    Of these, the ones that share groups of processes come last, one after the other. What time may be too short for
    comes at the end of all.
    """
    servers = {"ray_cluster", "s3_server"}

    def rank(item: pytest.Item) -> tuple[bool, ...]:
        fixtures = set(getattr(item, "fixturenames", ()))
        return (
            item.get_closest_marker("extra") is not None,
            bool(servers & fixtures),
            "processes" in fixtures,
        )

    items.sort(key=rank)


@pytest.fixture(scope="session")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Processes]:
    """``processes(2)`` is a group of two processes, started when a test first asks for one.

    They are kept until a test comes that does not ask for any, whose own processes need the memory.
    """
    return lambda world_size: _GROUPS.of_size(world_size, tmp_path_factory)


@pytest.fixture(scope="session")
def ray_cluster(s3_server: S3Server) -> Iterator[None]:
    """One local Ray cluster for the session, whose workers know the S3 server; `ray_session` joins it."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment.items():
            patch.setenv(name, value)
        ray.init(
            address="local",
            num_cpus=4,
            object_store_memory=200_000_000,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.WARNING,
            _system_config=dict(CLUSTER_SETTINGS),  # Ray writes into it
        )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def sample_corpus(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The shipped ECGs, packed at 100 Hz into 15 shards of one row group. Not to be changed by a test."""
    config = PackConfig(
        sources=(f"ptbxl={sample_folder()}",),
        out=str(tmp_path_factory.mktemp("sample") / "corpus"),
        pack=PackStep(rate_hz=100.0),
        records_per_shard=24,
    )
    return pack(config).corpus


DEMO_STEPS = 20


@pytest.fixture(scope="session")
def demo(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a short demo, and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    result = CliRunner().invoke(app, ["demo", "--out", str(folder), "--steps", str(DEMO_STEPS)])
    assert result.exit_code == 0, result.output
    return folder, result.output
