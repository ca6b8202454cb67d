"""Jobs on a real cluster that asks for a token: submitted as the README shows, followed, listed and stopped."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.jobs.conftest import BUCKET, ROOT, JobCluster
from tests.jobs.proxy import cutting_proxy

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.s3]

LINES = 240
TESTED = ["fold7", "fold8"]
"""What tasks are evaluated on where the official folds have no records, as here."""
LEFT_OUT = f"data.exclude_splits={json.dumps(TESTED)}"
_WAIT_S = 120.0


def shown_in_readme() -> str:
    section = (
        (ROOT / "README.md").read_text().partition("## Submit to a Ray cluster")[2].partition("\n## ")[0]
    )
    (commands,) = re.findall(r"^```bash\n(.*?)^```", section, re.M | re.S)
    return str(commands)


@dataclass
class Journey:
    """What was printed when the README's commands were run."""

    printed: str
    cluster: JobCluster


@pytest.fixture(scope="module")
def journey(job_cluster: JobCluster) -> Journey:
    """The README's commands, with the address and token of the cluster, and few steps."""
    commands = shown_in_readme()
    config = "pretrain-cpu-dev.yaml"
    for shown, ours in (
        ("http://HEAD:8265", job_cluster.address),
        ("~/cluster-token", str(job_cluster.token_path)),
        (config, f"{config} --set steps=6 --set log_every_steps=1 --set '{LEFT_OUT}'"),
    ):
        assert shown in commands, shown
        commands = commands.replace(shown, ours)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=ROOT, env=job_cluster.environment(), capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return Journey(done.stdout + done.stderr, job_cluster)


def test_pack_and_pretrain_run_as_shown(journey: Journey) -> None:
    assert "sending 2." in journey.printed, "a few kB"
    assert "353 ECGs in" in journey.printed
    assert "step 6/6" in journey.printed
    assert "model written to s3://ecgdist/runs/dev/model" in journey.printed
    assert "job first has ended well; its results are in s3://ecgdist/runs/dev" in journey.printed
    assert "Job 'raysubmit_" in journey.printed, "the plain `ray job submit` runs, too"


MODEL, CORPUS = "s3://ecgdist/runs/dev/model", "s3://ecgdist/corpora/ptb-xl"
_BATCH = {"lanes": 8, "global_batch": 64}
_SMALL: dict[str, Any] = {
    "steps": 2,
    "epochs": None,
    "engine": {"precision": "fp32"},
    "workers": {"count": 2, "accelerator": "cpu", "cpus_each": 1},
}
_TUNING = _SMALL | {"model": MODEL, "data": _BATCH}
_ARMS = _SMALL | {"encoder": {"size": "tiny"}, "data": _BATCH | {"exclude_splits": TESTED}}
OTHERS: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "finetune": ("finetune.yaml", _TUNING, "step 2/2", "runs/tuned/model/model.safetensors"),
    "evaluate": ("evaluate.yaml", {"model": MODEL}, "macro AUROC", "evaluations/hybrid-base.html"),
    "embed": ("embed.yaml", {"model": MODEL}, "353 embeddings", "embeddings/hybrid-base/embedding.json"),
    "sweep": (
        "sweep-cpu-dev.yaml",
        {"finetune": {"steps": 2, "epochs": None}, "trials": 1},
        "best model:",
        "sweeps/dev/report.html",
    ),
    "compare": (
        "compare.yaml",
        {"pretrain": _ARMS, "seeds": [0], "arms": {"GL": {"contrastive": {"weight": 0}}}},
        "macro AUROC",
        "comparisons/objectives/comparison.json",
    ),
    "benchmark": (
        "benchmark-sample.yaml",
        {
            "model": MODEL, "corpus": CORPUS, "out": "s3://ecgdist/benchmark", "tasks": ["ptbxl-super"], "steps": 2,
            "looks": 1, "modes": ["linear", "finetune"], "label_shares": [1.0], "label_seeds": [0],
        },
        "macro AUROC",
        "benchmark/benchmark.json",
    ),
}  # fmt: skip
"""Of each other command: its configuration, what is smaller here, and what it prints and leaves in the bucket."""


@pytest.mark.parametrize("command", OTHERS)
def test_every_other_command_is_a_job_too(journey: Journey, command: str) -> None:
    config, changes, said, left = OTHERS[command]
    words = [word for setting in settings(changes) for word in ("--set", setting)]
    done = journey.cluster.ecgdist("submit", command, f"jobs/configs/{config}", *words)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert said in done.stdout
    assert f"s3://{BUCKET}/{left}" in dict(objects(journey.cluster))


