"""Every overlay with the components that a site may need, jobs and interactive cluster included; several namespaces."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from tests.deploy.manifests import (
    ADMIN,
    COMPONENTS,
    FOLDERS,
    OVERLAYS,
    Pod,
    Resource,
    build,
    everything,
    operated,
    pods,
)  # fmt: skip
from tests.deploy.policy import UID
from tests.deploy.schemas import crds, problems
from tests.deploy.test_network import WANTED, connections, ends
from tests.deploy.validity import check_valid

pytestmark = pytest.mark.slow

SITE = ("openshift", "pull-secret", "dedicated-nodes")
"""Components that a site chooses; the others are parts of overlays, or need another operator."""

NAMESPACED = {
    "ConfigMap", "CronJob", "DaskAutoscaler", "DaskCluster", "DaskJob", "NetworkPolicy", "PersistentVolumeClaim",
    "PodDisruptionBudget", "ServiceAccount", "Certificate", "Issuer", "PodMonitor",
}  # fmt: skip

OF_A_POD: dict[str, Callable[[Pod], bool]] = {
    "openshift": lambda pod: not {"runAsUser", "runAsGroup", "fsGroup"} & pod.spec["securityContext"].keys(),
    "dedicated-nodes": lambda pod: (
        pod.spec.get("nodeSelector") == {"dedicated": "filterdb"}
        and {"key": "dedicated", "operator": "Equal", "value": "filterdb"} in pod.spec["tolerations"]
    ),
    "volume": lambda pod: ("filterdb-data" in str(pod.spec["volumes"])) is (pod.role != "scheduler"),
    "azure-identity": lambda pod: pod.labels.get("azure.workload.identity/use") == "true",
}
"""What a component does to every pod."""


SOME = [pytest.param(name, marks=[] if name in {"volume", "kind"} else [pytest.mark.soak]) for name in OVERLAYS]
"""Every overlay, those that differ least from the others in the soak tests only."""


@pytest.mark.parametrize("overlay", SOME)
def test_a_site_s_components_reach_every_pod(overlay: str) -> None:
    resources = everything(overlay, components=SITE)
    check_valid(resources)
    every = pods(resources)
    assert {pod.role for pod in every} == {"scheduler", "worker", "job-runner", "ingest-new"}
    for component in SITE:
        assert all(OF_A_POD[component](pod) for pod in every if component in OF_A_POD)
    accounts = [one for one in resources if one["kind"] == "ServiceAccount"]
    assert {one["metadata"]["name"] for one in accounts} == {pod.spec["serviceAccountName"] for pod in every}
    assert all(one["imagePullSecrets"] == [{"name": "filterdb-registry"}] for one in accounts)


PARTS = {"azure": "azure-identity", "kind": "small", "volume": "volume"}
"""The component that an overlay has already."""


@pytest.mark.soak
@pytest.mark.parametrize(
    ("overlay", "component"),
    [(overlay, component) for overlay in OVERLAYS for component in COMPONENTS if PARTS.get(overlay) != component],
)
def test_every_overlay_with_every_component(overlay: str, component: str) -> None:
    resources = everything(overlay, components=[component])
    check_valid(resources)
    rule = OF_A_POD.get(component, lambda pod: True)
    assert all(rule(pod) for pod in pods(resources))
    everyone = ends("base", "interactive", "jobs/reduce")
    inner = {one for one in WANTED if {one[0], one[1]} <= everyone.keys()}
    assert connections(resources, everyone) == inner


def test_volume_and_azure_reach_every_pod_of_their_overlays() -> None:
    for overlay, component in (("volume", "volume"), ("azure", "azure-identity")):
        assert all(OF_A_POD[component](pod) for pod in pods(everything(overlay)))


@pytest.mark.parametrize("folder", FOLDERS)
def test_elsewhere_pods_have_the_image_s_user(folder: str) -> None:
    for pod in pods(build(folder)):
        assert pod.spec["securityContext"]["runAsUser"] == UID


# Namespaces


@pytest.mark.parametrize("overlay", SOME)
def test_two_teams_on_a_cluster(overlay: str) -> None:
    """The same in each namespace, and nothing that both would share."""
    first, second = (
        everything(overlay, components=["monitoring", "cert-manager"], namespace=f"team-{x}") for x in "ab"
    )
    assert json.loads(json.dumps(first).replace("team-a", "team-b")) == second
    for resource in [*first, *operated(first)]:
        assert resource["kind"] in NAMESPACED | {"Deployment", "Service", "DaskWorkerGroup", "Pod"}
    for resource in first:
        assert resource["metadata"]["namespace"] == "team-a"
        text = json.dumps(resource)
        assert "team-b" not in text and not re.search(r'"namespace": "filterdb"|filterdb\.svc', text)
        others = set(re.findall(r'"kubernetes.io/metadata.name": "([\w-]+)"', text))
        assert others <= {"kube-system", "dask-operator", "monitoring"}


# What the cluster's admin applies


def test_the_admin_s_objects_are_valid() -> None:
    for folder in ADMIN:
        for resource in build(folder):
            assert not problems(resource)
            assert "namespace" not in resource["metadata"]
    assert {one["kind"] for one in build("admin")} == {"ClusterRole", "ClusterRoleBinding"}
    (team,) = build("admin/namespace", namespace="team-a")
    assert team["metadata"]["name"] == "team-a"


def test_the_operator_may_update_finalizers_and_nothing_else() -> None:
    role, binding = (
        _named("filterdb-dask-operator-finalizers", kind) for kind in ("ClusterRole", "ClusterRoleBinding")
    )
    (rule,) = role["rules"]
    assert (rule["apiGroups"], rule["verbs"]) == (["kubernetes.dask.org"], ["update"])
    assert set(rule["resources"]) == {f"{plural}/finalizers" for plural in crds()}
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert [subject["name"] for subject in binding["subjects"]] == ["system:serviceaccounts:dask-operator"]


@pytest.mark.parametrize(("role", "roles"), [("edit", {"admin", "edit"}), ("view", {"view"})])
def test_dask_resources_belong_to_kubernetes_own_roles(role: str, roles: set[str]) -> None:
    resource = _named(f"filterdb-dask-{role}", "ClusterRole")
    prefix = "rbac.authorization.k8s.io/aggregate-to-"
    assert resource["metadata"]["labels"] == {f"{prefix}{name}": "true" for name in roles}
    (rule,) = resource["rules"]
    assert rule["apiGroups"] == ["kubernetes.dask.org"]
    assert {name.split("/")[0] for name in rule["resources"]} == set(crds())
    assert ("create" in rule["verbs"]) is (role == "edit")


def _named(name: str, kind: str) -> Resource:
    (resource,) = (one for one in build("admin") if (one["kind"], one["metadata"]["name"]) == (kind, name))
    return resource
