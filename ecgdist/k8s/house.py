"""Rules of this project: images, secrets, doors to the outside, limits in time, what must be there beside a pod."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from importlib.metadata import version

from ecgdist.k8s.kuberay import QUEUE
from ecgdist.k8s.manifests import Cluster, Manifests, Object, Pod, at, name_of

DIGEST = re.compile(r"[\w.\-/:]+@sha256:[0-9a-f]{64}")
ROLE = re.compile(r"arn:aws[\w-]*:iam::\d{12}:role/[\w+=,.@/-]+")
ROLE_ANNOTATION = "eks.amazonaws.com/role-arn"
_SECRET_NAME = re.compile(r"SECRET|PASSWORD|PASSWD|TOKEN|ACCESS_KEY|API_KEY|PATIENT_KEY|CREDENTIAL", re.I)
_PLACE_NAME = re.compile(r"_(FILE|PATH|URL|URI)$", re.I)
"""Of variables that say where a secret is."""
_SECRET_TEXT = re.compile(
    r"AKIA[0-9A-Z]{16}|-----BEGIN [A-Z ]*PRIVATE KEY|(secret|password|token)\w*\s*[:=]\s*\S{8,}", re.I
)
_LIMITS = ("activeDeadlineSeconds", "preRunningDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished")


def image_has_digest(pod: Pod, container: Object) -> Iterator[str]:
    """A tag can be moved, a digest cannot: only a digest says what runs."""
    if not DIGEST.fullmatch(str(container.get("image", ""))):
        yield f"image {container.get('image')} is not of the form NAME@sha256:DIGEST"


def image_is_not_latest(pod: Pod, container: Object) -> Iterator[str]:
    """`latest` names another image every week."""
    if re.search(r":latest($|@)", str(container.get("image", ""))):
        yield f"image {container['image']}"


def no_secret_in_environment(pod: Pod, container: Object) -> Iterator[str]:
    """A manifest is read by many and kept for ever: a secret is named there, never written."""
    for each in container.get("env", []):
        hides = _SECRET_NAME.search(each["name"]) and not _PLACE_NAME.search(each["name"])
        if hides and each.get("value"):
            yield f"environment variable {each['name']} has a value; take it from a Secret"


def no_secret_objects(manifests: Manifests) -> Iterator[str]:
    """Secrets are made in the cluster, by hand or by an operator for them."""
    yield from (f"{name_of(each)} is among the manifests" for each in manifests.of_kind("Secret"))


def no_secret_in_config_maps(manifests: Manifests) -> Iterator[str]:
    """A ConfigMap can be read by whoever may look at the namespace."""
    for each in manifests.of_kind("ConfigMap"):
        for key, text in each.get("data", {}).items():
            if found := _SECRET_TEXT.search(text):
                yield f"{name_of(each)} {key} holds what looks like a secret: {found[0][:12]}..."


def redis_password_is_a_reference(cluster: Cluster) -> Iterator[str]:
    """As for every secret; and a Redis without a password lets everybody rewrite the cluster's state."""
    options = cluster.spec.get("gcsFaultToleranceOptions")
    if options is not None and not at(options, "redisPassword.valueFrom.secretKeyRef.name"):
        yield "gcsFaultToleranceOptions.redisPassword does not come from a Secret"


def no_door_to_outside(manifests: Manifests) -> Iterator[str]:
    """The dashboard runs what it is told to; it is reached by kubectl port-forward alone."""
    for each in manifests.of_kind("Service"):
        if (kind := at(each, "spec.type", "ClusterIP")) != "ClusterIP":
            yield f"{name_of(each)} is of type {kind}"
    for kind in ("Ingress", "Gateway", "HTTPRoute", "Route"):
        yield from (name_of(each) for each in manifests.of_kind(kind))
    for cluster in manifests.clusters:
        head = cluster.spec["headGroupSpec"]
        if (kind := head.get("serviceType", "ClusterIP")) != "ClusterIP":
            yield f"{cluster.where} headGroupSpec.serviceType is {kind}"
        if head.get("enableIngress"):
            yield f"{cluster.where} headGroupSpec.enableIngress is true"


def job_ends(job: Object) -> Iterator[str]:
    """A job without limits in time and tries keeps GPUs until somebody looks."""
    for name in _LIMITS:
        value = job["spec"].get(name)
        if not isinstance(value, int) or value < (0 if name == "backoffLimit" else 1):
            yield f"{name} is {value}"


def job_can_sleep(job: Object) -> Iterator[str]:
    """Whoever applies an overlay says which of its jobs runs."""
    if not isinstance(job["spec"].get("suspend"), bool):
        yield "suspend is not said"


def submitter_is_ours(job: Object) -> Iterator[str]:
    """KubeRay's own submitter pod has no security context, and a restricted namespace refuses it."""
    if (
        job["spec"].get("submissionMode", "K8sJobMode") == "K8sJobMode"
        and "submitterPodTemplate" not in job["spec"]
    ):
        yield "it has no submitterPodTemplate"


def entrypoint_has_its_config(manifests: Manifests) -> Iterator[str]:
    """A job whose configuration is not mounted fails after its machines have come."""
    for job in manifests.jobs:
        head = at(job, "spec.rayClusterSpec.headGroupSpec.template.spec", {})
        for word in shlex.split(job["spec"].get("entrypoint", "")):
            is_local = word.endswith((".yaml", ".yml")) and not word.startswith("s3://")
            if is_local and word not in _mounted_files(manifests, head):
                yield f"{name_of(job)}: {word} is in no ConfigMap that its head mounts"


