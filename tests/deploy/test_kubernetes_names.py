"""What has to fit together in deploy/kubernetes: services and schedulers, names, commands, memory, Dask's settings."""

from __future__ import annotations

import importlib
import inspect
import json
import re
from importlib import resources

import dask.config
import pytest
import yaml
from dask.utils import parse_bytes
from dask_kubernetes.operator.controller import controller
from dask_kubernetes.operator.validation import validate_cluster_name
from kubernetes.utils.quantity import parse_quantity

from filterdb.cluster.memory import PROCESS_BYTES
from filterdb.errors import InterruptedRunError, StoreError
from filterdb.models.sandbox import Limits
from tests.deploy.manifests import (
    APPLIED_ALONE,
    FOLDERS,
    JOBS,
    NAMESPACE,
    OVERLAYS,
    Resource,
    build,
    operated,
    pods,
    processes,
)
from tests.deploy.network import selects

PORTS = {"tcp-comm": 8786, "http-dashboard": 8787}
"""Of a scheduler, by the names that the operator looks for."""


def of_kind(built: list[Resource], kind: str) -> list[Resource]:
    return [resource for resource in built if resource["kind"] == kind]


def one(built: list[Resource], kind: str, name: str | None = None) -> Resource:
    (found,) = (each for each in of_kind(built, kind) if name in {None, each["metadata"]["name"]})
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_services_lead_to_their_own_scheduler(folder: str) -> None:
    found = pods(build(folder))
    for service in of_kind(operated(build(folder)), "Service"):
        (scheduler,) = (pod for pod in found if selects({"matchLabels": service["spec"]["selector"]}, pod.labels))
        assert scheduler.role == "scheduler"
        assert service["metadata"]["name"] == scheduler.name
        named = {port["name"]: port["containerPort"] for port in scheduler.spec["containers"][0]["ports"]}
        assert {port["name"]: port["port"] for port in service["spec"]["ports"]} == named == PORTS
        assert all(port["targetPort"] == port["name"] for port in service["spec"]["ports"])


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_service_does_not_lead_to_another_cluster(folder: str) -> None:
    others = [pod for name in ("base", *APPLIED_ALONE) for pod in pods(build(name))]
    for service in of_kind(operated(build(folder)), "Service"):
        (name,) = {pod.name for pod in others if selects({"matchLabels": service["spec"]["selector"]}, pod.labels)}
        assert name == service["metadata"]["name"]


@pytest.mark.parametrize("job", JOBS)
def test_jobs_have_names_that_the_operator_takes(job: str) -> None:
    built = build(f"jobs/{job}")
    found = one(built, "DaskJob")
    assert found["metadata"]["name"] == f"filterdb-{job}"
    assert found["metadata"]["namespace"] == NAMESPACE
    validate_cluster_name(found["metadata"]["name"])


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_pods_name_is_there(folder: str) -> None:
    """Service accounts and ConfigMaps; of Secrets the two that scripts make."""
    base = build("overlays/s3-endpoint")
    accounts = {each["metadata"]["name"] for each in of_kind(base, "ServiceAccount")}
    maps = {each["metadata"]["name"] for each in of_kind(base, "ConfigMap")}
    for pod in pods(build(folder)):
        assert pod.spec["serviceAccountName"] in accounts
        mounts = {mount["name"] for container in pod.containers for mount in container["volumeMounts"]}
        assert mounts == {volume["name"] for volume in pod.spec["volumes"]}
        claims = [
            volume["persistentVolumeClaim"]["claimName"] for volume in pod.spec["volumes"] if "persist" in str(volume)
        ]
        assert claims == (["filterdb-data"] if "volume" in folder and pod.role != "scheduler" else [])
        secrets = [volume["secret"]["secretName"] for volume in pod.spec["volumes"] if "secret" in volume]
        assert secrets == ["filterdb-tls"]
        for source in (source for container in pod.containers for source in container["envFrom"]):
            assert source.get("configMapRef", {}).get("name") in maps or source == {
                "secretRef": {"name": "filterdb-s3", "optional": True}
            }


def test_no_bucket_for_schedulers() -> None:
    """Neither the role nor the keys."""
    for pod in pods([*build("base"), *build("interactive"), *build("jobs/ingest")]):
        scheduler = pod.role == "scheduler"
        assert (pod.spec["serviceAccountName"] == "filterdb") is not scheduler
        assert ("filterdb-s3" in json.dumps(pod.spec)) is not scheduler


