"""`cluster/local.sh`: what it starts works as its README says, and it ends all of that and nothing else."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.cluster.tools import tool

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "cluster").glob("*.sh"))
README = (ROOT / "cluster/README.md").read_text()


class Local:
    """The script in a folder of its own, which looks like the root of the repository to it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state = folder, folder / ".cluster"
        (folder / "cluster").symlink_to(ROOT / "cluster")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_"))}
        self.environment = clean | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        }

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.bash(shlex.join(["cluster/local.sh", *words]))

    def bash(self, script: str) -> subprocess.CompletedProcess[str]:
        """A script in the folder."""
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=550,
        )  # fmt: skip

    def exported(self) -> dict[str, str]:
        """What ``env`` exports."""
        return dict(re.findall(r"^export (\w+)=(.*)$", self("env").stdout, re.M))

    def leader(self, name: str) -> int:
        """The process that was started under this name."""
        return int((self.state / f"{name}.process").read_text().split()[1])


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Local]:
    made = Local(tmp_path)
    yield made
    made("down")


def in_sessions(leaders: set[int]) -> list[psutil.Process]:
    """Processes that belong to what these have started."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) in leaders and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_shellcheck_finds_nothing(script: Path) -> None:
    done = subprocess.run([tool("shellcheck"), str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("words", [(), ("start",), ("up", "now"), ("down", "up")])
def test_what_it_does_not_understand_shows_how_it_is_used(local: Local, words: tuple[str, ...]) -> None:
    done = local(*words)
    assert done.returncode == 2
    assert "usage: cluster/local.sh up" in done.stderr


def test_what_does_not_run_is_said_to_not_run(local: Local) -> None:
    assert local("down").stdout == "nothing runs\n"
    status = local("status")
    assert status.returncode == 1
    assert status.stdout.count("does not run") == 3
    assert "`cluster/local.sh up`" in local("env").stderr
    assert "is not a number of CPUs" in local("up", "--cpus", "many").stderr


def test_a_start_that_fails_leaves_nothing_and_says_why(local: Local) -> None:
    programs = local.folder / "programs"
    programs.mkdir()
    (programs / "weed").write_text("#!/bin/sh\necho there is no room on the disk\nsleep 0.5\nexit 1\n")
    (programs / "weed").chmod(0o755)
    local.environment["PATH"] = f"{programs}:{local.environment['PATH']}"
    done = local("up")
    assert done.returncode == 1
    assert "there is no room on the disk" in done.stderr
    assert not local.state.exists()
    assert "there is no room" in (local.folder / ".cluster.failed/s3.log").read_text()


def test_two_at_a_time_are_refused(local: Local) -> None:
    done = local.bash("exec 9>.cluster.lock; flock 9; cluster/local.sh up 9>&-")
    assert done.returncode == 1
    assert "another cluster/local.sh is at work" in done.stderr


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.s3
def test_it_starts_once_and_ends_all_of_it(local: Local) -> None:
    up = local("up", "--cpus", "2")
    assert up.returncode == 0, up.stdout + up.stderr
    leaders = {local.leader(name) for name in ("s3", "head", "worker")}
    assert psutil.Process(local.leader("worker")).environ()["MALLOC_ARENA_MAX"] == "2"
    assert "nothing was started" in local("up").stdout
    assert {local.leader(name) for name in ("s3", "head", "worker")} == leaders
    _check_secrets(local, up.stdout)
    bystander = subprocess.Popen(["sleep", "300"], start_new_session=True)
    try:
        assert local("status").returncode == 0
        os.kill(local.leader("worker"), signal.SIGKILL)  # what it has started lives on for a while
        assert local("status").returncode == 1
        refused = local("up")
        assert refused.returncode == 1
        assert "`cluster/local.sh down` first" in refused.stderr
        assert local("down").stdout == "all of it has ended\n"
        assert in_sessions(leaders) == []
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
    assert not local.state.exists()


def _check_secrets(local: Local, said: str) -> None:
    """Files are for their owner alone, nothing is printed, and nobody gets in without the token."""
    token = (local.state / "token").read_text()
    keys = re.findall(r"= (\w+)", (local.state / "credentials").read_text())
    assert len(token) == 64
    for name in ("token", "credentials", "s3.json"):
        assert (local.state / name).stat().st_mode & 0o777 == 0o600
    assert local.state.stat().st_mode & 0o777 == 0o700
    shown = said + local("env").stdout + local("status").stdout
    assert not any(secret in shown for secret in (token, *keys))
    url = f"{local.exported()['RAY_API_SERVER_ADDRESS']}/api/jobs/"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(url, timeout=30)
    asked = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    assert urllib.request.urlopen(asked, timeout=30).status == 200


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.s3
def test_the_readme_works_as_shown(local: Local) -> None:
    section = README.partition("## On one machine")[2].partition("\n## ")[0]
    (script,) = re.findall(r"^```bash\n(.*?)^```", section, re.M | re.S)
    done = local.bash(script)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "4 workers, ZeRO stage 2" in done.stdout
    assert "model written to s3://ecg/run/model" in done.stdout
    assert done.stdout.endswith("all of it has ended\n")
