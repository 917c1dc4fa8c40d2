"""What every pod and every object of deploy/ must hold; each rule gives what breaks it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from tests.deploy.manifests import PLACEHOLDER, Pod, Resource

UID = 10001


def violations(pod: Pod) -> dict[str, list[str]]:
    """What a pod breaks, by rule."""
    found = {rule.__name__: list(rule(pod)) for rule in RULES}
    return {name: said for name, said in found.items() if said}


def object_violations(resource: Resource) -> list[str]:
    """What an object that is no pod breaks."""
    return [said for rule in OBJECT_RULES for said in rule(resource)]


def _each(pod: Pod, wanted: Callable[[Resource], Any], message: str) -> Iterator[str]:
    for container in pod.containers:
        if not wanted(container):
            yield f"{pod.name}/{container['name']}: {message}"


def _security(container: Resource) -> Resource:
    context: Resource = container.get("securityContext", {})
    return context


def non_root(pod: Pod) -> Iterator[str]:
    """The image's user and group, or none at all: OpenShift sets them (components/openshift)."""
    context = pod.spec.get("securityContext", {})
    users = [context.get(name) for name in ("runAsUser", "runAsGroup", "fsGroup")]
    if not (context.get("runAsNonRoot") is True and users in ([UID] * 3, [None] * 3)):
        yield f"{pod.name}: expected runAsNonRoot, and runAsUser, runAsGroup and fsGroup {UID}"
    yield from _each(pod, lambda c: _security(c).get("runAsNonRoot", True) is True, "runAsNonRoot taken back")
    yield from _each(pod, lambda c: _security(c).get("runAsUser", UID) == UID, f"another user than {UID}")


def read_only_root(pod: Pod) -> Iterator[str]:
    yield from _each(pod, lambda c: _security(c).get("readOnlyRootFilesystem") is True, "a root that can be written")


def no_escalation(pod: Pod) -> Iterator[str]:
    yield from _each(pod, lambda c: _security(c).get("allowPrivilegeEscalation") is False, "privilege escalation")
    yield from _each(pod, lambda c: not _security(c).get("privileged"), "privileged")


def no_capabilities(pod: Pod) -> Iterator[str]:
    yield from _each(pod, lambda c: _security(c).get("capabilities") == {"drop": ["ALL"]}, "capabilities not dropped")


def seccomp_default(pod: Pod) -> Iterator[str]:
    if pod.spec.get("securityContext", {}).get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield f"{pod.name}: expected seccomp RuntimeDefault"
    yield from _each(pod, lambda c: "seccompProfile" not in _security(c), "a seccomp profile of its own")


def no_token(pod: Pod) -> Iterator[str]:
    if pod.spec.get("automountServiceAccountToken") is not False:
        yield f"{pod.name}: a service account's token is mounted"
    if not pod.spec.get("serviceAccountName", "").startswith("filterdb"):
        yield f"{pod.name}: expected a service account of filterdb"


def no_host(pod: Pod) -> Iterator[str]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.spec.get(name):
            yield f"{pod.name}: {name}"
    yield from _each(pod, lambda c: not any("hostPort" in port for port in c.get("ports", [])), "hostPort")
    for volume in pod.spec.get("volumes", []):
        claim = volume.get("persistentVolumeClaim", {}).get("claimName") == "filterdb-data" and pod.role != "scheduler"
        if not claim and not volume.keys() & {"secret", "configMap", "emptyDir"}:
            yield f"{pod.name}: volume {volume['name']} of a kind that pods of filterdb do not need"


def bounded_volumes(pod: Pod) -> Iterator[str]:
    for volume in pod.spec.get("volumes", []):
        if "emptyDir" in volume and "sizeLimit" not in (volume["emptyDir"] or {}):
            yield f"{pod.name}: volume {volume['name']} without a size limit"


def _sets(kind: str, wanted: set[str]) -> Callable[[Resource], bool]:
    return lambda container: bool(container.get("resources", {}).get(kind, {}).keys() >= wanted)


def resources_set(pod: Pod) -> Iterator[str]:
    wanted = {"cpu", "memory", "ephemeral-storage"}
    for kind in ("requests", "limits"):
        yield from _each(pod, _sets(kind, wanted), f"no {kind}")
    yield from _each(
        pod,
        lambda c: len({c.get("resources", {}).get(kind, {}).get("memory") for kind in ("requests", "limits")}) == 1,
        "a memory request that is not the limit",
    )


