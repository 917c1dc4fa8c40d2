"""Jobs without operator (deploy/kubernetes/plain): their pods are those of the DaskJobs, and all of them end."""

from __future__ import annotations

import copy
import itertools
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dask.utils import parse_bytes, parse_timedelta
from kubernetes.utils.quantity import parse_quantity

from filterdb.cluster import settings
from filterdb.cluster.memory import PROCESS_BYTES
from filterdb.errors import InterruptedRunError, StoreError
from filterdb.models.sandbox import Limits
from tests.deploy.manifests import (
    DIGEST,
    JOBS,
    NAMESPACE,
    PLACEHOLDER,
    PLAIN,
    Pod,
    Resource,
    build,
    pods,
    processes,
)
from tests.deploy.network import INTERNET, End, allowed, selects
from tests.deploy.policy import object_violations, violations
from tests.deploy.schemas import problems
from tests.deploy.test_combinations import OF_A_POD
from tests.deploy.validity import check_valid

pytestmark = pytest.mark.slow

IMAGE = f"registry.example/team/filterdb@{DIGEST}"
NANNY = 256 * 2**20
"""More than the process beside a worker takes."""


def of_kind(built: list[Resource], kind: str) -> dict[str, Resource]:
    return {each["metadata"]["name"]: each for each in built if each["kind"] == kind}


def by_role(folder: str) -> dict[str, Pod]:
    return {pod.role: pod for pod in pods(build(folder))}


@pytest.mark.parametrize("folder", PLAIN)
def test_schemas_and_policy(folder: str) -> None:
    check_valid(build(folder))


@pytest.mark.parametrize("folder", PLAIN)
def test_no_operator_is_needed(folder: str) -> None:
    """Neither its kinds nor the API that it asks; the overlays have none of its kinds either."""
    kinds = {each["apiVersion"] for each in [*build(folder), *build("overlays/workload-identity")]}
    assert kinds <= {"v1", "batch/v1", "policy/v1", "networking.k8s.io/v1"}


@pytest.mark.parametrize("job", JOBS)
def test_what_there_is(job: str) -> None:
    one, several = (build(f"plain/{nodes}/{job}") for nodes in ("one-node", "several-nodes"))
    name = f"filterdb-{job}"
    assert sorted((each["kind"], each["metadata"]["name"]) for each in one) == [
        ("Job", name),
        ("PodDisruptionBudget", name),
    ]
    assert sorted((each["kind"], each["metadata"]["name"]) for each in several) == [
        *(("Job", f"{name}-{part}") for part in ("runner", "scheduler", "workers")),
        ("PodDisruptionBudget", name),
        ("PodDisruptionBudget", f"{name}-scheduler"),
        ("Service", f"{name}-scheduler"),
    ]


@pytest.mark.parametrize("folder", PLAIN)
def test_the_image_reaches_every_container(folder: str) -> None:
    for image, built in ((PLACEHOLDER, build(folder)), (IMAGE, build(folder, image=IMAGE))):
        assert {container["image"] for pod in pods(built) for container in pod.containers} == {image}


# One source of truth


@pytest.mark.parametrize("job", JOBS)
def test_pods_on_several_nodes_are_the_operators(job: str) -> None:
    """But for how they end, and what the operator sets itself."""
    ours, theirs = by_role(f"plain/several-nodes/{job}"), by_role(f"jobs/{job}")
    assert ours.keys() == theirs.keys()
    for role, pod in ours.items():
        labels = {key: value for key, value in pod.labels.items() if key != "batch.kubernetes.io/job-name"}
        assert labels.items() <= theirs[role].labels.items()
        assert labels.keys() >= {"app.kubernetes.io/name", "dask.org/cluster-name", "dask.org/component"}
        mine, other = copy.deepcopy(pod.spec), copy.deepcopy(theirs[role].spec)
        for spec in (mine, other):
            for name in ("restartPolicy", "activeDeadlineSeconds"):
                spec.pop(name, None)
            (container,) = spec["containers"]
            container.get("livenessProbe", {}).pop("failureThreshold", None)
            container["env"] = [
                entry
                for entry in container["env"]
                if entry["name"] not in {"DASK_WORKER_NAME", "DASK_SCHEDULER_ADDRESS"} or role == "job-runner"
            ]
        args = mine["containers"][0]["args"]
        if role != "job-runner":
            assert args[:2] == ["sh", "-c"]
            del args[:4]
        if role == "scheduler":
            assert args[-2] == "--idle-timeout"
            del args[-2:]
        assert mine == {**other, "containers": [{**other["containers"][0], "env": mine["containers"][0]["env"]}]}


