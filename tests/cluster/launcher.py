"""What a cluster on AWS must hold to, as rules on a file for Ray's cluster launcher."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

Launcher = dict[str, Any]
Rule = Callable[[Launcher], Iterator[str]]

_CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "RAY_AUTH_TOKEN=",
    "PATIENT_KEY=",
)
_TOKEN_PATH = "RAY_AUTH_TOKEN_PATH"


def findings(launcher: Launcher) -> dict[str, list[str]]:
    """What each rule finds, by its name; rules that find nothing are left out."""
    found = {rule.__name__: list(rule(launcher)) for rule in RULES}
    return {name: texts for name, texts in found.items() if texts}


def environment(launcher: Launcher) -> dict[str, str]:
    """Variables that all containers get."""
    words = [word.removeprefix("--env=") for word in _options(launcher) if word.startswith("--env=")]
    return dict(word.split("=", 1) for word in words)


def filled_in(launcher: Launcher) -> Iterator[str]:
    """Nothing is left to be filled in."""
    for text in _texts(launcher):
        if "FILL-IN" in text:
            yield f"{text} is not filled in"


def image_by_digest(launcher: Launcher) -> Iterator[str]:
    """A tag may name another image tomorrow."""
    for name in ("image", "head_image", "worker_image"):
        image = launcher["docker"].get(name)
        if image is not None and not re.fullmatch(r"[\w.:/-]+@sha256:[0-9a-f]{64}", image):
            yield f"docker.{name} = {image} is not named by a digest"


def private_addresses(launcher: Launcher) -> Iterator[str]:
    """Nodes are reached inside of the network alone."""
    if not launcher["provider"].get("use_internal_ips"):
        yield "provider.use_internal_ips is not true: Ray would choose public subnets"
    for kind, node in _nodes(launcher):
        if not (node.get("SubnetIds") and node.get("SecurityGroupIds")):
            yield f"{kind}: without SubnetIds and SecurityGroupIds Ray chooses them itself"
        for interface in node.get("NetworkInterfaces", ()):
            if interface.get("AssociatePublicIpAddress"):
                yield f"{kind}: a public address"


def encrypted_disks(launcher: Launcher) -> Iterator[str]:
    """ECGs and checkpoints lie on disks for a while."""
    for kind, node in _nodes(launcher):
        disks = [each.get("Ebs", {}) for each in node.get("BlockDeviceMappings", ())]
        if not disks or not all(disk.get("Encrypted") and disk.get("DeleteOnTermination") for disk in disks):
            yield f"{kind}: a disk is not encrypted, or stays when its machine goes"


def roles_not_keys(launcher: Launcher) -> Iterator[str]:
    """Machines act by their role; no key or token is written here."""
    profiles = set()
    for kind, node in _nodes(launcher):
        profile = node.get("IamInstanceProfile", {}).get("Arn")
        if profile is None:
            yield f"{kind}: no IamInstanceProfile"
        profiles.add(profile)
    if len(profiles) < len(launcher["available_node_types"]):
        yield "head and workers share a role: workers could start machines"
    for text in _texts(launcher):
        if any(name in text for name in _CREDENTIALS) or re.search(r"AKIA[0-9A-Z]{16}", text):
            yield "a key or token is written here"


def guarded_metadata(launcher: Launcher) -> Iterator[str]:
    """The role's credentials are given for requests with a session alone (IMDSv2)."""
    for kind, node in _nodes(launcher):
        if node.get("MetadataOptions", {}).get("HttpTokens") != "required":
            yield f"{kind}: MetadataOptions.HttpTokens is not required"


def spot_workers(launcher: Launcher) -> Iterator[str]:
    """Workers may go, the head may not."""
    for kind, node in _nodes(launcher):
        is_spot = node.get("InstanceMarketOptions", {}).get("MarketType") == "spot"
        if is_spot == (kind == launcher["head_node_type"]):
            yield f"{kind}: {'spot, but it is the head' if is_spot else 'not spot'}"


def ends_idle_machines(launcher: Launcher) -> Iterator[str]:
    """A GPU that nobody uses costs as much as one that trains."""
    if not 0 < launcher.get("idle_timeout_minutes", 0) <= 30:
        yield "idle_timeout_minutes is not between 1 and 30"
    if launcher["provider"].get("cache_stopped_nodes", True):
        yield "provider.cache_stopped_nodes: stopped machines keep their disks"
    for kind, node in launcher["available_node_types"].items():
        if node.get("min_workers", 0):
            yield f"{kind}: min_workers machines never end"


def asks_for_a_token(launcher: Launcher) -> Iterator[str]:
    """Whoever reaches a Ray without a token runs code on it (CVE-2023-48022)."""
    variables = environment(launcher)
    if variables.get("RAY_AUTH_MODE") != "token":
        yield "RAY_AUTH_MODE is not token"
    if variables.get(_TOKEN_PATH) not in launcher.get("file_mounts", {}):
        yield f"no file is mounted where {_TOKEN_PATH} looks"
    if not any("--dashboard-host=127.0.0.1" in each for each in launcher["head_start_ray_commands"]):
        yield "the dashboard is reached from other machines"


def leaves_time_to_save(launcher: Launcher) -> Iterator[str]:
    """A job that is stopped saves first."""
    if int(environment(launcher).get("RAY_JOB_STOP_WAIT_TIME_S", 3)) < 60:
        yield "RAY_JOB_STOP_WAIT_TIME_S is below 60"


def confined_containers(launcher: Launcher) -> Iterator[str]:
    """A job is a user of its container, not root of the machine."""
    needed = {"--user=1000:1000", "--cap-drop=ALL", "--security-opt=no-new-privileges"}
    if missing := needed - set(_options(launcher)):
        yield f"docker.run_options lacks {', '.join(sorted(missing))}"
    if any("--privileged" in option or "docker.sock" in option for option in _options(launcher)):
        yield "docker.run_options gives a container the machine"


RULES: tuple[Rule, ...] = (
    filled_in,
    image_by_digest,
    private_addresses,
    encrypted_disks,
    roles_not_keys,
    guarded_metadata,
    spot_workers,
    ends_idle_machines,
    asks_for_a_token,
    leaves_time_to_save,
    confined_containers,
)


def _nodes(launcher: Launcher) -> Iterator[tuple[str, dict[str, Any]]]:
    for kind, node in launcher["available_node_types"].items():
        yield kind, node["node_config"]


def _options(launcher: Launcher) -> list[str]:
    docker = launcher["docker"]
    return [
        option
        for name in ("run_options", "head_run_options", "worker_run_options")
        for option in docker.get(name, ())
    ]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield str(key)
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
