"""Every rule: no valid overlay breaks it, and a planted violation breaks it and no other."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ecgdist.errors import ConfigError
from ecgdist.k8s import check as rules
from ecgdist.k8s.check import check
from ecgdist.k8s.manifests import Manifests, Object, build_overlay, quantity, read_manifests
from tests.k8s.overlays import FOLDER, IMAGE, NAMES, ROLE, built, one, valid

Plant = Callable[[Manifests], Any]


def job(manifests: Manifests, name: str = "pretrain") -> Object:
    return one(manifests, "RayJob", name)["spec"]


def cluster(manifests: Manifests) -> Object:
    return job(manifests)["rayClusterSpec"]


def head(manifests: Manifests) -> Object:
    return cluster(manifests)["headGroupSpec"]


def group(manifests: Manifests, number: int = 1) -> Object:
    return cluster(manifests)["workerGroupSpecs"][number]


def head_pod(manifests: Manifests) -> Object:
    return head(manifests)["template"]["spec"]


def worker_pod(manifests: Manifests) -> Object:
    return group(manifests)["template"]["spec"]


def worker(manifests: Manifests) -> Object:
    return worker_pod(manifests)["containers"][0]


def policy(manifests: Manifests, name: str) -> Object:
    return one(manifests, "NetworkPolicy", name)["spec"]


def security(manifests: Manifests) -> Object:
    return worker(manifests)["securityContext"]


def without(manifests: Manifests, kind: str, name: str) -> None:
    manifests.objects.remove(one(manifests, kind, name))  # type: ignore[attr-defined]


def add(manifests: Manifests, thing: Object) -> None:
    manifests.objects.append(thing)  # type: ignore[attr-defined]


def service(kind: str) -> Object:
    return {"kind": "Service", "metadata": {"name": "dashboard"}, "spec": {"type": kind}}


def env(thing: Object, name: str, value: str) -> None:
    thing["containers"][0]["env"].append({"name": name, "value": value})


def more_groups(manifests: Manifests, *names: str) -> None:
    """Groups of CPUs that differ in their names alone."""
    for name in names:
        text = json.dumps(group(manifests, 0)).replace('"ray.io/group": "cpu"', f'"ray.io/group": "{name}"')
        cluster(manifests)["workerGroupSpecs"].append(json.loads(text) | {"groupName": name})


def rename(manifests: Manifests, name: str) -> None:
    """Another name for the job that packs, which nothing else refers to."""
    one(manifests, "RayJob", "pack")["metadata"]["name"] = name


PLANTED: list[tuple[str, str, Plant]] = [
    # Pod Security
    ("namespace_is_restricted", "enforced at a lower level", lambda m: one(m, "Namespace", "ecgdist")["metadata"][
        "labels"].update({"pod-security.kubernetes.io/enforce": "baseline"})),
    ("no_host_namespaces", "host network", lambda m: worker_pod(m).update(hostNetwork=True)),
    ("no_host_namespaces", "host processes, of Redis", lambda m: one(m, "StatefulSet", "redis")["spec"]["template"][
        "spec"].update(hostPID=True)),
    ("only_safe_volumes", "host path", lambda m: worker_pod(m)["volumes"].append(
        {"name": "disk", "hostPath": {"path": "/mnt/disk"}})),
    ("only_safe_sysctls", "sysctl", lambda m: worker_pod(m)["securityContext"].update(
        sysctls=[{"name": "net.core.somaxconn", "value": "1024"}])),
    ("apparmor_annotation_is_safe", "AppArmor off in the way of old", lambda m: head(m)["template"]["metadata"][
        "annotations"].update({"container.apparmor.security.beta.kubernetes.io/ray-head": "unconfined"})),
    ("apparmor_stays_on", "AppArmor off", lambda m: security(m).update(appArmorProfile={"type": "Unconfined"})),
    ("not_privileged", "privileged", lambda m: security(m).update(privileged=True)),
    ("no_capabilities", "a capability added", lambda m: security(m)["capabilities"].update(add=["SYS_PTRACE"])),
    ("no_capabilities", "capabilities kept", lambda m: security(m).pop("capabilities")),
    ("no_privilege_escalation", "not said", lambda m: security(m).pop("allowPrivilegeEscalation")),
    ("no_privilege_escalation", "the autoscaler's", lambda m: cluster(m)["autoscalerOptions"]["securityContext"].pop(
        "allowPrivilegeEscalation")),
    ("runs_as_non_root", "may be root", lambda m: security(m).update(runAsNonRoot=False)),
    ("runs_as_non_root", "root, for the whole pod", lambda m: worker_pod(m)["securityContext"].update(runAsUser=0)),
    ("has_seccomp_profile", "unconfined", lambda m: security(m).update(seccompProfile={"type": "Unconfined"})),
    ("no_host_ports", "host port", lambda m: worker(m).update(ports=[{"containerPort": 8080, "hostPort": 8080}])),
    ("no_host_in_probes", "a probe elsewhere", lambda m: worker(m).update(
        livenessProbe={"httpGet": {"host": "169.254.169.254", "path": "/", "port": 80}})),
    ("default_proc_mount", "/proc unmasked", lambda m: security(m).update(procMount="Unmasked")),
    ("no_own_selinux", "SELinux type", lambda m: security(m).update(seLinuxOptions={"type": "spc_t"})),
    ("no_host_process", "Windows host process", lambda m: security(m).update(windowsOptions={"hostProcess": True})),
    # KubeRay and Kueue
    ("name_fits", "too long", lambda m: rename(m, "p" * 48)),
    ("name_fits", "capitals", lambda m: rename(m, "Pack")),
    ("token_is_on", "disabled", lambda m: cluster(m)["authOptions"].update(mode="disabled")),
    ("token_is_on", "left out", lambda m: cluster(m).pop("authOptions")),
    ("no_kubernetes_tokens", "Kubernetes tokens", lambda m: cluster(m)["authOptions"].update(enableK8sTokenAuth=True)),
    ("autoscaler_is_v2", "version 1", lambda m: cluster(m)["autoscalerOptions"].update(version="v1")),
    ("autoscaler_is_v2", "said twice", lambda m: env(head_pod(m), "RAY_enable_autoscaler_v2", "1")),
    ("restart_policy_is_never", "in place", lambda m: worker_pod(m).update(restartPolicy="Always")),
    ("resources_are_said_once", "twice", lambda m: group(m).update(resources={"CPU": "24"})),
    ("labels_are_not_start_params", "labels", lambda m: group(m)["rayStartParams"].update(labels="zone=a")),
    ("replicas_are_in_order", "least above most", lambda m: group(m).update(minReplicas=5)),
    ("replicas_are_in_order", "no most", lambda m: group(m).pop("maxReplicas")),
    ("groups_are_awake", "a group sleeps", lambda m: group(m).update(suspend=True)),
    ("redis_is_said_once", "in the environment", lambda m: env(head_pod(m), "RAY_REDIS_ADDRESS", "redis:6379")),
    ("redis_is_said_once", "as a start parameter", lambda m: head(m)["rayStartParams"].update(
        {"redis-password": "x"})),
    ("no_feature_gate_is_needed", "RocksDB", lambda m: cluster(m)["gcsFaultToleranceOptions"].update(
        backend="rocksdb")),
    ("no_feature_gate_is_needed", "TLS", lambda m: cluster(m).update(tlsOptions={"enabled": True})),
    ("shuts_down", "the cluster stays", lambda m: job(m).update(shutdownAfterJobFinishes=False)),
    ("has_own_cluster", "another's cluster", lambda m: job(m).update(clusterSelector={"ray.io/cluster": "ecgdist"})),
    ("cluster_of_job_is_awake", "asleep", lambda m: cluster(m).update(suspend=True)),
    ("submission_mode_fits", "interactive", lambda m: job(m).update(submissionMode="InteractiveMode")),
    ("submission_mode_fits", "sidecar with a template", lambda m: job(m).update(submissionMode="SidecarMode")),
    ("deletion_is_by_ttl", "two ways", lambda m: job(m).update(
        deletionStrategy={"onSuccess": {"policy": "DeleteCluster"}, "onFailure": {"policy": "DeleteNone"}})),
    ("runtime_env_is_a_mapping", "a word", lambda m: job(m).update(runtimeEnvYAML="none")),
    ("runtime_env_is_a_mapping", "no YAML", lambda m: job(m).update(runtimeEnvYAML="env_vars: [")),
    ("queued_cluster_may_grow", "not marked as elastic", lambda m: one(m, "RayJob", "pretrain")["metadata"].pop(
        "annotations")),
    ("queued_groups_fit", "seven groups", lambda m: more_groups(m, *(f"cpu{number}" for number in range(5)))),
    # Ray and its pods
    ("memory_is_not_overbooked", "less asked", lambda m: worker(m)["resources"]["requests"].update(memory="64Gi")),
    ("memory_is_not_overbooked", "no limit, of Redis", lambda m: one(m, "StatefulSet", "redis")["spec"]["template"][
        "spec"]["containers"][0]["resources"]["limits"].pop("memory")),
    ("cpus_are_requested", "none", lambda m: job(m)["submitterPodTemplate"]["spec"]["containers"][0]["resources"][
        "requests"].pop("cpu")),
    ("gpus_cannot_be_asked_alone", "fewer asked", lambda m: worker(m)["resources"]["requests"].update(
        {"nvidia.com/gpu": "4"})),
    ("ray_cpus_fit", "more than there are", lambda m: group(m)["rayStartParams"].update({"num-cpus": "27"})),
    ("ray_cpus_fit", "not said", lambda m: group(m)["rayStartParams"].pop("num-cpus")),
    ("ray_gpus_fit", "fewer than paid for", lambda m: group(m)["rayStartParams"].update({"num-gpus": "4"})),
    ("head_takes_no_tasks", "tasks on the head", lambda m: head(m)["rayStartParams"].update({"num-cpus": "4"})),
    ("object_store_fits_shm", "larger than /dev/shm", lambda m: group(m)["rayStartParams"].update(
        {"object-store-memory": str(12 * 2**30)})),
    ("object_store_fits_shm", "no /dev/shm", lambda m: worker(m)["volumeMounts"].pop(0)),
    ("shm_leaves_memory", "all of it", lambda m: worker_pod(m)["volumes"][0]["emptyDir"].update(sizeLimit="121Gi")),
    ("scratch_fits", "more than the limit", lambda m: worker_pod(m)["volumes"][1]["emptyDir"].update(
        sizeLimit="1Ti")),
    ("worker_drains", "no hook", lambda m: worker(m).pop("lifecycle")),
    ("worker_drains", "20 s", lambda m: worker(m)["lifecycle"]["preStop"]["exec"].update(command=[
        "sh", "-c", "ray drain-node --reason R --deadline-remaining-seconds 20"])),
    ("grace_outlasts_drain", "30 s", lambda m: worker_pod(m).update(terminationGracePeriodSeconds=30)),
    ("grace_outlasts_drain", "the default, of the head", lambda m: head_pod(m).pop("terminationGracePeriodSeconds")),
    ("groups_have_own_names", "two alike", lambda m: cluster(m)["workerGroupSpecs"].append(group(m, 0))),
    # House
    ("image_has_digest", "a tag", lambda m: worker(m).update(image="registry.example/ecgdist:1.0")),
    ("image_has_digest", "the autoscaler's", lambda m: cluster(m)["autoscalerOptions"].update(image="ray:2.60.0")),
    ("image_is_not_latest", "latest", lambda m: worker(m).update(
        image=worker(m)["image"].replace("@", ":latest@"))),
    ("no_secret_in_environment", "a key", lambda m: env(worker_pod(m), "AWS_SECRET_ACCESS_KEY", "abc")),
    ("no_secret_in_environment", "a token", lambda m: env(head_pod(m), "RAY_AUTH_TOKEN", "abc")),
    ("no_secret_objects", "a Secret", lambda m: add(
        m, {"kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "b"}})),
    ("no_secret_in_config_maps", "a key of AWS", lambda m: one(m, "ConfigMap", "ecgdist-configs")["data"].update(
        {"x": "key: AKIAABCDEFGHIJKLMNOP"})),
    ("redis_password_is_a_reference", "written down", lambda m: cluster(m)["gcsFaultToleranceOptions"].update(
        redisPassword={"value": "x"})),
    ("no_door_to_outside", "load balancer", lambda m: add(m, service("LoadBalancer"))),
    ("no_door_to_outside", "node port", lambda m: add(m, service("NodePort"))),
    ("no_door_to_outside", "of the head", lambda m: head(m).update(serviceType="LoadBalancer")),
    ("no_door_to_outside", "Ingress of the head", lambda m: head(m).update(enableIngress=True)),
    ("no_door_to_outside", "Ingress", lambda m: add(m, {"kind": "Ingress", "metadata": {"name": "i"}})),
    ("job_ends", "no deadline", lambda m: job(m).pop("activeDeadlineSeconds")),
    ("job_ends", "no backoff", lambda m: job(m).pop("backoffLimit")),
    ("job_ends", "ttl below zero", lambda m: job(m).update(ttlSecondsAfterFinished=-1)),
    ("job_can_sleep", "not said", lambda m: job(m).pop("suspend")),
    ("submitter_is_ours", "KubeRay's own", lambda m: job(m).pop("submitterPodTemplate")),
    ("entrypoint_has_its_config", "another file", lambda m: job(m).update(
        entrypoint="python jobs/pretrain.py /etc/ecgdist/pretrian.yaml")),
    ("is_queued", "no queue", lambda m: one(m, "RayJob", "pretrain")["metadata"]["labels"].pop(
        "kueue.x-k8s.io/queue-name")),
    ("ray_is_ours", "another version", lambda m: cluster(m).update(rayVersion="2.59.1")),
    ("heads_outlive_faults", "nothing stored", lambda m: cluster(m).pop("gcsFaultToleranceOptions")),
    ("priority_is_known", "unknown class", lambda m: worker_pod(m).update(priorityClassName="high")),
    ("account_is_known", "the default account", lambda m: worker_pod(m).pop("serviceAccountName")),
    ("only_heads_talk_to_kubernetes", "a worker", lambda m: worker_pod(m).pop("automountServiceAccountToken")),
    ("bucket_role_is_set", "a placeholder", lambda m: one(m, "ServiceAccount", "ecgdist-worker")["metadata"][
        "annotations"].update({"eks.amazonaws.com/role-arn": "arn:aws:iam::ACCOUNT:role/ROLE"})),
    ("head_has_budget", "none", lambda m: without(m, "PodDisruptionBudget", "pretrain-head")),
    ("budgets_count_pods", "maxUnavailable", lambda m: one(m, "PodDisruptionBudget", "pretrain-gpu").update(
        spec={"maxUnavailable": 1, "selector": {"matchLabels": {"ray.io/group": "gpu"}}})),
    ("budgets_count_pods", "a share", lambda m: one(m, "PodDisruptionBudget", "pretrain-gpu")["spec"].update(
        minAvailable="50%")),
    ("workers_spread", "no constraint", lambda m: worker_pod(m).pop("topologySpreadConstraints")),
    ("workers_spread", "of another group", lambda m: worker_pod(m)["topologySpreadConstraints"][0].update(
        labelSelector={"matchLabels": {"ray.io/group": "cpu"}})),
    ("head_stays", "spot", lambda m: head_pod(m).update(
        tolerations=[{"key": "cloud.google.com/gke-spot", "operator": "Exists"}])),
    # Network
    ("everything_is_closed", "no default", lambda m: without(m, "NetworkPolicy", "default-deny")),
    ("everything_is_closed", "one way", lambda m: policy(m, "default-deny").update(policyTypes=["Ingress"])),
    ("needed_ways_are_open", "no names", lambda m: without(m, "NetworkPolicy", "dns")),
    ("needed_ways_are_open", "no bucket", lambda m: without(m, "NetworkPolicy", "bucket")),
    ("needed_ways_are_open", "nodes apart", lambda m: policy(m, "ray-nodes").update(ingress=[])),
    ("needed_ways_are_open", "no operator", lambda m: policy(m, "dashboard")["ingress"][0]["from"].pop(0)),
    ("needed_ways_are_open", "no submitter", lambda m: policy(m, "submitter").update(egress=[])),
    ("needed_ways_are_open", "no API server", lambda m: policy(m, "api-server")["egress"][0]["ports"].pop(1)),
    ("needed_ways_are_open", "no Redis", lambda m: policy(m, "redis")["ingress"][0]["ports"][0].update(port=6380)),
    ("nobody_outside_comes_in", "a block", lambda m: policy(m, "dashboard")["ingress"][0]["from"].append(
        {"ipBlock": {"cidr": "0.0.0.0/0"}})),
    ("nobody_outside_comes_in", "everybody", lambda m: policy(m, "metrics")["ingress"][0].pop("from")),
    ("metadata_service_is_closed", "not excepted", lambda m: policy(m, "bucket")["egress"][0]["to"][0][
        "ipBlock"].pop("except")),
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_valid_overlay_breaks_no_rule(name: str) -> None:
    assert [str(each) for each in check(valid(name))] == []


@pytest.mark.parametrize("name", NAMES)
def test_an_overlay_as_it_is_lacks_its_image_and_no_more(name: str) -> None:
    broken = {each.rule for each in check(built(name))}
    assert "image_has_digest" in broken
    assert broken <= {"image_has_digest", "bucket_role_is_set"}


@pytest.mark.parametrize(("rule", "plant"), [pytest.param(r, p, id=f"{r}: {what}") for r, what, p in PLANTED])
def test_a_planted_violation_breaks_its_rule_and_no_other(rule: str, plant: Plant) -> None:
    manifests = valid("gpu")
    plant(manifests)
    findings = check(manifests)
    assert {each.rule for each in findings} == {rule}, [str(each) for each in findings]
    assert all(each.what and each.reason for each in findings)


def test_a_group_called_head_is_found() -> None:
    """Its pods look like the head's to a policy, too, which is another rule's affair."""
    manifests = valid("gpu")
    more_groups(manifests, "head")
    assert "queued_groups_fit" in {each.rule for each in check(manifests)}


def test_a_ray_without_tokens_is_found_with_its_version() -> None:
    """No version of Ray that is too old for tokens is the one that this project needs."""
    manifests = valid("gpu")
    cluster(manifests)["rayVersion"] = "2.51.0"
    assert {each.rule for each in check(manifests)} == {"token_has_ray_version", "ray_is_ours"}


def test_every_rule_has_a_planted_violation() -> None:
    tables = (
        rules.RULES, rules.OWNER_RULES, rules.CLUSTER_RULES, rules.JOB_RULES, rules.POD_RULES, rules.CONTAINER_RULES
    )  # fmt: skip
    names = [rule.__name__ for table in tables for rule in table]
    assert len(names) == len(set(names))
    assert set(names) - {rule for rule, _, _ in PLANTED} == {"token_has_ray_version"}


def test_a_finding_says_where_what_and_why() -> None:
    manifests = valid("gpu")
    worker(manifests)["image"] = "ecgdist:1.0"
    (finding,) = check(manifests)
    assert str(finding) == (
        "RayJob/pretrain gpu ray-worker: image ecgdist:1.0 is not of the form NAME@sha256:DIGEST "
        "(image_has_digest: A tag can be moved, a digest cannot: only a digest says what runs.)"
    )


@pytest.mark.parametrize(
    ("text", "number"),
    [("500m", 0.5), ("2", 2), (3, 3), ("4Gi", 4 * 2**30), ("1Ti", 2**40), ("5G", 5e9), ("7k", 7e3)],
)
def test_quantities_are_read_as_kubernetes_does(text: str | int, number: float) -> None:
    assert quantity(text) == number


@pytest.mark.parametrize("text", ["a: [", "- 1", "kind: Pod", "kind: Pod\nmetadata: {}"])
def test_what_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="here"):
        read_manifests(text, "here")


def test_a_kustomization_of_ones_own_makes_an_overlay_valid(tmp_path: Path) -> None:
    """As `k8s/README.md` shows it, with the digests and the role of the tests."""
    (shown,) = re.findall(r"```yaml\n(.*?)```", (FOLDER / "README.md").read_text(), re.S)
    overlay = os.path.relpath(FOLDER / "overlays" / "gpu", tmp_path)
    text = shown.replace("../ecgdist/k8s/overlays/gpu", overlay).replace("value: ARN", f"value: {ROLE}")
    (tmp_path / "kustomization.yaml").write_text(text.replace("sha256:DIGEST", IMAGE.partition("@")[2]))
    manifests = build_overlay(tmp_path)
    assert check(manifests) == []
    assert all(each["spec"]["suspend"] for each in manifests.of_kind("RayJob", "RayCluster"))
