"""Two nodes with addresses of their own, an S3 server beside them, and jobs through the Jobs API: from ECGs to a model.

The worker node is killed in the middle, and another one comes.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from ray.job_submission import JobStatus, JobSubmissionClient

from ecgdist.sample import sample_folder
from ecgdist.storage import Location
from tests.cluster.hosts import Network, network
from tests.conftest import free_port, seaweedfs
from tests.pretraining.proof_run import GLOBAL_BATCH, ROOT, ProofRun
from tests.pretraining.recorded import Line
from tests.ray_nodes import Nodes, ray_nodes

STEPS, EVERY = 220, 12
MICRO_BATCH = 4
"""Rows at a time: with so many steps, slow enough for a node to come while two workers train."""
_WAIT_S = 900.0
_CPUS = 4
"""Of a node: room for two workers and what reads for them."""


@dataclass
class Cluster:
    """The cluster, and how jobs are given to it."""

    network: Network
    nodes: Nodes
    dashboard: str
    folder: Path

    def submit(self, script: str, *words: str, **environment: str) -> str:
        """Submit ``jobs/SCRIPT.py WORDS``; the id of the job."""
        entrypoint = shlex.join([sys.executable, str(ROOT / f"jobs/{script}.py"), *words])
        env_vars = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment
        return self.client.submit_job(entrypoint=entrypoint, runtime_env={"env_vars": env_vars})

    @property
    def client(self) -> JobSubmissionClient:
        token = Path(self.nodes.environment["RAY_AUTH_TOKEN_PATH"]).read_text()
        return JobSubmissionClient(self.dashboard, headers={"Authorization": f"Bearer {token}"})

    def finish(self, job: str) -> str:
        """What the job said, when it has ended well."""
        deadline = time.monotonic() + _WAIT_S
        while not (status := self.client.get_job_status(job)).is_terminal():
            assert time.monotonic() < deadline, self.client.get_job_logs(job)[-3000:]
            time.sleep(0.5)
        logs = self.client.get_job_logs(job)
        assert status == JobStatus.SUCCEEDED, logs[-4000:]
        return logs

    def run(self, name: str) -> ProofRun:
        """A run of two to four workers in the bucket, whose rows are recorded in a folder of this machine."""
        run = ProofRun(self.folder / name, "s3://ecg/two/corpus", STEPS, out=f"s3://ecg/two/{name}")
        elastic = {"count": None, "min": 2, "max": 4, "resize_check_s": 5, "cpus_each": 1.5}
        run.configure(workers=elastic, checkpoint={"every_steps": EVERY}, engine={"micro_batch": MICRO_BATCH})
        return run

    def await_steps(self, job: str, run: ProofRun, steps: int, workers: int, since_s: float) -> None:
        """Until so many workers have trained so many steps."""
        deadline = time.monotonic() + _WAIT_S
        while True:
            run.watch.look()
            lines = [x for x in run.watch.lines if x.world_size == workers and x.time_s > since_s]
            if len({line.step for line in lines}) >= steps:
                return
            said = self.client.get_job_logs(job)
            assert not self.client.get_job_status(job).is_terminal(), said[-4000:]
            assert time.monotonic() < deadline, said[-4000:]
            time.sleep(0.3)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A head and a worker; the sample is packed into the bucket by a job."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "s3").mkdir()
    with (
        network(2) as hosts,
        seaweedfs(folder / "s3", volume_mb=512, address=hosts.address) as s3,
        ray_nodes() as nodes,
        pytest.MonkeyPatch.context() as patch,
    ):
        nodes.environment |= s3.environment | hosts.environment
        port = free_port()
        nodes.add(_CPUS, head=True, dashboard_port=port, host=hosts.hosts[0])
        nodes.add(_CPUS, host=hosts.hosts[1])
        for name, value in nodes.environment.items():
            patch.setenv(name, value)
        patch.delenv("RAY_ADDRESS")  # the Jobs API would take it for its own
        made = Cluster(hosts, nodes, f"http://{hosts.hosts[0].address}:{port}", folder)
        sizes = ("--set", "pack.rate_hz=100", "--set", "records_per_shard=24")
        said = made.finish(
            made.submit("pack", f"ptbxl={sample_folder()}", "--out", "s3://ecg/two/corpus", *sizes)
        )
        assert "353 ECGs in 15 shards" in said
        yield made


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.s3
@pytest.mark.timeout(3000)
def test_a_lost_worker_node_changes_neither_batches_nor_losses(cluster: Cluster) -> None:
    unbroken, run = cluster.run("unbroken"), cluster.run("broken")
    cluster.finish(cluster.submit("pretrain", str(unbroken.settings)))
    assert {line.world_size for line in _lines(unbroken)} == {4}
    job = cluster.submit("pretrain", str(run.settings))
    cluster.await_steps(job, run, 2 * EVERY + 3, workers=4, since_s=0.0)
    killed_s, lost = time.time(), cluster.nodes.nodes[1]
    cluster.nodes.remove(lost)
    cluster.await_steps(job, run, 3, workers=2, since_s=killed_s)
    cluster.nodes.add(_CPUS, host=cluster.network.hosts[1])
    cluster.await_steps(job, run, 3, workers=4, since_s=killed_s)
    assert "model written to s3://ecg/two/broken/model" in cluster.finish(job)
    history = run.history()
    assert history.batches == unbroken.history().batches
    assert (history.changed, history.lost(STEPS, GLOBAL_BATCH)) == ([], 0)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.nodes.environment.items():
            patch.setenv(name, value)
        losses, expected = ([row["loss"] for row in one.metrics()] for one in (run, unbroken))
        assert len(losses) == STEPS
        assert losses == pytest.approx(expected, rel=1e-4)
        assert (Location.of("s3://ecg/two/broken") / "model/model.safetensors").exists()


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.s3
@pytest.mark.timeout(1200)
def test_a_small_sweep_is_a_job(cluster: Cluster) -> None:
    """With a trial on each node, on a model that a job has trained."""
    run = cluster.run("for-sweep")
    run.configure(
        workers={"count": 2, "min": None, "max": None},
        engine={"micro_batch": 64},
        data={"exclude_splits": ["fold7", "fold8"]},  # what the sweep evaluates on
    )
    cluster.finish(cluster.submit("pretrain", str(run.settings), "--set", "steps=6"))
    sweep = {
        "finetune": {
            "model": "s3://ecg/two/for-sweep/model",
            "task": "ptbxl-super",
            "corpus": "s3://ecg/two/corpus",
            "epochs": 1,
            "data": {"lanes": 4, "global_batch": 32},
            "workers": {"count": 1, "accelerator": "cpu", "cpus_each": 2},
        },
        "space": {"optimizer.learning_rate": {"low": 0.0003, "high": 0.003, "log": True}},
        "trials": 2,
        "concurrent": 2,
    }
    settings = cluster.folder / "sweep.yaml"
    settings.write_text(yaml.safe_dump(sweep))
    said = cluster.finish(cluster.submit("sweep", str(settings), "--out", "s3://ecg/two/sweep"))
    assert "best model:" in said


def _lines(run: ProofRun) -> list[Line]:
    run.watch.look()
    return run.watch.lines
