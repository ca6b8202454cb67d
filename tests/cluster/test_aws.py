"""`cluster/aws.yaml` is what Ray's cluster launcher takes and what our rules ask; each rule finds what it is for."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.cluster.launcher import RULES, Launcher, environment, findings

ROOT = Path(__file__).parents[2]
FILE = ROOT / "cluster/aws.yaml"


def shipped() -> Launcher:
    content: Launcher = yaml.safe_load(FILE.read_text())
    return content


def filled() -> Launcher:
    """As somebody fills it in."""
    text = re.sub(r"sha256:FILL-IN-digest", f"sha256:{'ab' * 32}", FILE.read_text())
    content: Launcher = yaml.safe_load(re.sub(r"FILL-IN-([\w-]+)", r"my-\1", text))
    return content


def check_schema(launcher: Launcher) -> None:
    """As `ray up` does before it starts anything."""
    validate_config(prepare_config(copy.deepcopy(launcher)))


def test_ray_takes_it() -> None:
    check_schema(filled())


@pytest.mark.parametrize(
    "path",
    [
        ("docker", "imagee"),
        ("idle_minutes",),
        ("available_node_types", "gpu", "spot"),
    ],
)
def test_rays_schema_finds_a_misspelt_key(path: tuple[str, ...]) -> None:
    launcher = filled()
    place: Any = launcher
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = "x"
    with pytest.raises(jsonschema.ValidationError, match=path[-1]):
        check_schema(launcher)


def test_filled_in_it_keeps_every_rule() -> None:
    assert findings(filled()) == {}


def test_as_it_ships_it_cannot_pass_for_ready() -> None:
    assert set(findings(shipped())) == {"filled_in", "image_by_digest"}


def node(kind: str, **values: object) -> Callable[[Launcher], None]:
    def change(launcher: Launcher) -> None:
        launcher["available_node_types"][kind]["node_config"].update(values)

    return change


def part(name: str, **values: object) -> Callable[[Launcher], None]:
    return lambda launcher: launcher[name].update(values)


def top(**values: object) -> Callable[[Launcher], None]:
    return lambda launcher: launcher.update(values)


def option(old: str, new: str) -> Callable[[Launcher], None]:
    def change(launcher: Launcher) -> None:
        options = launcher["docker"]["run_options"]
        launcher["docker"]["run_options"] = [each.replace(old, new) for each in options]

    return change


PLANTED = [
    ("filled_in", part("provider", region="FILL-IN-region")),
    ("image_by_digest", part("docker", image="registry/ecgdist:latest")),
    ("private_addresses", part("provider", use_internal_ips=False)),
    ("private_addresses", node("gpu", SubnetIds=[])),
    ("private_addresses", node("gpu", NetworkInterfaces=[{"AssociatePublicIpAddress": True}])),
    ("encrypted_disks", node("gpu", BlockDeviceMappings=[{"Ebs": {"VolumeSize": 100}}])),
    ("encrypted_disks", node("head", BlockDeviceMappings=[])),
    ("roles_not_keys", node("gpu", IamInstanceProfile={})),
    ("roles_not_keys", node("gpu", IamInstanceProfile={"Arn": "my-arn-of-head-profile"})),
    ("roles_not_keys", option("AWS_DEFAULT_REGION=my-region", "AWS_SECRET_ACCESS_KEY=x")),
    ("roles_not_keys", top(setup_commands=["export KEY=AKIAABCDEFGHIJKLMNOP"])),
    ("guarded_metadata", node("head", MetadataOptions={"HttpTokens": "optional"})),
    ("spot_workers", node("gpu", InstanceMarketOptions={})),
    ("spot_workers", node("head", InstanceMarketOptions={"MarketType": "spot"})),
    ("ends_idle_machines", top(idle_timeout_minutes=600)),
    ("ends_idle_machines", part("provider", cache_stopped_nodes=True)),
    ("asks_for_a_token", option("RAY_AUTH_MODE=token", "RAY_AUTH_MODE=disabled")),
    ("asks_for_a_token", top(file_mounts={})),
    ("asks_for_a_token", top(head_start_ray_commands=["ray start --head --dashboard-host=0.0.0.0"])),
    ("leaves_time_to_save", option("RAY_JOB_STOP_WAIT_TIME_S=60", "RAY_JOB_STOP_WAIT_TIME_S=3")),
    ("confined_containers", option("--user=1000:1000", "--user=0")),
    ("confined_containers", option("--ulimit=nofile=65536:65536", "--privileged")),
]


@pytest.mark.parametrize(("rule", "change"), PLANTED)
def test_a_planted_violation_is_found_by_its_rule_and_no_other(
    rule: str, change: Callable[[Launcher], None]
) -> None:
    launcher = filled()
    change(launcher)
    assert list(findings(launcher)) == [rule]


def test_every_rule_has_a_planted_violation() -> None:
    assert {rule.__name__ for rule in RULES} == {rule for rule, _ in PLANTED}


def test_the_image_is_the_one_of_the_dockerfile() -> None:
    """Its user, its home, its variables."""
    dockerfile = (ROOT / "cluster/Dockerfile").read_text()
    assert "USER 1000:1000" in dockerfile
    assert "--create-home" in dockerfile
    assert environment(filled())["RAY_AUTH_TOKEN_PATH"].startswith("/home/ecgdist/")
    for name in ("RAY_AUTH_MODE", "RAY_JOB_STOP_WAIT_TIME_S", "RAY_USAGE_STATS_ENABLED"):
        assert f"{name}={environment(filled())[name]}" in dockerfile