def image_by_digest(pod: Pod) -> Iterator[str]:
    digest = re.compile(r"[\w.:-]+/[\w./-]+@sha256:[0-9a-f]{64}")
    yield from _each(
        pod,
        lambda c: c.get("image") == PLACEHOLDER or digest.fullmatch(c.get("image", "")),
        f"an image neither by digest nor {PLACEHOLDER}",
    )


def entry_point(pod: Pod) -> Iterator[str]:
    yield from _each(pod, lambda c: "command" not in c and c.get("args"), "`command` would leave out the image's tini")


def dask_commands(pod: Pod) -> Iterator[str]:
    """dask-worker and dask-scheduler, which the operator defaults to, are no longer installed."""
    first = {"scheduler": ["dask", "scheduler"], "worker": ["dask", "worker"]}.get(pod.role)
    args = pod.spec["containers"][0]["args"]  # a plain Job's have a shell in front
    if first is not None and first not in [args[place : place + 2] for place in range(len(args))]:
        yield f"{pod.name}: expected {' '.join(first)} …"


def encrypted(pod: Pod) -> Iterator[str]:
    if "tcp://" in str(pod.spec):
        yield f"{pod.name}: tcp://"
    for container in pod.containers:
        name = f"{pod.name}/{container['name']}"
        values = {entry["name"]: entry.get("value", "") for entry in container.get("env", [])}
        if pod.role in {"worker", "job-runner"} and not values.get("DASK_SCHEDULER_ADDRESS", "").startswith("tls://"):
            yield f"{name}: expected DASK_SCHEDULER_ADDRESS to be tls://"
        if {"configMapRef": {"name": "filterdb-dask"}} not in container.get("envFrom", []):
            yield f"{name}: expected the TLS settings of filterdb-dask"
        if not any(mount["mountPath"] == "/etc/filterdb/tls" for mount in container.get("volumeMounts", [])):
            yield f"{name}: expected the certificates at /etc/filterdb/tls"
        if container["name"] == "scheduler" and "--protocol tls" not in " ".join(container["args"]):
            yield f"{name}: expected --protocol tls"


def deadline(pod: Pod) -> Iterator[str]:
    """That of a CronJob's or a Job's pod is its Job's: an object rule."""
    if pod.role == "job-runner" and pod.kind != "Job":
        if not 0 < pod.spec.get("activeDeadlineSeconds", 0) <= 86_400:
            yield f"{pod.name}: expected activeDeadlineSeconds of a day at most"
        if pod.spec.get("restartPolicy") != "Never":
            yield f"{pod.name}: expected restartPolicy Never"


def stable_node(pod: Pod) -> Iterator[str]:
    """What a run does not survive is kept off nodes that a cloud takes back, whatever the cloud calls them."""
    if pod.role == "worker":
        return
    affinity = pod.spec.get("affinity", {}).get("nodeAffinity", {})
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution", {}).get("nodeSelectorTerms", [])
    for label, value in PRE_EMPTIBLE.items():
        wanted = {"key": label, "operator": "NotIn", "values": [value]}
        # Terms are alternatives: each has to refuse.
        if not required or not all(wanted in term.get("matchExpressions", []) for term in required):
            yield f"{pod.name}: may run on {label}={value}"


PRE_EMPTIBLE = {
    "eks.amazonaws.com/capacityType": "SPOT",
    "karpenter.sh/capacity-type": "spot",
    "cloud.google.com/gke-spot": "true",
    "cloud.google.com/gke-preemptible": "true",
    "kubernetes.azure.com/scalesetpriority": "spot",
}


def probed(pod: Pod) -> Iterator[str]:
    wanted = {"scheduler": {"readinessProbe", "livenessProbe"}, "worker": {"startupProbe", "livenessProbe"}}
    for container in pod.spec["containers"]:
        for name in wanted.get(pod.role, set()):
            if container.get(name, {}).get("httpGet") != {"path": "/health", "port": "http-dashboard"}:
                yield f"{pod.name}/{container['name']}: expected {name} at /health"


SECRET_NAME = re.compile(r"SECRET|PASSWORD|PASSWD|TOKEN|CREDENTIAL|ACCESS_KEY|API_KEY", re.IGNORECASE)
SECRET_VALUE = re.compile(r"AKIA[0-9A-Z]{16}|-----BEGIN|://[^/\s@]+:[^/\s@]+@|gh[pousr]_[A-Za-z0-9]{36}")


