"""Who reaches whom in the namespace: the policies against the labels that pods really get."""

from __future__ import annotations

import copy
import re

import pytest

from tests.deploy.manifests import APPLIED_ALONE, JOBS, OVERLAYS, Pod, Resource, build, pods
from tests.deploy.network import INTERNET, End, allowed, selects

OPERATOR = End({"app.kubernetes.io/name": "dask-kubernetes-operator"}, "dask-operator")
PROMETHEUS = End({"app.kubernetes.io/name": "prometheus"}, "monitoring")
DNS = End({"k8s-app": "kube-dns"}, "kube-system")
STRANGER = End({"app": "stranger"}, "default")
NEIGHBOUR = End({"app": "neighbour"})  # in our own namespace
CLIENT = End({"app.kubernetes.io/name": "filterdb", "app.kubernetes.io/component": "client"})
STORE = End(address=INTERNET)


def ends(*folders: str) -> dict[str, End]:
    """The pods of these folders by role and cluster: `scheduler`, `job scheduler`, …"""
    found = {}
    for folder in folders:
        for pod in pods(build(folder)):
            job = "job " if folder.startswith("jobs/") and pod.role != "job-runner" else ""
            found[job + pod.role] = End(pod.labels)
    return found


@pytest.fixture(scope="module")
def policies() -> list[Resource]:
    return build("overlays/workload-identity")


@pytest.fixture(scope="module")
def everyone() -> dict[str, End]:
    return {
        **ends("base", "interactive", "jobs/reduce"),
        "client": CLIENT,
        "operator": OPERATOR,
        "prometheus": PROMETHEUS,
        "dns": DNS,
        "stranger": STRANGER,
        "neighbour": NEIGHBOUR,
        "store": STORE,
    }


OURS = {"scheduler", "job scheduler", "worker", "job worker", "job-runner", "ingest-new"}
PORTS = (22, 53, 80, 443, 6443, 8333, 8786, 8787, 8788, 8999, 9000, 9010, 9019, 9020)

WANTED = {
    **{(who, "dns", 53): "names" for who in OURS | {"client", "neighbour"}},
    **{  # where a bucket is, nobody can say: anywhere but here
        (who, outside, 443): "the bucket"
        for who in OURS - {"scheduler", "job scheduler"} | {"client"}
        for outside in ("store", "dns", "operator", "prometheus", "stranger")
    },
    **{
        (who, scheduler, 8786): "Dask"
        for who in ("worker", "job worker", "job-runner", "client")
        for scheduler in ("scheduler", "job scheduler")
    },
    **{
        (who, worker, port): "Dask"
        for who in ("scheduler", "job scheduler", "worker", "job worker")
        for worker in ("worker", "job worker")
        for port in (9000, 9010, 9019)
    },
    ("operator", "scheduler", 8787): "the HTTP API of the interactive cluster",
    ("operator", "job scheduler", 8787): "the answer that a job's cluster has no such API",
}
"""Every connection that there may be, of all pairs and ports."""


def connections(policies: list[Resource], everyone: dict[str, End]) -> set[tuple[str, str, int]]:
    """All that pass, with one of ours at one end."""
    return {
        (source, target, port)
        for source in everyone
        for target in everyone
        for port in PORTS
        if {source, target} & (OURS | {"client", "neighbour"}) and source != "store"
        if allowed(policies, everyone[source], everyone[target], port)
    }


def test_exactly_the_connections_that_the_work_needs(policies: list[Resource], everyone: dict[str, End]) -> None:
    assert everyone.keys() >= OURS
    assert connections(policies, everyone) == set(WANTED)


def test_nothing_comes_in_from_outside(policies: list[Resource], everyone: dict[str, End]) -> None:
    assert not [
        (name, port)
        for name in OURS
        for port in PORTS
        if allowed(policies, End(address=INTERNET), everyone[name], port)
    ]


def test_of_udp_only_names(policies: list[Resource], everyone: dict[str, End]) -> None:
    for name in OURS:
        assert allowed(policies, everyone[name], DNS, 53, "UDP")
        assert not allowed(policies, everyone[name], STORE, 443, "UDP")


@pytest.mark.parametrize(
    "name", ["default-deny", "dns", "storage", "scheduler", "operator", "worker", "to-scheduler", "client"]
)
def test_each_policy_is_needed(policies: list[Resource], everyone: dict[str, End], name: str) -> None:
    """Without it another set of connections passes: the test above looks at every one."""
    fewer = [one for one in policies if not (one["kind"] == "NetworkPolicy" and one["metadata"]["name"] == name)]
    assert len(fewer) == len(policies) - 1
    assert connections(fewer, everyone) != set(WANTED)


def test_monitoring_lets_prometheus_in_and_nobody_else(everyone: dict[str, End]) -> None:
    monitored = build("overlays/workload-identity", components=["components/monitoring"])
    more = connections(monitored, everyone) - set(WANTED)
    pages = {"scheduler", "job scheduler", "worker", "job worker"}
    assert more == {("prometheus", name, port) for name in pages for port in (8787, 8788)}


