"""`cluster/Dockerfile` is looked at, not built: by hadolint, by our rules, and beside the manifests that run it."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.cluster.dockerfile import RULES, findings, instructions
from tests.cluster.tools import tool

ROOT = Path(__file__).parents[2]
FILE = ROOT / "cluster/Dockerfile"
TEXT = FILE.read_text()


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run([tool("hadolint"), str(FILE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_keeps_every_rule() -> None:
    assert findings(TEXT) == {}


PLANTED = [
    ("base_is_chosen", "FROM ${BASE} AS build", "FROM python:3.11-slim AS build"),
    ("base_is_chosen", "ARG BASE\n\nFROM", "ARG BASE=python:3.11\n\nFROM"),
    ("base_is_chosen", "*@sha256:*", "*"),
    ("runs_as_a_user", "USER 1000:1000\n", ""),
    ("runs_as_a_user", "USER 1000:1000", "USER ecgdist"),
    ("pins_versions", "install -c constraints.txt '.", "install '."),
    ("no_build_tools", "rsync wget", "rsync wget build-essential"),
    ("no_build_tools", 'COMPILER=""', "COMPILER=g++"),
    ("asks_for_a_token", "RAY_AUTH_MODE=token", "RAY_AUTH_MODE=disabled"),
    ("keeps_memory_flat", "MALLOC_ARENA_MAX=2", "MALLOC_ARENA_MAX=16"),
    ("tells_its_health", "HEALTHCHECK", "LABEL"),
    ("says_what_it_is", "org.opencontainers.image.licenses", "licenses"),
    ("holds_no_secret", "PYTHONUNBUFFERED=1", "AWS_SECRET_ACCESS_KEY=x"),
    ("holds_no_secret", "COPY jobs /opt/ecgdist/jobs", "COPY . /opt/ecgdist"),
]


@pytest.mark.parametrize(("rule", "old", "new"), PLANTED)
def test_a_planted_violation_is_found_by_its_rule_and_no_other(rule: str, old: str, new: str) -> None:
    assert old in TEXT
    assert list(findings(TEXT.replace(old, new))) == [rule]


def test_every_rule_has_a_planted_violation() -> None:
    assert {rule.__name__ for rule in RULES} == {rule for rule, _, _ in PLANTED}


def test_everything_that_is_copied_is_there_and_sent_to_the_builder() -> None:
    sent = {
        line.removeprefix("!")
        for line in FILE.with_name("Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = {
        name
        for each in instructions(TEXT)
        if each.word == "COPY" and not each.text.startswith("--from")
        for name in shlex.split(each.text)[:-1]
    }
    assert copied == sent
    assert all((ROOT / name).exists() for name in copied)


def test_what_the_package_is_built_of_is_copied() -> None:
    """README and licences are named in pyproject.toml, and the build fails without them."""
    named = re.findall(
        r'"(LICENSE|[\w./-]+(?:NOTICE\.md|LICENSE\.txt)|README\.md)"', (ROOT / "pyproject.toml").read_text()
    )
    assert {"LICENSE", "README.md"} <= set(named)
    copied = " ".join(each.text for each in instructions(TEXT) if each.word == "COPY").split()
    assert all(name in copied or name.startswith("ecgdist/") for name in named)


def test_the_manifests_want_the_user_and_the_folders_of_the_image() -> None:
    last = {each.word: each.text for each in instructions(TEXT)}
    pods = list(_pods())
    assert len(pods) > 3
    for pod in pods:
        security = pod.get("securityContext", {})
        assert f"{security.get('runAsUser', 1000)}:{security.get('runAsGroup', 1000)}" == last["USER"]
        for container in pod["containers"]:
            if container.get("image") == "ecgdist":
                assert container.get("workingDir", last["WORKDIR"]) == last["WORKDIR"]
    scripts = set(
        re.findall(r"python (jobs/\w+\.py)", "".join(p.read_text() for p in (ROOT / "k8s").rglob("*.yaml")))
    )
    assert scripts
    assert all((ROOT / script).is_file() for script in scripts)
    assert f"COPY jobs {last['WORKDIR']}/jobs" in TEXT


def _pods() -> list[dict]:  # type: ignore[type-arg]
    found = []

    def look(value: object) -> None:
        if isinstance(value, dict):
            containers = value.get("containers")
            if isinstance(containers, list) and any(c.get("image") == "ecgdist" for c in containers):
                found.append(value)
            for each in value.values():
                look(each)
        elif isinstance(value, list):
            for each in value:
                look(each)

    for path in sorted((ROOT / "k8s").rglob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            look(document)
    return found