def no_literal_secrets(pod: Pod) -> Iterator[str]:
    for container in pod.containers:
        for entry in container.get("env", []):
            if "value" in entry and SECRET_NAME.search(entry["name"]):
                yield f"{pod.name}/{container['name']}: {entry['name']} stands in the manifest"
    if SECRET_VALUE.search(str(pod.spec)):
        yield f"{pod.name}: what looks like a key stands in the manifest"


RULES = (
    non_root, read_only_root, no_escalation, no_capabilities, seccomp_default, no_token, no_host, bounded_volumes,
    resources_set, image_by_digest, entry_point, dask_commands, encrypted, deadline, stable_node, probed,
    no_literal_secrets,
)  # fmt: skip


def no_secrets_in_objects(resource: Resource) -> Iterator[str]:
    name = f"{resource['kind']} {resource['metadata']['name']}"
    if resource["kind"] == "Secret":
        yield f"{name}: a Secret in a file"
    if SECRET_VALUE.search(str(resource)):
        yield f"{name}: what looks like a key"
    for entry in resource.get("data", {}) if resource["kind"] == "ConfigMap" else ():
        if SECRET_NAME.search(entry):
            yield f"{name}: {entry}"


def inner_services(resource: Resource) -> Iterator[str]:
    if resource["kind"] == "Service":
        spec = resource["spec"]
        if spec.get("type", "ClusterIP") != "ClusterIP" or spec.get("externalIPs"):
            yield f"Service {resource['metadata']['name']}: expected ClusterIP, got {spec.get('type')}"
    if resource["kind"] in {"Ingress", "Gateway", "HTTPRoute"}:
        yield f"{resource['kind']} {resource['metadata']['name']}: opens a dashboard that asks for no password"


def accounts_without_token(resource: Resource) -> Iterator[str]:
    if resource["kind"] == "ServiceAccount" and resource.get("automountServiceAccountToken") is not False:
        yield f"ServiceAccount {resource['metadata']['name']}: its token is mounted"
    if "rbac.authorization.k8s.io" in resource["apiVersion"]:
        yield f"{resource['kind']} {resource['metadata']['name']}: filterdb needs no right in Kubernetes"


def restricted_namespace(resource: Resource) -> Iterator[str]:
    if resource["kind"] == "Namespace":
        for mode in ("enforce", "audit", "warn"):
            if resource["metadata"].get("labels", {}).get(f"pod-security.kubernetes.io/{mode}") != "restricted":
                yield f"Namespace {resource['metadata']['name']}: expected {mode} restricted"


def bounded_jobs(resource: Resource) -> Iterator[str]:
    name = f"{resource['kind']} {resource['metadata']['name']}"
    if resource["kind"] == "CronJob":
        if not 0 < resource["spec"]["jobTemplate"]["spec"].get("activeDeadlineSeconds", 0) < 86_400:
            yield f"{name}: expected activeDeadlineSeconds of less than a day"
        if resource["spec"].get("concurrencyPolicy") != "Forbid":
            yield f"{name}: expected concurrencyPolicy Forbid"
    if resource["kind"] == "Job":
        for field in ("activeDeadlineSeconds", "ttlSecondsAfterFinished"):
            if not 0 < resource["spec"].get(field, 0) <= 86_400:
                yield f"{name}: expected {field} of a day at most"
        if not any(0 < resource["spec"].get(field, 0) < 10 for field in ("backoffLimit", "backoffLimitPerIndex")):
            yield f"{name}: expected a backoffLimit of less than 10"
        if resource["spec"]["template"]["spec"].get("restartPolicy") != "Never":  # podFailurePolicy needs it
            yield f"{name}: expected restartPolicy Never"


def idle_clusters_end(resource: Resource) -> Iterator[str]:
    """Of a job the operator ends the cluster with the runner."""
    job = "dask.org/cluster-name" in resource["metadata"].get("labels", {})
    if resource["kind"] == "DaskCluster" and not job and not 0 < resource["spec"].get("idleTimeout", 0) <= 86_400:
        yield f"DaskCluster {resource['metadata']['name']}: expected idleTimeout"


def never_without_workers(resource: Resource) -> Iterator[str]:
    """filterdb sends no work before there is a worker, and the scheduler asks for none before there is work."""
    if resource["kind"] == "DaskAutoscaler" and not 1 <= resource["spec"]["minimum"] <= resource["spec"]["maximum"]:
        yield f"DaskAutoscaler {resource['metadata']['name']}: expected 1 ≤ minimum ≤ maximum"


OBJECT_RULES = (
    no_secrets_in_objects, inner_services, accounts_without_token, restricted_namespace, bounded_jobs,
    idle_clusters_end, never_without_workers,
)  # fmt: skip
