"""Every manifest, and what the operator makes of it: schemas, policy, images. Nothing here has seen a cluster."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.deploy.manifests import (
    ADMIN,
    COMPONENTS,
    DIGEST,
    FOLDERS,
    JOBS,
    KUBERNETES,
    PLACEHOLDER,
    PLAIN,
    Resource,
    build,
    operated,
    pods,
)  # fmt: skip
from tests.deploy.policy import RULES, object_violations, violations
from tests.deploy.schemas import problems

pytestmark = pytest.mark.slow

IMAGE = f"registry.example/team/filterdb@{DIGEST}"


def everything(folder: str) -> list[Resource]:
    built = build(folder)
    return [*built, *operated(built)]


def test_every_folder_is_listed() -> None:
    """A new overlay or job is tested, or said to be a part."""
    parts = {"pods", "base/nightly", "interactive/cluster", "jobs/common"} | {
        f"components/{name}" for name in COMPONENTS
    }
    parts |= {f"plain/{nodes}/{part}" for nodes in ("one-node", "several-nodes") for part in ("common", "finish")}
    there = {str(path.parent.relative_to(KUBERNETES)) for path in KUBERNETES.rglob("kustomization.yaml")}
    assert there == {*FOLDERS, *PLAIN, *ADMIN, *parts}


@pytest.mark.parametrize("folder", FOLDERS)
def test_schemas(folder: str) -> None:
    for resource in everything(folder):
        assert not problems(resource), (resource["kind"], resource["metadata"]["name"])


@pytest.mark.parametrize("folder", FOLDERS)
def test_policy(folder: str) -> None:
    resources = everything(folder)
    found = pods(build(folder))
    assert found
    for pod in found:
        assert not violations(pod)
    for resource in resources:
        assert not object_violations(resource)


def test_what_the_operator_makes() -> None:
    """That the tests above look at every kind of pod."""

    def made(folder: str) -> list[tuple[str, str]]:
        return sorted((pod.kind, pod.role) for pod in pods(build(folder)))

    assert made("base") == [("CronJob", "ingest-new")]
    assert made("interactive") == [("Deployment", "scheduler"), ("Deployment", "worker")]
    for job in JOBS:
        assert made(f"jobs/{job}") == [("Deployment", "scheduler"), ("Deployment", "worker"), ("Pod", "job-runner")]


# Planted faults: each test above can fail.


def _set(path: str, value: Any) -> Callable[[Resource], None]:
    """Set, or with None remove, what is at a path such as `spec.containers.0.image`."""

    def change(resource: Resource) -> None:
        *way, last = path.split(".")
        place: Any = resource
        for name in way:
            place = place[int(name) if isinstance(place, list) else name]
        key = int(last) if isinstance(place, list) else last
        if value is None:
            del place[key]
        else:
            place[key] = value

    return change


REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"
BAD_PODS = [
    ("non_root", _set("securityContext.runAsUser", 0)),
    ("non_root", _set("securityContext.runAsNonRoot", None)),
    ("non_root", _set("securityContext.fsGroup", None)),
    ("non_root", _set("containers.0.securityContext.runAsUser", 0)),
    ("read_only_root", _set("containers.0.securityContext.readOnlyRootFilesystem", None)),
    ("no_escalation", _set("containers.0.securityContext.allowPrivilegeEscalation", True)),
    ("no_escalation", _set("containers.0.securityContext.privileged", True)),
    ("no_capabilities", _set("containers.0.securityContext.capabilities", {"drop": ["ALL"], "add": ["NET_ADMIN"]})),
    ("no_capabilities", _set("containers.0.securityContext.capabilities", None)),
    ("seccomp_default", _set("securityContext.seccompProfile", {"type": "Unconfined"})),
    ("no_token", _set("automountServiceAccountToken", None)),
    ("no_token", _set("serviceAccountName", "default")),
    ("no_host", _set("hostNetwork", True)),
    ("no_host", _set("volumes.0", {"name": "tls", "hostPath": {"path": "/etc"}})),
    ("no_host", _set("volumes.0", {"name": "tls", "persistentVolumeClaim": {"claimName": "other"}})),
    ("bounded_volumes", _set("volumes.1.emptyDir", {})),
    ("resources_set", _set("containers.0.resources", None)),
    ("resources_set", _set("containers.0.resources.limits.memory", "8Gi")),
    ("image_by_digest", _set("containers.0.image", "registry.example/filterdb:latest")),
    ("image_by_digest", _set("containers.0.image", "filterdb")),
    ("entry_point", _set("containers.0.command", ["dask"])),
    ("encrypted", _set("containers.0.envFrom", [])),
    ("encrypted", _set("containers.0.volumeMounts", [])),
    ("encrypted", _set("containers.0.args", ["dask", "scheduler", "tcp://a:8786"])),
    ("no_literal_secrets", _set("containers.0.env", [{"name": "AWS_SECRET_ACCESS_KEY", "value": "x"}])),
    ("no_literal_secrets", _set("containers.0.env", [{"name": "URL", "value": "https://user:word@host"}])),
]  # fmt: skip

BAD_OF_ROLE = [
    ("job-runner", "deadline", _set("activeDeadlineSeconds", None)),
    ("job-runner", "deadline", _set("restartPolicy", "OnFailure")),
    ("job-runner", "read_only_root", _set("initContainers.0.securityContext", {})),
    ("job-runner", "encrypted", _set("containers.0.env.1.value", "tcp://$(CLUSTER)-scheduler:8786")),
    ("worker", "encrypted", _set("containers.0.env.1", None)),
    ("worker", "dask_commands", _set("containers.0.args.0", "dask-worker")),
    ("scheduler", "dask_commands", _set("containers.0.args", ["dask-scheduler"])),
    ("worker", "probed", _set("containers.0.startupProbe", None)),
    ("scheduler", "probed", _set("containers.0.livenessProbe.httpGet.path", "/info")),
    ("scheduler", "stable_node", _set("affinity", None)),
    ("job-runner", "stable_node", _set(f"affinity.nodeAffinity.{REQUIRED}.0.matchExpressions.0.operator", "In")),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "change"), BAD_PODS)
def test_a_planted_fault_in_any_pod_is_seen(rule: str, change: Callable[[Resource], None]) -> None:
    for pod in pods([*build("base"), *build("interactive"), *build("jobs/reduce")]):
        change(spec := copy.deepcopy(pod.spec))
        assert rule in violations(pod._replace(spec=spec)), pod.name


@pytest.mark.parametrize(("role", "rule", "change"), BAD_OF_ROLE)
def test_a_planted_fault_in_a_pod_is_seen(role: str, rule: str, change: Callable[[Resource], None]) -> None:
    (pod,) = (pod for pod in pods(build("jobs/reduce")) if pod.role == role)
    change(spec := copy.deepcopy(pod.spec))
    assert rule in violations(pod._replace(spec=spec))


def test_a_fault_was_planted_for_every_rule() -> None:
    planted = {rule for rule, _ in BAD_PODS} | {rule for _, rule, _ in BAD_OF_ROLE}
    assert planted == {rule.__name__ for rule in RULES}


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("ServiceAccount", _set("automountServiceAccountToken", None)),
        ("Namespace", _set("metadata.labels", {"pod-security.kubernetes.io/enforce": "baseline"})),
        ("CronJob", _set("spec.jobTemplate.spec.activeDeadlineSeconds", None)),
        ("CronJob", _set("spec.concurrencyPolicy", "Allow")),
        ("DaskCluster", _set("spec.idleTimeout", None)),
        ("DaskAutoscaler", _set("spec.minimum", 0)),
        ("Service", _set("spec.type", "LoadBalancer")),
        ("Service", _set("spec.type", "NodePort")),
        ("ConfigMap", _set("data.AWS_SECRET_ACCESS_KEY", "x")),
        ("ConfigMap", _set("data.KEY", "AKIA" + "A" * 16)),
        ("ConfigMap", _set("kind", "Secret")),
        ("ConfigMap", _set("kind", "Ingress")),
        ("ConfigMap", _set("apiVersion", "rbac.authorization.k8s.io/v1")),
    ],
)
def test_a_planted_fault_in_an_object_is_seen(kind: str, change: Callable[[Resource], None]) -> None:
    every = [each for folder in ("base", "interactive", "admin/namespace") for each in everything(folder)]
    resource = next(each for each in every if each["kind"] == kind)
    assert not object_violations(resource)
    change(resource)
    assert object_violations(resource)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("DaskJob", _set("spec.cluster.spec.worker.spec.containers.0.imagePulPolicy", "Always")),
        ("DaskJob", _set("spec.job.spec.containers", None)),
        ("DaskJob", _set("spec.cluster.metadata", {"labels": {}})),
        ("DaskJob", _set("metadata.label", {})),
        ("DaskJob", _set("spec.cluster.spec.worker.replicas", "four")),
        ("DaskJob", _set("spec.job.spec.volumes.1.emptyDir.sizeLimit", "1 Gi")),
        ("DaskJob", _set("spec.job.spec.containers.0.resources.limits.memory", "2GiB")),
        ("Deployment", _set("spec.template.spec.containers.0.port", 1)),
        ("Deployment", _set("spec.template.spec.restartPolicy", "Never")),
        ("Pod", _set("spec.restartPolicy", "Sometimes")),
        ("Pod", _set("spec.containers.0.args", ["dask", 8786])),
        ("PodDisruptionBudget", _set("spec.minAvailabel", 1)),
    ],
)
def test_a_planted_mistake_is_seen_by_the_schemas(kind: str, change: Callable[[Resource], None]) -> None:
    resource = next(each for each in everything("jobs/reduce") if each["kind"] == kind)
    assert not problems(resource)
    change(resource)
    assert problems(resource)


# Images


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_image_reaches_every_container(folder: str) -> None:
    """Custom resources and what the operator makes of them included."""
    assert {container["image"] for pod in pods(build(folder)) for container in pod.containers} == {PLACEHOLDER}
    built = build(folder, image=IMAGE)
    assert {container["image"] for pod in pods(built) for container in pod.containers} == {IMAGE}
    assert PLACEHOLDER not in json.dumps([built, operated(built)])
    for pod in pods(built):
        assert not violations(pod)


def test_a_tag_is_refused() -> None:
    for pod in pods(build("jobs/reduce", image="registry.example/filterdb:1.0")):
        assert violations(pod).keys() == {"image_by_digest"}