@pytest.mark.parametrize("job", JOBS)
def test_the_command_in_one_pod_is_the_runners(job: str) -> None:
    """But for where it computes."""
    (pod,) = pods(build(f"plain/one-node/{job}"))
    runner = by_role(f"jobs/{job}")["job-runner"]
    theirs = runner.spec["containers"][0]["args"]
    place = theirs.index("--scheduler")
    assert pod.spec["containers"][0]["args"] == [*theirs[:place], "--workers", "4", *theirs[place + 2 :]]
    for name in ("affinity", "securityContext", "serviceAccountName", "automountServiceAccountToken"):
        assert pod.spec[name] == runner.spec[name]


@pytest.mark.parametrize("job", JOBS)
def test_commands_are_resolved(job: str) -> None:
    folder = f"plain/several-nodes/{job}"
    (service,) = of_kind(build(folder), "Service")
    for process in processes(build(folder), build("overlays/s3-endpoint")):
        assert "$(" not in " ".join([*process.command, *process.environment.values()])
        if process.container != "scheduler":
            assert process.environment["DASK_SCHEDULER_ADDRESS"] == f"tls://{service}:8786"
        if process.container == "worker":
            assert process.command[process.command.index("--name") + 1] == process.pod


@pytest.mark.parametrize("job", JOBS)
def test_the_service_leads_to_its_scheduler_alone(job: str) -> None:
    (service,) = of_kind(build(f"plain/several-nodes/{job}"), "Service").values()
    every = [pod for other in JOBS for pod in pods(build(f"plain/several-nodes/{other}"))]
    names = [pod.name for pod in every if selects({"matchLabels": service["spec"]["selector"]}, pod.labels)]
    assert names == [service["metadata"]["name"]]


# Ends


@pytest.mark.parametrize("folder", PLAIN)
def test_what_a_rerun_can_mend_is_tried_again(folder: str) -> None:
    """Exit codes of the store and of an interrupted run, and kills; no other. An eviction does not count."""
    jobs = of_kind(build(folder), "Job").values()
    for job in jobs:
        rules = job["spec"]["podFailurePolicy"]["rules"]
        assert rules[0] == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
        runs = job["spec"]["template"]["spec"]["containers"][0]["name"] == "runner"
        assert len(rules) == 1 + runs
        if runs:
            codes = rules[1]["onExitCodes"]
            assert (rules[1]["action"], codes["operator"]) == ("FailJob", "NotIn")
            assert codes["values"] == [StoreError.exit_code, InterruptedRunError.exit_code, 128 + 9, 128 + 15]


@pytest.mark.parametrize("job", JOBS)
def test_an_idle_scheduler_outlives_the_wait_for_it(job: str) -> None:
    """Else a runner that starts late would find none; both end before the deadline."""
    scheduler = by_role(f"plain/several-nodes/{job}")["scheduler"].spec["containers"][0]["args"]
    idle = parse_timedelta(scheduler[scheduler.index("--idle-timeout") + 1])
    assert settings.seconds("filterdb.start-timeout") < idle
    jobs = of_kind(build(f"plain/several-nodes/{job}"), "Job").values()
    assert all(idle < each["spec"]["activeDeadlineSeconds"] for each in jobs)


@pytest.mark.parametrize("job", JOBS)
def test_probes_are_as_patient_as_a_worker_without_scheduler(job: str) -> None:
    """It has no page then, and is not dead."""
    (worker,) = by_role(f"plain/several-nodes/{job}")["worker"].spec["containers"]
    alone = settings.seconds("filterdb.death-timeout")
    assert float(worker["args"][worker["args"].index("--death-timeout") + 1]) == alone
    for name in ("startupProbe", "livenessProbe"):
        assert worker[name]["periodSeconds"] * worker[name]["failureThreshold"] >= alone


