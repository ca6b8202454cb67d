"""The overlays as they are built, and as they are valid: with images by digest and a role for the bucket."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from ecgdist.k8s.manifests import Manifests, Object, build_overlay

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "k8s"
CONFIGS = ROOT / "jobs" / "configs"
NAMES = ("cpu-dev", "gpu", "gpu-spot", "airgapped")
IMAGE = "registry.example/ecgdist@sha256:" + "0123456789abcdef" * 4
REDIS_IMAGE = "registry.example/redis@sha256:" + "fedcba9876543210" * 4
ROLE = "arn:aws:iam::123456789012:role/ecgdist-bucket"


@cache
def _text(name: str) -> str:
    return json.dumps(build_overlay(FOLDER / "overlays" / name).objects)


def built(name: str) -> Manifests:
    """An overlay as `kubectl kustomize` makes it; a new copy each time."""
    return Manifests(json.loads(_text(name)))


def valid(name: str) -> Manifests:
    """An overlay with what it cannot know put in."""
    text = _text(name).replace('"image": "ecgdist"', f'"image": "{IMAGE}"')
    text = text.replace('"image": "redis"', f'"image": "{REDIS_IMAGE}"')
    return Manifests(json.loads(text.replace("arn:aws:iam::ACCOUNT:role/ROLE", ROLE)))


def one(manifests: Manifests, kind: str, name: str) -> Object:
    """The object of this kind and name."""
    (found,) = (each for each in manifests.of_kind(kind) if each["metadata"]["name"] == name)
    return found