def _mounted_files(manifests: Manifests, pod: Object) -> set[str]:
    contents = {each["metadata"]["name"]: each.get("data", {}) for each in manifests.of_kind("ConfigMap")}
    places = {each["name"]: each["mountPath"] for each in pod["containers"][0].get("volumeMounts", [])}
    return {
        f"{places[volume['name']]}/{key}"
        for volume in pod.get("volumes", [])
        if volume["name"] in places
        for key in contents.get(at(volume, "configMap.name", ""), {})
    }


def is_queued(owner: Object) -> Iterator[str]:
    """Where Kueue shares machines out, what has no queue takes them from everybody."""
    if not at(owner, "metadata.labels", {}).get(QUEUE):
        yield f"no label {QUEUE}"


def ray_is_ours(cluster: Cluster) -> Iterator[str]:
    """Nodes, driver and submitter must run one version of Ray, the one this project is tested with."""
    if cluster.spec.get("rayVersion") != version("ray"):
        yield f"rayVersion is {cluster.spec.get('rayVersion')}, ecgdist needs {version('ray')}"


def heads_outlive_faults(manifests: Manifests) -> Iterator[str]:
    """Where there is a Redis, every head stores its state in it."""
    if "redis" in manifests.names("Service"):
        for cluster in manifests.clusters:
            if "gcsFaultToleranceOptions" not in cluster.spec:
                yield f"{cluster.where} has no gcsFaultToleranceOptions"


def priority_is_known(manifests: Manifests) -> Iterator[str]:
    """Without a class, whoever comes later may push a run out; an unknown class lets no pod in."""
    known = manifests.names("PriorityClass")
    for pod in manifests.pods:
        if pod.spec.get("priorityClassName") not in known:
            yield f"{pod.where}: priorityClassName is {pod.spec.get('priorityClassName')}"


def account_is_known(manifests: Manifests) -> Iterator[str]:
    """A pod's account is what the bucket's policy and the registry know; the default account is everybody's."""
    known = manifests.names("ServiceAccount")
    for pod in manifests.pods:
        if pod.spec.get("serviceAccountName") not in known:
            yield f"{pod.where}: serviceAccountName is {pod.spec.get('serviceAccountName')}"


def only_heads_talk_to_kubernetes(pod: Pod) -> Iterator[str]:
    """Code that a worker runs must not be able to ask the API server for more."""
    if pod.role != "head" and pod.spec.get("automountServiceAccountToken") is not False:
        yield "automountServiceAccountToken is not false"


def bucket_role_is_set(manifests: Manifests) -> Iterator[str]:
    """With a placeholder for a role, the bucket refuses every request."""
    for each in manifests.of_kind("ServiceAccount"):
        role = at(each, "metadata.annotations", {}).get(ROLE_ANNOTATION)
        if role is not None and not ROLE.fullmatch(role):
            yield f"{name_of(each)}: {ROLE_ANNOTATION} is {role}; set it, or leave the annotation out"


def head_has_budget(manifests: Manifests) -> Iterator[str]:
    """An upgrade of machines must not evict the head: the run would start again."""
    budgets = [at(each, "spec.selector.matchLabels", {}) for each in manifests.of_kind("PodDisruptionBudget")]
    for pod in manifests.pods:
        if pod.role == "head" and not any(
            labels.items() <= pod.labels.items() for labels in budgets if labels
        ):
            yield f"{pod.where} is in no PodDisruptionBudget"


def budgets_count_pods(manifests: Manifests) -> Iterator[str]:
    """For pods that no Deployment owns, Kubernetes takes a whole number in minAvailable and nothing else."""
    for each in manifests.of_kind("PodDisruptionBudget"):
        if "maxUnavailable" in each["spec"] or not isinstance(each["spec"].get("minAvailable"), int):
            yield f"{name_of(each)} needs minAvailable as a whole number"


def workers_spread(pod: Pod) -> Iterator[str]:
    """All workers on one machine leave together with it."""
    if pod.role != "worker":
        return
    wanted = [
        at(each, "labelSelector.matchLabels", {}) for each in pod.spec.get("topologySpreadConstraints", [])
    ]
    if not any(labels and labels.items() <= pod.labels.items() for labels in wanted):
        yield "no topologySpreadConstraints that select its own group"


def head_stays(pod: Pod) -> Iterator[str]:
    """A head on a machine that may be taken away takes the run with it."""
    if pod.role == "head":
        for each in pod.spec.get("tolerations", []):
            if "spot" in f"{each.get('key')} {each.get('value')}".lower():
                yield f"it tolerates {each.get('key')}"


RULES = (
    no_secret_objects,
    no_secret_in_config_maps,
    no_door_to_outside,
    entrypoint_has_its_config,
    heads_outlive_faults,
    priority_is_known,
    account_is_known,
    bucket_role_is_set,
    head_has_budget,
    budgets_count_pods,
)
OWNER_RULES = (is_queued,)
CLUSTER_RULES = (redis_password_is_a_reference, ray_is_ours)
JOB_RULES = (job_ends, job_can_sleep, submitter_is_ours)
POD_RULES = (only_heads_talk_to_kubernetes, workers_spread, head_stays)
CONTAINER_RULES = (image_has_digest, image_is_not_latest, no_secret_in_environment)
