"""The optional components: monitoring and cert-manager. Their operators' schemas are in no package: checked by hand."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator

import pytest
from distributed import Client, LocalCluster

from filterdb import metrics
from tests.deploy.manifests import KUBERNETES, Resource, build, pods
from tests.deploy.network import selects
from tests.deploy.policy import object_violations
from tests.deploy.schemas import problems

COMPONENTS = ("components/monitoring", "components/cert-manager")
HTTP = "127.0.0.1:0"
KNOWN = {
    "PodMonitor": {"selector", "podTargetLabels", "podMetricsEndpoints"},
    "Issuer": {"selfSigned", "ca"},
    "Certificate": {
        "isCA", "commonName", "dnsNames", "secretName", "duration", "renewBefore", "usages", "privateKey", "issuerRef",
    },
}  # fmt: skip
"""Fields of their `spec` that are used here."""


@pytest.fixture(scope="module")
def built() -> list[Resource]:
    return build("overlays/workload-identity", components=COMPONENTS)


def of_kind(built: list[Resource], kind: str) -> dict[str, Resource]:
    return {resource["metadata"]["name"]: resource for resource in built if resource["kind"] == kind}


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_component_only_adds(component: str) -> None:
    plain = build("overlays/workload-identity")
    more = [one for one in build("overlays/workload-identity", components=[component]) if one not in plain]
    assert len(more) + len(plain) == len(build("overlays/workload-identity", components=[component]))
    for resource in more:
        assert resource["metadata"]["namespace"] == "filterdb"
        assert not object_violations(resource)
        if resource["kind"] in KNOWN:
            assert resource["spec"].keys() <= KNOWN[resource["kind"]]
        else:
            assert not problems(resource)


def test_prometheus_asks_every_scheduler_and_worker_where_it_answers(built: list[Resource]) -> None:
    monitor = of_kind(built, "PodMonitor")["filterdb"]["spec"]
    for pod in pods([*built, *build("interactive"), *build("jobs/reduce")]):
        assert selects(monitor["selector"], pod.labels) is (pod.role in {"scheduler", "worker"})
        if pod.role in {"scheduler", "worker"}:
            ports = {port["name"] for container in pod.containers for port in container["ports"]}
            assert {endpoint["port"] for endpoint in monitor["podMetricsEndpoints"]} <= ports
            assert set(monitor["podTargetLabels"]) <= pod.labels.keys()


@pytest.fixture(scope="module")
def served() -> Iterator[dict[str, set[str]]]:
    """What a scheduler and a worker serve: metrics, and the labels of each."""
    metrics.count(metrics.FILTERS, 1, **{"pass": "moments"})
    metrics.count(metrics.BYTES, 36, **{"pass": "moments"})
    metrics.count(metrics.RETRIES)
    metrics.count(metrics.QUARANTINED)
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=HTTP, worker_dashboard_address=HTTP
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.submit(sum, [1, 2]).result()
        servers = [cluster.scheduler.http_server, cluster.workers[0].http_server]
        pages = [urllib.request.urlopen(f"http://127.0.0.1:{one.port}/metrics", timeout=30).read() for one in servers]
    found: dict[str, set[str]] = {}
    for name, labels in re.findall(r"^([a-z_]+)(\{.*\})? ", b"".join(pages).decode(), re.MULTILINE):
        found.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    yield found


def expressions() -> list[str]:
    dashboard = json.loads((KUBERNETES / "components/monitoring/dashboard.json").read_text())
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


@pytest.mark.parametrize("expression", expressions())
def test_the_dashboard_asks_for_what_is_served(served: dict[str, set[str]], expression: str) -> None:
    (metric,) = re.findall(r"(\w+)\{", expression)
    assert metric in served
    for label in re.findall(r"by \((\w+)\)", expression):
        assert label in served[metric]
    # Those that Prometheus adds: of the namespace, and of the monitor's podTargetLabels.
    asked = set(re.findall(r"(\w+)=~?\"", expression))
    assert asked == {"namespace", re.sub(r"\W", "_", "dask.org/cluster-name")}


def test_every_metric_of_ours_is_on_the_dashboard() -> None:
    every = " ".join(expressions())
    for name in (metrics.FILTERS, metrics.BYTES, metrics.RETRIES, metrics.QUARANTINED):
        assert f"{name}_total{{" in every


def test_the_dashboard_gets_into_its_config_map(built: list[Resource]) -> None:
    found = of_kind(built, "ConfigMap")["filterdb-dashboard"]
    assert found["metadata"]["labels"] == {"grafana_dashboard": "1"}
    assert json.loads(found["data"]["filterdb.json"])["title"] == "filterdb"


def test_cert_manager_writes_the_secret_that_pods_mount(built: list[Resource]) -> None:
    issuers, certificates = of_kind(built, "Issuer"), of_kind(built, "Certificate")
    mine = certificates["filterdb-tls"]["spec"]
    (mounted,) = {
        volume["secret"]["secretName"] for pod in pods(built) for volume in pod.spec["volumes"] if "secret" in volume
    }
    assert mine["secretName"] == mounted
    assert set(mine["usages"]) == {"server auth", "client auth"}  # the same for both ends
    authority = issuers[mine["issuerRef"]["name"]]["spec"]["ca"]["secretName"]
    (root,) = (one["spec"] for one in certificates.values() if one["spec"]["secretName"] == authority)
    assert root["isCA"] is True
    assert "selfSigned" in issuers[root["issuerRef"]["name"]]["spec"]
