"""The Pod Security Standard "restricted" (https://kubernetes.io/docs/concepts/security/pod-security-standards/), whole.

A namespace that enforces it lets no other pod in, and KubeRay would try for ever. So that this is seen before, every
control of the levels "baseline" and "restricted" is a rule here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ecgdist.k8s.manifests import Manifests, Object, Pod, at

_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip
_SYSCTLS = {
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
}  # fmt: skip
_SELINUX_TYPES = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
_PROFILES = {"RuntimeDefault", "Localhost"}
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe", "lifecycle.postStart", "lifecycle.preStop")


def namespace_is_restricted(manifests: Manifests) -> Iterator[str]:
    """The API server itself must refuse pods that are not restricted."""
    for namespace in manifests.of_kind("Namespace"):
        if at(namespace, "metadata.labels", {}).get("pod-security.kubernetes.io/enforce") != "restricted":
            yield f"Namespace/{namespace['metadata']['name']} has no pod-security.kubernetes.io/enforce: restricted"


def no_host_namespaces(pod: Pod) -> Iterator[str]:
    """A pod in the host's namespaces sees the host's processes and network."""
    yield from (f"{name} is true" for name in ("hostNetwork", "hostPID", "hostIPC") if pod.spec.get(name))


def only_safe_volumes(pod: Pod) -> Iterator[str]:
    """A hostPath is the host's disk; only volumes that hold nothing of the host are allowed."""
    for volume in pod.spec.get("volumes", []):
        for kind in volume.keys() - {"name"} - _VOLUMES:
            yield f"volume {volume['name']} is a {kind}; allowed are {', '.join(sorted(_VOLUMES))}"


def only_safe_sysctls(pod: Pod) -> Iterator[str]:
    """Other kernel parameters act on the whole host."""
    for sysctl in at(pod.spec, "securityContext.sysctls", []):
        if sysctl["name"] not in _SYSCTLS:
            yield f"sysctl {sysctl['name']} is not among the safe ones"


def apparmor_annotation_is_safe(pod: Pod) -> Iterator[str]:
    """AppArmor may not be switched off in the way of old, either."""
    for name, profile in pod.annotations.items():
        is_safe = profile == "runtime/default" or profile.startswith("localhost/")
        if name.startswith("container.apparmor.security.beta.kubernetes.io/") and not is_safe:
            yield f"annotation {name} is {profile}"


def not_privileged(pod: Pod, container: Object) -> Iterator[str]:
    """A privileged container is root on the host."""
    if at(container, "securityContext.privileged"):
        yield "securityContext.privileged is true"


def no_capabilities(pod: Pod, container: Object) -> Iterator[str]:
    """Capabilities are parts of root's power; all must be dropped."""
    if "ALL" not in at(container, "securityContext.capabilities.drop", []):
        yield "securityContext.capabilities.drop lacks ALL"
    for name in at(container, "securityContext.capabilities.add", []):
        if name != "NET_BIND_SERVICE":
            yield f"securityContext.capabilities.add has {name}"


def no_privilege_escalation(pod: Pod, container: Object) -> Iterator[str]:
    """A setuid program could make a process root."""
    if at(container, "securityContext.allowPrivilegeEscalation") is not False:
        yield "securityContext.allowPrivilegeEscalation is not false"


def runs_as_non_root(pod: Pod, container: Object) -> Iterator[str]:
    """Root in a container is one kernel defect away from root on the host."""
    said = _said(pod, container, "runAsNonRoot")
    if not said or said[0] is not True:
        yield "runAsNonRoot is not true"
    if 0 in _said(pod, container, "runAsUser"):
        yield "runAsUser is 0"


def has_seccomp_profile(pod: Pod, container: Object) -> Iterator[str]:
    """Seccomp keeps rarely needed system calls, where kernel defects are, out of reach."""
    said = _said(pod, container, "seccompProfile.type")
    if not said or not _PROFILES.issuperset(said):
        yield f"seccompProfile.type is {said or None}, not RuntimeDefault"


def apparmor_stays_on(pod: Pod, container: Object) -> Iterator[str]:
    """AppArmor may not be switched off."""
    if not _PROFILES.issuperset(said := _said(pod, container, "appArmorProfile.type")):
        yield f"appArmorProfile.type is {said}"


def no_host_ports(pod: Pod, container: Object) -> Iterator[str]:
    """A host port is open to everybody who reaches the machine, past every NetworkPolicy."""
    for port in container.get("ports", []):
        if port.get("hostPort"):
            yield f"hostPort {port['hostPort']}"


def no_host_in_probes(pod: Pod, container: Object) -> Iterator[str]:
    """A probe that names a host makes the kubelet send requests there."""
    for probe in _PROBES:
        for handler in ("httpGet", "tcpSocket"):
            if host := at(container, f"{probe}.{handler}.host"):
                yield f"{probe}.{handler}.host is {host}"


def default_proc_mount(pod: Pod, container: Object) -> Iterator[str]:
    """The masked paths of /proc must stay masked."""
    if (mount := at(container, "securityContext.procMount", "Default")) != "Default":
        yield f"securityContext.procMount is {mount}"


def no_own_selinux(pod: Pod, container: Object) -> Iterator[str]:
    """An SELinux user, role or type of one's own leaves the container's confinement."""
    for options in _said(pod, container, "seLinuxOptions"):
        if options.get("user") or options.get("role") or options.get("type", "") not in _SELINUX_TYPES:
            yield f"seLinuxOptions is {options}"


def no_host_process(pod: Pod, container: Object) -> Iterator[str]:
    """A Windows host process is no container at all."""
    if any(_said(pod, container, "windowsOptions.hostProcess")):
        yield "windowsOptions.hostProcess is true"


def _said(pod: Pod, container: Object, path: str) -> list[Any]:
    """What the container's security context says, which counts, and the pod's, as far as they say anything."""
    found = [at(thing, f"securityContext.{path}") for thing in (container, pod.spec)]
    return [value for value in found if value is not None]


POD_RULES = (no_host_namespaces, only_safe_volumes, only_safe_sysctls, apparmor_annotation_is_safe)
CONTAINER_RULES = (
    not_privileged,
    no_capabilities,
    no_privilege_escalation,
    runs_as_non_root,
    has_seccomp_profile,
    apparmor_stays_on,
    no_host_ports,
    no_host_in_probes,
    default_proc_mount,
    no_own_selinux,
    no_host_process,
)