ROLES = {
    "workload-identity": "eks.amazonaws.com/role-arn",
    "gcs": "iam.gke.io/gcp-service-account",
    "azure": "azure.workload.identity/client-id",
}


@pytest.mark.parametrize("overlay", ROLES)
def test_the_role_is_a_parameter(overlay: str) -> None:
    built = build(f"overlays/{overlay}")
    settings = one(built, "ConfigMap", "filterdb-job")["data"]
    accounts = {each["metadata"]["name"]: each["metadata"] for each in of_kind(built, "ServiceAccount")}
    assert accounts["filterdb"]["annotations"] == {ROLES[overlay]: settings["FILTERDB_ROLE"]}
    assert "annotations" not in accounts["filterdb-scheduler"]


def test_the_operator_knows_no_idle_timeout_of_a_job() -> None:
    """Its schema has one, which it drops: deploy/jobs.sh ties a job's cluster to its runner instead."""
    assert inspect.signature(controller.build_cluster_spec).parameters.keys() == {
        "name", "worker_spec", "scheduler_spec", "annotations", "labels",
    }  # fmt: skip


# Dask


def _routes(folder: str) -> dict[str, list[str] | None]:
    """The HTTP routes that each scheduler is told, by name; None: Dask's own."""
    found = {}
    for process in processes(build(folder), build("overlays/s3-endpoint")):
        if process.container == "scheduler":
            variables = {k: v for k, v in process.environment.items() if k.startswith("DASK_")}
            settings = dask.config.collect_env(variables)
            found[process.pod] = dask.config.get("distributed.scheduler.http.routes", None, config=settings)
    return found


def test_only_the_interactive_cluster_has_the_http_api() -> None:
    """Beside every page that Dask has anyway; each can be imported."""
    defaults = yaml.safe_load(resources.files("distributed").joinpath("distributed.yaml").read_text())
    default = dask.config.get("distributed.scheduler.http.routes", config=defaults)
    api = "distributed.http.scheduler.api"
    (routes,) = _routes("interactive").values()
    assert routes is not None
    assert sorted(routes) == sorted([*default, api])
    assert "/api/v1/retire_workers" in {route[0] for route in importlib.import_module(api).routes}
    for job in JOBS:
        assert list(_routes(f"jobs/{job}").values()) == [None]


@pytest.mark.parametrize("folder", ["interactive", "overlays/kind/interactive"])
def test_the_autoscaler_has_a_cluster_that_starts_at_its_minimum(folder: str) -> None:
    built = build(folder)
    scaler, cluster = one(built, "DaskAutoscaler")["spec"], one(built, "DaskCluster")
    assert scaler["cluster"] == cluster["metadata"]["name"]
    assert cluster["spec"]["worker"]["replicas"] == scaler["minimum"]
    # It retires workers by the name that they have told.
    (worker,) = (p for p in processes(built, build("base")) if p.container == "worker")
    assert worker.command[worker.command.index("--name") + 1] == worker.pod


@pytest.mark.parametrize("folder", FOLDERS)
def test_commands_are_resolved(folder: str) -> None:
    found = processes(build(folder), build("overlays/s3-endpoint"), workers=2)
    workers = {process.pod for process in found if process.container == "worker"}
    assert len(workers) == (0 if folder == "base" or re.fullmatch(r"overlays/[\w-]+", folder) else 2)
    for process in found:
        assert "$(" not in " ".join([*process.command, *process.environment.values()])
        assert "tcp://" not in " ".join([*process.command, *process.environment.values()])
        if "DASK_SCHEDULER_ADDRESS" in process.environment:
            cluster = process.environment["CLUSTER"]
            assert process.environment["DASK_SCHEDULER_ADDRESS"] == f"tls://{cluster}-scheduler:8786"
            assert one(operated(build(folder)), "Service")["metadata"]["name"] == f"{cluster}-scheduler"
        else:
            assert process.container == "scheduler" or "--workers" in process.command