def settings(values: Mapping[str, Any], under: str = "") -> Iterator[str]:
    """``--set`` of each of these values."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from settings(value, f"{under}{name}.")
        else:
            yield f"{under}{name}={json.dumps(value)}"


def test_jobs_are_listed_with_what_they_are(journey: Journey) -> None:
    done = journey.cluster.ecgdist("jobs", "list", "--json")
    by_id = {job["id"]: job for job in json.loads(done.stdout)}
    first = by_id["first"]
    assert (first["command"], first["state"], first["exit_status"]) == ("pretrain", "SUCCEEDED", 0)
    assert first["out"] == "s3://ecgdist/runs/dev"
    assert first["seconds"] > 0
    assert {job["command"] for job in by_id.values()} >= {"pack", "pretrain"}
    logs = journey.cluster.ecgdist("jobs", "logs", "first")
    assert "step 6/6" in logs.stdout


def test_the_storage_keys_of_the_nodes_are_nowhere_afterwards(journey: Journey) -> None:
    """Neither in what was printed or is told of jobs, nor in any file of corpus, run or logs."""
    cluster = journey.cluster
    secrets = {cluster.s3.secret_key.encode()}
    listed = urllib.request.Request(
        f"{cluster.address}/api/jobs/", headers={"Authorization": f"Bearer {cluster.token_path.read_text()}"}
    )
    with urllib.request.urlopen(listed) as answer:
        jobs = answer.read()
    assert b'"first"' in jobs
    texts = {"printed": journey.printed.encode(), "jobs": jobs}
    texts |= {
        str(path): path.read_bytes()
        for path in cluster.nodes.folder.rglob("*")
        if path.is_file() and path != cluster.token_path
    }
    texts |= dict(objects(cluster))
    assert sum("job-driver-first" in name for name in texts) == 1, "logs are among them"
    assert sum(name.startswith(("s3://ecgdist/runs/", "s3://ecgdist/corpora/")) for name in texts) > 10
    secrets.add(cluster.token_path.read_bytes())
    found = {name for name, text in texts.items() if any(secret in text for secret in secrets)}
    assert found == set()


def objects(cluster: JobCluster) -> Iterator[tuple[str, bytes]]:
    """Everything that jobs have written, by its address."""
    storage = boto3.client(
        "s3",
        endpoint_url=cluster.s3.endpoint,
        aws_access_key_id=cluster.s3.access_key,
        aws_secret_access_key=cluster.s3.secret_key,
        region_name="us-east-1",
    )
    for page in storage.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for item in page["Contents"]:
            if not item["Key"].startswith("sources/"):
                content = storage.get_object(Bucket=BUCKET, Key=item["Key"])["Body"].read()
                yield f"s3://{BUCKET}/{item['Key']}", content


def start(cluster: JobCluster, job_id: str, folder: Path, python: str) -> None:
    """A job of a few lines of Python, which `ecgdist jobs stop` takes for a packing."""
    program = folder / "program.py"
    program.write_text(python)
    words = [
        "ray", "job", "submit", "--no-wait", "--submission-id", job_id, "--metadata-json", '{"command": "pack"}',
        "--", sys.executable, "-u", str(program),
    ]  # fmt: skip
    done = subprocess.run(words, env=cluster.environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_log_is_followed_over_broken_connections_with_every_line_once(
    job_cluster: JobCluster, tmp_path: Path
) -> None:
    program = (
        f"import time\nfor number in range({LINES}):\n    print('line', number, 'µV ✓', '.' * 40)\n"
        "    time.sleep(0.1)\nraise SystemExit(75)"
    )
    start(job_cluster, "talks", tmp_path, program)
    with cutting_proxy(job_cluster.port, 2500, 6000, 12000) as proxy:
        done = job_cluster.ecgdist(
            "jobs", "logs", "talks", "--follow", "--address", f"http://127.0.0.1:{proxy.port}"
        )
        assert proxy.cut == 3
    lines = [line for line in done.stdout.splitlines() if line.startswith("line ")]
    assert lines == [f"line {number} µV ✓ {'.' * 40}" for number in range(LINES)]
    assert done.stdout == job_cluster.ecgdist("jobs", "logs", "talks").stdout
    assert "the connection to the cluster broke" in done.stderr
    assert done.returncode == 75, "as the job's own"


def test_ctrl_c_leaves_a_job_running_and_says_how_to_stop_it(job_cluster: JobCluster, tmp_path: Path) -> None:
    start(job_cluster, "stays", tmp_path, "import time\nprint('ready')\nfor _ in range(600): time.sleep(1)")
    with (tmp_path / "out").open("wb") as sink, (tmp_path / "err").open("wb") as said:
        words = [sys.executable, "-m", "ecgdist.cli", "jobs", "logs", "stays", "--follow"]
        follower = subprocess.Popen(words, env=job_cluster.environment(), cwd=ROOT, stdout=sink, stderr=said)
        deadline = time.monotonic() + _WAIT_S
        while b"ready\n" not in (tmp_path / "out").read_bytes():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        follower.send_signal(signal.SIGINT)
        assert follower.wait(timeout=30) == 130
    told = (tmp_path / "err").read_text()
    assert "job stays goes on" in told
    assert "Traceback" not in told
    (stop,) = re.findall(r"`ecgdist (jobs stop [^`]*)`", told)
    stopped = job_cluster.ecgdist(*stop.split())
    assert (stopped.returncode, stopped.stdout) == (0, "job stays has ended\n"), stopped.stderr
    again = job_cluster.ecgdist(*stop.split())
    assert again.returncode == 1
    assert "job stays has ended already (STOPPED)" in again.stderr


def test_a_token_that_is_missing_or_wrong_is_said_in_a_sentence(
    job_cluster: JobCluster, tmp_path: Path
) -> None:
    (tmp_path / "wrong").write_text(64 * "0")
    for variables, expected in (
        ({"RAY_AUTH_MODE": "disabled"}, "asks for a token, and none was sent"),
        (
            {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "none")},
            "RAY_AUTH_MODE = token, but there is no token here",
        ),
        ({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "wrong")}, "refuses the token of this environment"),
    ):
        done = job_cluster.ecgdist("jobs", "list", **variables)
        assert done.returncode == 1
        assert expected in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert 64 * "0" not in done.stderr


def test_an_interpreter_that_is_not_there_is_said(job_cluster: JobCluster) -> None:
    words = ("jobs/configs/pack-cpu-dev.yaml", "--set", "out=s3://ecgdist/none", "--python", "no-python")
    done = job_cluster.ecgdist("submit", "pack", *words)
    assert done.returncode == 1
    assert "the cluster's head did not find the interpreter; name it with --python" in done.stderr