def shell(role: str, tmp_path: Path, codes: list[int]) -> subprocess.Popen[bytes]:
    """Begin the shell of a role's pod, with a command that ends with one code after the other and then stays."""
    args = by_role("plain/several-nodes/reduce")[role].spec["containers"][0]["args"]
    assert args[:2] == ["sh", "-c"] and args[4] == "dask"
    left = tmp_path / "codes"
    left.write_text("".join(f"{code}\n" for code in codes))
    command = tmp_path / "dask"
    stay = f"touch {tmp_path}/stays; exec sleep 60"
    command.write_text(f'#!/bin/sh\nread -r code <{left} || {{ {stay}; }}\nsed -i 1d {left}\nexit "$code"\n')
    command.chmod(0o755)
    return subprocess.Popen([*args[:4], str(command), *args[5:]], start_new_session=True)


@pytest.mark.parametrize(
    ("role", "codes", "end"),
    [
        ("scheduler", [0], 0),  # idle
        ("scheduler", [1], 1),
        ("worker", [1], 1),  # never had a scheduler: the Job tries again
        ("worker", [0, 1], 0),  # lost it, and no other came: the work is over
        ("worker", [0, 0, 0, 1], 0),  # another came, twice
    ],
)
def test_how_a_pod_ends(role: str, codes: list[int], end: int, tmp_path: Path) -> None:
    assert shell(role, tmp_path, codes).wait(timeout=20) == end
    assert (tmp_path / "codes").read_text() == ""


@pytest.mark.parametrize("role", ["scheduler", "worker"])
def test_a_pod_that_is_evicted_has_failed(role: str, tmp_path: Path) -> None:
    """Dask alone would end with 0, and the Job would take the pod for one that is done."""
    begun = shell(role, tmp_path, [])
    try:
        for _ in range(400):
            if (tmp_path / "stays").exists():
                break
            subprocess.run(["sleep", "0.05"], check=True)
        begun.send_signal(signal.SIGTERM)
        assert begun.wait(timeout=20) == -signal.SIGTERM
    finally:
        begun.kill()
        subprocess.run(["kill", "-9", "--", f"-{begun.pid}"], check=False, capture_output=True)


# Memory and disk


@pytest.mark.parametrize("job", JOBS)
def test_one_pod_holds_its_workers(job: str) -> None:
    """The client with its scheduler, workers of one thread, and beside each of an ingest's a child that reads."""
    (pod,) = pods(build(f"plain/one-node/{job}"))
    (container,) = pod.spec["containers"]
    workers = int(container["args"][container["args"].index("--workers") + 1])
    limits = container["resources"]["limits"]
    assert (1 + workers) * (PROCESS_BYTES + NANNY) + workers * Limits().memory <= parse_quantity(limits["memory"])
    assert parse_quantity(limits["cpu"]) >= workers


@pytest.mark.parametrize("job", JOBS)
def test_one_pod_spills_where_there_is_room(job: str) -> None:
    (pod,) = pods(build(f"plain/one-node/{job}"))
    (container,) = pod.spec["containers"]
    assert container["env"] == [{"name": "DASK_TEMPORARY_DIRECTORY", "value": "/scratch"}]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    sizes = {each["name"]: each.get("emptyDir", {}).get("sizeLimit", 0) for each in pod.spec["volumes"]}
    assert parse_bytes(sizes[mounts["/scratch"]].replace("Gi", "GiB")) >= 8 * 2**30
    limit = parse_quantity(container["resources"]["limits"]["ephemeral-storage"])
    assert sum(parse_quantity(size) for size in sizes.values()) < limit


# Network and budgets


@pytest.mark.parametrize("job", JOBS)
def test_the_network_is_that_of_the_operators_pods(job: str) -> None:
    """Each pair of pods, each port; and the store."""
    policies = build("overlays/workload-identity")
    theirs = {role: End(pod.labels) for role, pod in by_role(f"jobs/{job}").items()}
    pairs = {role: (End(pod.labels), theirs[role]) for role, pod in by_role(f"plain/several-nodes/{job}").items()}
    pairs["store"] = (End(address=INTERNET),) * 2
    seen = set()
    for port in (53, 80, 443, 6443, 8786, 8787, 8788, 9000, 9019, 9020):
        for source, target in itertools.permutations(pairs, 2):
            ours, operators = (allowed(policies, pairs[source][n], pairs[target][n], port) for n in range(2))
            assert ours is operators, (source, target, port)
            seen |= {(source, target, port)} if ours else set()
    assert {("worker", "scheduler", 8786), ("job-runner", "scheduler", 8786), ("worker", "store", 443)} <= seen