IDENTITIES = {
    "workload-identity": [("169.254.170.23", 80), ("fd00:ec2::23", 80)],
    "gcs": [("169.254.169.254", 80), ("169.254.169.254", 988), ("169.254.169.252", 988)],
    "azure": [("169.254.169.254", 80)],
}
"""Where each cloud's nodes give credentials to pods."""


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_credentials_of_its_own_cloud_and_no_other(overlay: str, everyone: dict[str, End]) -> None:
    built = build(f"overlays/{overlay}")
    places = {place for each in IDENTITIES.values() for place in each}
    for name in ("worker", "job worker", "job-runner", "ingest-new"):
        reached = {place for place in places if allowed(built, everyone[name], End(address=place[0]), place[1])}
        assert reached >= set(IDENTITIES.get(overlay, []))
        assert {address for address, _ in reached} == {address for address, _ in IDENTITIES.get(overlay, [])}
    assert not any(allowed(built, everyone["scheduler"], End(address=place[0]), place[1]) for place in places)


OPENSHIFT_DNS = End({"dns.operator.openshift.io/daemonset-dns": "default"}, "openshift-dns")


def test_openshift_resolves_names(everyone: dict[str, End]) -> None:
    built = build("overlays/workload-identity", components=["components/openshift"])
    for name in OURS:
        for protocol in ("UDP", "TCP"):
            assert allowed(built, everyone[name], OPENSHIFT_DNS, 5353, protocol)
            assert not allowed(build("overlays/workload-identity"), everyone[name], OPENSHIFT_DNS, 5353, protocol)
    assert connections(built, everyone) == set(WANTED)


@pytest.mark.parametrize("overlay", [overlay for overlay in OVERLAYS if overlay != "volume"])
def test_the_endpoint_can_be_reached(overlay: str, everyone: dict[str, End]) -> None:
    built = build(f"overlays/{overlay}")
    (settings,) = (one["data"] for one in built if one["metadata"]["name"] == "filterdb-job")
    endpoint = re.fullmatch(r"https?://[^/:]+(?::(\d+))?", settings.get("AWS_ENDPOINT_URL", "https://s3"))
    assert endpoint is not None
    port = int(endpoint[1] or 443)
    for name in ("worker", "job worker", "job-runner", "ingest-new"):
        assert allowed(built, everyone[name], STORE, port), name
    assert not allowed(built, everyone["scheduler"], STORE, port)


def _range(pod: Pod, option: str) -> range:
    args = pod.spec["containers"][0]["args"]
    first, last = args[args.index(option) + 1].split(":")
    return range(int(first), int(last) + 1)


@pytest.mark.parametrize("folder", APPLIED_ALONE)
def test_workers_listen_where_the_policies_let_in(folder: str, policies: list[Resource]) -> None:
    for pod in pods(build(folder)):
        if pod.role == "worker":
            listening = {*_range(pod, "--worker-port"), *_range(pod, "--nanny-port")}
            assert len(listening) == 20  # the two do not overlap
            worker = End(pod.labels)
            assert all(allowed(policies, worker, worker, port) for port in listening)


def budgets(built: list[Resource]) -> list[Resource]:
    return [one for one in built if one["kind"] == "PodDisruptionBudget"]


@pytest.mark.parametrize("job", JOBS)
def test_schedulers_and_runners_are_not_evicted(job: str) -> None:
    """One budget each (Kubernetes refuses to evict under two), that leaves nothing to evict; none for workers."""
    base, own = [*build("base"), *build("interactive")], build(f"jobs/{job}")
    every = budgets(base) + budgets(own)
    for pod in pods([*base, *own]):
        holding = [one["spec"] for one in every if selects(one["spec"]["selector"], pod.labels)]
        if pod.role == "scheduler":  # a Deployment's
            assert [one.get("maxUnavailable") for one in holding] == [0]
        elif pod.role == "job-runner":  # nobody's: only a number of pods that stay
            assert [one.get("minAvailable") for one in holding] == [1]
        else:
            assert not holding


def test_a_runner_is_held_by_its_own_job_alone() -> None:
    """One budget for all would let all but one be evicted."""
    runners = {job: next(pod for pod in pods(build(f"jobs/{job}")) if pod.role == "job-runner") for job in JOBS}
    for job in JOBS:
        (budget,) = budgets(build(f"jobs/{job}"))
        assert [one for one in JOBS if selects(budget["spec"]["selector"], runners[one].labels)] == [job]


def test_the_evaluator_refuses_what_it_does_not_know() -> None:
    with pytest.raises(KeyError):
        selects({"matchExpressions": [{"key": "a", "operator": "Near", "values": ["b"]}]}, {})
    with pytest.raises(AssertionError):
        selects({"labels": {"a": "b"}}, {})


@pytest.mark.parametrize(
    ("source", "target", "port"),
    [("stranger", "scheduler", 8787), ("operator", "scheduler", 8787), ("worker", "scheduler", 8787)],
)
def test_a_planted_hole_is_seen(
    policies: list[Resource], everyone: dict[str, End], source: str, target: str, port: int
) -> None:
    """An ingress of one rule without `from` lets everybody at the HTTP API."""
    open_door = copy.deepcopy(next(one for one in policies if one["metadata"]["name"] == "operator"))
    open_door["metadata"]["name"] = "planted"
    del open_door["spec"]["ingress"][0]["from"]
    found = connections([*policies, open_door], everyone)
    assert found != set(WANTED)
    assert ((source, target, port) in found) is (source != "worker")  # a worker's own egress still holds it
