"""What KubeRay v1.7.0 and Kueue refuse when an object is already there: their own rules, seen before.

KubeRay checks these in its reconcile loop (`ray-operator/controllers/ray/utils/validation.go`): the API server accepts
a wrong object, which then never starts. Kueue's are those of its admission webhooks for Ray.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml

from ecgdist.k8s.manifests import Cluster, Object, at

QUEUE, ELASTIC = "kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/elastic-job"
_LEAST_RAY = (2, 52)
"""With token authentication."""
_LONGEST = {"RayCluster": 53, "RayJob": 47}
"""Letters of a name; KubeRay adds its own to it."""
_MOST_POD_SETS = 8
"""Of one workload in Kueue: head, submitter, groups."""
_GATED = ("networkPolicy", "tlsOptions", "historyServerOptions")
"""Fields of a cluster that need a feature gate which is off by default."""
_AUTOSCALER_V2 = "RAY_enable_autoscaler_v2"


def name_fits(owner: Object) -> Iterator[str]:
    """KubeRay makes other names out of this one, and they have a limit."""
    name, longest = owner["metadata"]["name"], _LONGEST[owner["kind"]]
    if len(name) > longest or not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        yield f"the name {name} must be a DNS label of at most {longest} letters that begins with a letter"


def token_is_on(cluster: Cluster) -> Iterator[str]:
    """Without a token, whoever reaches the dashboard runs any code (CVE-2023-48022)."""
    if at(cluster.spec, "authOptions.mode") != "token":
        yield "authOptions.mode is not token"


def token_has_ray_version(cluster: Cluster) -> Iterator[str]:
    """KubeRay turns tokens on only where rayVersion says that Ray knows them."""
    words = re.match(r"(\d+)\.(\d+)", str(cluster.spec.get("rayVersion", "")))
    if words is None or tuple(map(int, words.groups())) < _LEAST_RAY:
        yield f"rayVersion is {cluster.spec.get('rayVersion')}; tokens need 2.52 or later"


def no_kubernetes_tokens(cluster: Cluster) -> Iterator[str]:
    """KubeRay refuses Kubernetes tokens as Ray tokens for a RayJob."""
    if at(cluster.spec, "authOptions.enableK8sTokenAuth"):
        yield "authOptions.enableK8sTokenAuth is true"


def autoscaler_is_v2(cluster: Cluster) -> Iterator[str]:
    """Version 2 sees drained nodes and the needs of Ray Train; one place says which version."""
    if cluster.grows and at(cluster.spec, "autoscalerOptions.version") != "v2":
        yield "autoscalerOptions.version is not v2"
    if _AUTOSCALER_V2 in _env(cluster.spec["headGroupSpec"]):
        yield f"the head's environment has {_AUTOSCALER_V2} beside autoscalerOptions.version"


def restart_policy_is_never(cluster: Cluster) -> Iterator[str]:
    """Autoscaler v2 takes a pod that restarts in place for another node."""
    for pod in cluster.pods():
        if cluster.grows and (policy := pod.spec.get("restartPolicy", "Never")) != "Never":
            yield f"restartPolicy of {pod.where} is {policy}"


def resources_are_said_once(cluster: Cluster) -> Iterator[str]:
    """KubeRay refuses a group whose resources stand in rayStartParams and in resources."""
    for name, group in _groups(cluster):
        said = {"num-cpus", "num-gpus", "memory", "resources"} & group.get("rayStartParams", {}).keys()
        if said and group.get("resources"):
            yield f"{name} has resources, and {', '.join(sorted(said))} in rayStartParams"


def labels_are_not_start_params(cluster: Cluster) -> Iterator[str]:
    """KubeRay refuses labels in rayStartParams."""
    yield from (f"{name}" for name, group in _groups(cluster) if "labels" in group.get("rayStartParams", {}))


def replicas_are_in_order(cluster: Cluster) -> Iterator[str]:
    """The autoscaler stays between minReplicas and maxReplicas, and starts from replicas."""
    for name, group in _groups(cluster)[1:]:
        least, now, most = (group.get(key) for key in ("minReplicas", "replicas", "maxReplicas"))
        if None in (least, now, most) or not 0 <= least <= now <= most:  # type: ignore[operator]
            yield f"{name}: minReplicas {least}, replicas {now}, maxReplicas {most}"


def groups_are_awake(cluster: Cluster) -> Iterator[str]:
    """KubeRay refuses a sleeping group beside the autoscaler."""
    yield from (name for name, group in _groups(cluster)[1:] if cluster.grows and group.get("suspend"))


def redis_is_said_once(cluster: Cluster) -> Iterator[str]:
    """With gcsFaultToleranceOptions, Redis stands there alone; without, an address in the environment is refused."""
    head = cluster.spec["headGroupSpec"]
    for name in {"RAY_REDIS_ADDRESS", "REDIS_PASSWORD", "REDIS_USERNAME"} & _env(head).keys():
        yield f"the head's environment has {name}"
    for name in {"redis-password", "redis-username"} & head.get("rayStartParams", {}).keys():
        yield f"the head's rayStartParams have {name}"


def no_feature_gate_is_needed(cluster: Cluster) -> Iterator[str]:
    """These fields need a feature gate of KubeRay that is off by default."""
    yield from (name for name in _GATED if cluster.spec.get(name))
    if at(cluster.spec, "gcsFaultToleranceOptions.backend") == "rocksdb":
        yield "gcsFaultToleranceOptions.backend is rocksdb"


def shuts_down(job: Object) -> Iterator[str]:
    """Only a job that shuts its cluster down may sleep, be queued or have a ttl; and machines cost money."""
    if not job["spec"].get("shutdownAfterJobFinishes"):
        yield "shutdownAfterJobFinishes is not true"


def has_own_cluster(job: Object) -> Iterator[str]:
    """On a cluster that others share, KubeRay can neither suspend a job nor try it again."""
    if job["spec"].get("clusterSelector") or "rayClusterSpec" not in job["spec"]:
        yield "it needs a rayClusterSpec and no clusterSelector"


def cluster_of_job_is_awake(job: Object) -> Iterator[str]:
    """A job waits until its cluster is ready; it is the job that sleeps, not its cluster."""
    if at(job, "spec.rayClusterSpec.suspend"):
        yield "rayClusterSpec.suspend is true"


def submission_mode_fits(job: Object) -> Iterator[str]:
    """An interactive job is not tried again, and a sidecar takes no pod template."""
    spec, mode = job["spec"], job["spec"].get("submissionMode", "K8sJobMode")
    if mode == "InteractiveMode" and spec.get("backoffLimit"):
        yield "InteractiveMode with a backoffLimit"
    if mode == "SidecarMode" and (spec.get("submitterPodTemplate") or spec.get("submitterConfig")):
        yield "SidecarMode with a submitterPodTemplate or submitterConfig"


def deletion_is_by_ttl(job: Object) -> Iterator[str]:
    """deletionStrategy and shutdownAfterJobFinishes with a ttl would say twice when a cluster goes."""
    if job["spec"].get("deletionStrategy"):
        yield "deletionStrategy is set"


def runtime_env_is_a_mapping(job: Object) -> Iterator[str]:
    """KubeRay gives it to Ray as it is; a text that is no mapping fails every try."""
    try:
        content = yaml.safe_load(job["spec"].get("runtimeEnvYAML", "{}"))
    except yaml.YAMLError as error:
        content = error
    if not isinstance(content, dict):
        yield f"runtimeEnvYAML is no mapping: {content}"


def queued_cluster_may_grow(cluster: Cluster) -> Iterator[str]:
    """Kueue refuses the autoscaler in what it queues, unless it is marked as elastic."""
    marked = at(cluster.owner, "metadata.annotations", {}).get(ELASTIC) == "true"
    if _is_queued(cluster) and cluster.grows and not marked:
        yield f"it has a queue and the autoscaler, but no annotation {ELASTIC}"


def queued_groups_fit(cluster: Cluster) -> Iterator[str]:
    """Kueue counts a group called head twice, and takes eight sets of pods at most."""
    if not _is_queued(cluster):
        return
    names = [group["groupName"] for group in cluster.groups]
    if "head" in names:
        yield "a group of workers is called head"
    if len(names) + 2 > _MOST_POD_SETS:
        yield f"{len(names)} groups of workers, a head and a submitter are more than {_MOST_POD_SETS} sets of pods"


def _is_queued(cluster: Cluster) -> bool:
    return QUEUE in at(cluster.owner, "metadata.labels", {})


def _groups(cluster: Cluster) -> list[tuple[str, Object]]:
    """The head, then the groups of workers."""
    return [("head", cluster.spec["headGroupSpec"]), *((each["groupName"], each) for each in cluster.groups)]


def _env(group: Object) -> dict[str, Object]:
    """Environment of the container that Ray runs in."""
    container = at(group, "template.spec", {}).get("containers", [{}])[0]
    return {each["name"]: each for each in container.get("env", [])}


OWNER_RULES = (name_fits,)
CLUSTER_RULES = (
    token_is_on,
    token_has_ray_version,
    no_kubernetes_tokens,
    autoscaler_is_v2,
    restart_policy_is_never,
    resources_are_said_once,
    labels_are_not_start_params,
    replicas_are_in_order,
    groups_are_awake,
    redis_is_said_once,
    no_feature_gate_is_needed,
    queued_cluster_may_grow,
    queued_groups_fit,
)
JOB_RULES = (
    shuts_down,
    has_own_cluster,
    cluster_of_job_is_awake,
    submission_mode_fits,
    deletion_is_by_ttl,
    runtime_env_is_a_mapping,
)