def test_the_commands_of_the_jobs() -> None:
    """As the command line has them (docs/reference/command-line.md)."""
    settings = build("overlays/s3-endpoint")
    data = one(settings, "ConfigMap", "filterdb-job")["data"]
    database, catalog, report = (data[f"FILTERDB_{name}"] for name in ("DATABASE", "CATALOG", "REPORT"))

    def command(folder: str) -> str:
        return " ".join(next(p.command for p in processes(build(folder), settings) if p.container == "runner"))

    def scheduler(job: str) -> str:
        return f"--scheduler tls://filterdb-{job}-scheduler:8786 --json"

    assert command("jobs/ingest") == f"filterdb ingest {database} --catalog {catalog} {scheduler('ingest')}"
    assert command("jobs/reduce") == f"filterdb reduce {database} {scheduler('reduce')}"
    assert command("jobs/report") == f"filterdb report {database} -o {report} {scheduler('report')}"
    assert command("base") == f"filterdb ingest {database} --catalog {catalog} --workers 1 --json"


def _option(command: list[str], name: str, default: str) -> str:
    return command[command.index(name) + 1] if name in command else default


NANNY = 256 * 2**20
"""More than the process beside a worker takes."""


@pytest.mark.parametrize("folder", [folder for folder in FOLDERS if folder.endswith("/ingest")])
def test_memory_of_workers_that_read_models(folder: str) -> None:
    """Beside each of their threads a child reads a model, in memory that Dask does not count."""
    found = {process.container: process.command for process in processes(build(folder), build("overlays/kind"))}
    child = int(_option(found["runner"], "--model-memory", str(Limits().memory // 2**20))) * 2**20
    worker = found["worker"]
    threads, dask_limit = int(_option(worker, "--nthreads", "")), parse_bytes(_option(worker, "--memory-limit", ""))
    assert dask_limit + threads * child + NANNY <= _memory(folder, "worker")


@pytest.mark.parametrize("folder", ["base", "overlays/kind"])
def test_memory_of_the_ingest_in_one_pod(folder: str) -> None:
    """The client with its scheduler, one worker of one thread, its child."""
    found = {process.container: process.command for process in processes(build(folder), build("overlays/kind"))}
    child = int(_option(found["runner"], "--model-memory", str(Limits().memory // 2**20))) * 2**20
    assert 2 * PROCESS_BYTES + 2 * NANNY + child <= _memory(folder, "ingest-new")


@pytest.mark.parametrize("folder", FOLDERS)
def test_dask_knows_the_limits_of_its_container(folder: str) -> None:
    for process in processes(build(folder), build("overlays/kind")):
        if process.container == "worker":
            (pod,) = (pod for pod in pods(build(folder)) if pod.name == process.pod)
            limits = pod.spec["containers"][0]["resources"]["limits"]
            assert int(_option(process.command, "--nthreads", "")) == parse_quantity(limits["cpu"])
            given = parse_bytes(_option(process.command, "--memory-limit", ""))
            assert given == parse_quantity(limits["memory"]) or folder.endswith("/ingest")


def _memory(folder: str, role: str) -> int:
    (pod,) = (pod for pod in pods(build(folder)) if pod.role == role)
    return int(parse_quantity(pod.spec["containers"][0]["resources"]["limits"]["memory"]))


def test_what_a_rerun_can_mend_is_tried_again() -> None:
    """The CronJob's Job: exit codes of the store and of an interrupted run, and kills; no other."""
    job = one(build("base"), "CronJob")["spec"]["jobTemplate"]["spec"]
    fail = next(rule for rule in job["podFailurePolicy"]["rules"] if rule["action"] == "FailJob")["onExitCodes"]
    assert fail["operator"] == "NotIn"
    assert fail["values"] == [StoreError.exit_code, InterruptedRunError.exit_code, 128 + 9, 128 + 15]
    assert fail["containerName"] in {container["name"] for container in job["template"]["spec"]["containers"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_parameters_that_nobody_has_set_cannot_work(overlay: str) -> None:
    """Upper case is in no bucket's and no StorageClass's name: an overlay as it is fails, it writes nowhere."""
    data = one(build(f"overlays/{overlay}"), "ConfigMap", "filterdb-job")["data"]
    for name in ("FILTERDB_DATABASE", "FILTERDB_CATALOG", "FILTERDB_REPORT"):
        start = {"gcs": "gs://SET-ME/", "azure": "az://SET-ME/", "kind": "s3://filterdb/", "volume": "/data/"}
        assert data[name].startswith(start.get(overlay, "s3://SET-ME/"))