@pytest.mark.parametrize("job", JOBS)
def test_one_pod_reaches_the_store_and_nothing_reaches_it(job: str) -> None:
    policies = build("overlays/workload-identity")
    (pod,) = pods(build(f"plain/one-node/{job}"))
    assert allowed(policies, End(pod.labels), End(address=INTERNET), 443)
    assert not allowed(policies, End(pod.labels), End(address=INTERNET), 80)
    for other in pods([*build("jobs/reduce"), *build("plain/several-nodes/reduce")]):
        assert not allowed(policies, End(other.labels), End(pod.labels), 8786)
        assert not allowed(policies, End(pod.labels), End(other.labels), 8787)


@pytest.mark.parametrize("folder", PLAIN)
def test_schedulers_and_runners_are_not_evicted(folder: str) -> None:
    """One budget each (Kubernetes refuses to evict under two), of a number of pods: Jobs cannot be asked for theirs."""
    every = [each for part in ("base", *PLAIN) for each in build(part) if each["kind"] == "PodDisruptionBudget"]
    for pod in pods(build(folder)):
        holding = [each["spec"] for each in every if selects(each["spec"]["selector"], pod.labels)]
        if pod.role == "worker":
            assert not holding
        else:
            assert [each.get("minAvailable") for each in holding] == [1], pod.name
            (budget,) = holding
            held = [
                other.name for part in PLAIN for other in pods(build(part)) if selects(budget["selector"], other.labels)
            ]
            assert held == [pod.name]


# Kueue


@pytest.mark.parametrize("folder", [*PLAIN, "base"])
def test_kueue_starts_every_job_suspended(folder: str) -> None:
    """It changes nothing else."""
    before, after = build(folder), build(folder, components=["components/kueue"])
    queue = {"kueue.x-k8s.io/queue-name": "filterdb"}
    for resource in after:
        assert not problems(resource)
        if resource["kind"] == "Job":
            assert resource["spec"].pop("suspend") is True
            assert resource["metadata"]["labels"].pop(*queue) == "filterdb"
        elif resource["kind"] == "CronJob":
            assert resource["spec"]["jobTemplate"].pop("metadata") == {"labels": queue}
            assert resource["spec"]["jobTemplate"]["spec"].pop("suspend") is True
    assert after == before


# What a site chooses


@pytest.mark.parametrize("folder", PLAIN)
def test_a_site_s_components_reach_every_pod(folder: str) -> None:
    """As they reach the operator's pods (tests/deploy/test_combinations.py)."""
    built = build(folder, components=[f"components/{name}" for name in OF_A_POD])
    assert all(not problems(resource) and not object_violations(resource) for resource in built)
    for pod in pods(built):
        assert not violations(pod)
        for component, reached in OF_A_POD.items():
            assert reached(pod), (component, pod.name)


# Namespaces


@pytest.mark.parametrize("folder", PLAIN)
def test_the_namespace_is_a_parameter(folder: str) -> None:
    here, there = build(folder), build(folder, namespace="team-b")
    assert {each["metadata"]["namespace"] for each in there} == {"team-b"}
    for resource in there:
        resource["metadata"]["namespace"] = NAMESPACE
    assert there == here


# Planted faults


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: spec.pop("activeDeadlineSeconds"),
        lambda spec: spec.pop("ttlSecondsAfterFinished"),
        lambda spec: spec.pop("backoffLimit"),
        lambda spec: spec["template"]["spec"].update(restartPolicy="OnFailure"),
    ],
)
def test_a_job_that_may_leak_is_seen(change: Callable[[Any], object]) -> None:
    (job,) = of_kind(build("plain/one-node/reduce"), "Job").values()
    assert not object_violations(job)
    change(job["spec"])
    assert object_violations(job)
