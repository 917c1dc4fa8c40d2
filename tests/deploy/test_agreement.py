"""Values that stand in more than one file of deploy/: the same in each, and what one names another has."""

from __future__ import annotations

import re
from pathlib import Path

import dask.config
import dask_kubernetes  # noqa: F401 - its defaults are part of Dask's configuration then
import pytest
from dask.utils import parse_bytes, parse_timedelta
from kubernetes.utils.quantity import parse_quantity

from filterdb import logs
from filterdb.cluster import await_workers, settings
from filterdb.models.sandbox import Limits
from tests.deploy.manifests import (
    ADMIN,
    APPLIED_ALONE,
    FOLDERS,
    KUBERNETES,
    NAMESPACE,
    OVERLAYS,
    ROOT,
    build,
    operated,
    pods,
    processes,
)  # fmt: skip
from tests.deploy.policy import UID

pytestmark = pytest.mark.slow

DEPLOY = ROOT / "deploy"
SECRETS = {"filterdb-tls", "filterdb-s3", "filterdb-registry"}
"""Made by scripts or by hand, in no manifest."""


Files = dict[str, str]


def texts() -> Files:
    """Every file of deploy/, by its path there."""
    files = sorted(path for path in DEPLOY.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(DEPLOY)): path.read_text("utf-8") for path in files}


def found(pattern: str, files: Files | None = None) -> dict[str, set[str]]:
    """What a pattern's group finds, by file; files without it are left out."""
    every = {name: set(re.findall(pattern, text)) for name, text in (texts() if files is None else files).items()}
    return {name: values for name, values in every.items() if values}


FACTS = {
    "the user": (r"(?m)(?:runAsUser: |runAsGroup: |fsGroup: |--uid |^USER (?:\d+:)?)(\d+)", str(UID)),
    "the scheduler's port": (
        r"(?:--port[\s\",=]+|-scheduler(?:\.[\w.]+)?:|tcp-comm, containerPort: )(\d{4,5})\b",
        "8786",
    ),
    "a worker's end without scheduler": (
        r"death-timeout[\s\",:=-]+(\d+)",
        f"{settings.seconds('filterdb.death-timeout'):.0f}",
    ),
    "memory beside a thread that reads": (r"\breader=(\d+)", f"{Limits().memory // 2**20}"),
    "what the runner may take": (r"activeDeadlineSeconds: (\d+)", "14400"),
    "where certificates are in a pod": (r"(?:mountPath: |=)(/etc/filterdb/\w+)", "/etc/filterdb/tls"),
    "where the image has Dask's settings": (r"filterdb/dask\.yaml (/etc/\S+)", "/etc/dask/filterdb.yaml"),
}
"""What it is about: a pattern whose group is the value, wherever in deploy/ it stands; the value."""


def disagreements(fact: str, files: Files) -> dict[str, set[str]]:
    """Files that say something else; every file when none says it."""
    pattern, value = FACTS[fact]
    places = found(pattern, files)
    assert places, f"{fact}: nobody says it"
    return {name: values for name, values in places.items() if values != {value}}


@pytest.mark.parametrize("fact", FACTS)
def test_facts(fact: str) -> None:
    assert not disagreements(fact, texts())


@pytest.mark.parametrize("fact", FACTS)
def test_a_planted_disagreement_is_seen(fact: str) -> None:
    """In each file that has the fact."""
    pattern, value = FACTS[fact]
    for name in found(pattern):
        text = texts()[name]
        (first, *_) = re.finditer(pattern, text)
        planted = text[: first.start(1)] + value + "7" + text[first.end(1) :]
        assert disagreements(fact, {**texts(), name: planted}).keys() == {name}


def test_the_scripts_are_among_the_files() -> None:
    assert {"docker/Dockerfile", "run-batch", "open-session", "kind-up", "make-tls"} <= texts().keys()
    assert any(name.startswith("slurm/") for name in texts())


def test_ports_of_the_pages() -> None:
    """Of schedulers 8787, of workers 8788, of processes that share a machine any (0)."""
    for name, values in found(r"--dashboard-address[\s\",-]+[\w.]*:(\d+)").items():
        assert values <= {"8787", "8788", "0"}, name
    for role, port in (("scheduler", 8787), ("worker", 8788)):
        assert {one["containerPort"] for one in _ports(role) if one["name"] == "http-dashboard"} == {port}
        for process in processes(build("interactive"), build("base")):
            if process.container == role:
                assert process.command[process.command.index("--dashboard-address") + 1] == f":{port}"
    health = (DEPLOY / "docker/Dockerfile").read_text()
    assert re.search(r"8787 for a scheduler, 8788 for a worker", health)
    policies = [one for one in build("base", components=["components/monitoring"]) if one["kind"] == "NetworkPolicy"]
    opened = {port["port"] for one in policies for rule in one["spec"].get("ingress", []) for port in rule["ports"]}
    assert opened - {9000} == {8786, 8787, 8788}


def _ports(role: str) -> list[dict[str, object]]:
    every = [pod for folder in APPLIED_ALONE for pod in pods(build(folder))]
    return [port for pod in every if pod.role == role for one in pod.containers for port in one["ports"]]


def test_probes_are_as_patient_as_dask() -> None:
    """A worker is not killed while it waits for its scheduler, nor before the scheduler gives it up."""
    alone = settings.seconds("filterdb.death-timeout")
    silent = parse_timedelta(dask.config.get("distributed.scheduler.worker-ttl", config=settings.defaults()))
    for folder in FOLDERS:
        for pod in pods(build(folder)):
            if pod.role == "worker":
                start, live = (pod.containers[0][f"{name}Probe"] for name in ("startup", "liveness"))
                assert start["periodSeconds"] * start["failureThreshold"] >= alone
                assert live["periodSeconds"] * live["failureThreshold"] >= silent


def test_the_volume_holds_what_is_spilled() -> None:
    spilled = parse_bytes(dask.config.get("distributed.worker.memory.max-spill", config=settings.defaults()))
    for folder in FOLDERS:
        for pod in pods(build(folder)):
            sizes = {volume["name"]: volume.get("emptyDir", {}).get("sizeLimit", 0) for volume in pod.spec["volumes"]}
            limit = parse_quantity(pod.spec["containers"][0]["resources"]["limits"]["ephemeral-storage"])
            assert sum(parse_quantity(size) for size in sizes.values()) < limit
            if pod.role == "worker":
                assert spilled < parse_quantity(sizes["scratch"])


def test_where_workers_spill() -> None:
    """The folder of the command is the volume's, and the image has it."""
    for process in processes(build("jobs/reduce"), build("base")):
        if process.container == "worker":
            folder = process.command[process.command.index("--local-directory") + 1]
            (pod,) = (pod for pod in pods(build("jobs/reduce")) if pod.name == process.pod)
            mounts = {mount["name"]: mount["mountPath"] for mount in pod.containers[0]["volumeMounts"]}
            assert mounts["scratch"] == folder
            assert re.search(rf"install --directory .* {folder}$", (DEPLOY / "docker/Dockerfile").read_text(), re.M)


def test_what_the_image_writes_can_be_written() -> None:
    """The root is read-only: folders in the image's environment are in a volume that every container has."""
    environment = re.findall(r"(HOME|MPLCONFIGDIR|NUMBA_CACHE_DIR)=(\S+)", _final_stage())
    assert {name for name, _ in environment} == {"HOME", "MPLCONFIGDIR", "NUMBA_CACHE_DIR"}
    for folder in FOLDERS:
        for pod in pods(build(folder)):
            empty = {volume["name"] for volume in pod.spec["volumes"] if "emptyDir" in volume}
            for container in pod.containers:
                places = [Path(one["mountPath"]) for one in container["volumeMounts"] if one["name"] in empty]
                for _, value in environment:
                    assert any(Path(value).is_relative_to(place) for place in places)


def _final_stage() -> str:
    return (DEPLOY / "docker/Dockerfile").read_text().split("\nFROM ")[-1]


def test_the_allocator_is_told_the_same() -> None:
    """To processes that a nanny starts by filterdb/dask.yaml, to the others by the image."""
    for name, value in dask.config.get("distributed.nanny.pre-spawn-environ", config=settings.defaults()).items():
        assert re.search(rf"\b{name}={value}\b", _final_stage()), name


def test_certificates() -> None:
    """The files of deploy/make-tls are those that Dask is told, below the place where the Secret is mounted."""
    told = {value for value in _settings("filterdb-dask").values() if value.startswith("/")}
    assert {Path(value).name for value in told} == {"ca.crt", "tls.crt", "tls.key"}
    made = (DEPLOY / "make-tls").read_text()
    assert all(f"/{Path(value).name}" in made for value in told)
    for pod in pods([*build("base"), *build("interactive"), *build("jobs/reduce")]):
        for container in pod.containers:
            (mount,) = (one["mountPath"] for one in container["volumeMounts"] if one["name"] == "tls")
            assert {str(Path(value).parent) for value in told} == {mount}
    # Elsewhere the same of Dask's settings are set, to other places.
    keys = {name for name in _settings("filterdb-dask") if name.startswith("DASK_")}
    roles = {f"DASK_DISTRIBUTED__COMM__TLS__{role}__{what}" for role in ROLES for what in ("CERT", "KEY")}
    assert keys - roles == {"DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION", "DASK_DISTRIBUTED__COMM__TLS__CA_FILE"}
    batch = "".join(text for name, text in texts().items() if name.endswith(".sbatch"))
    assert all(name in batch for name in keys - roles)


ROLES = ("SCHEDULER", "WORKER", "CLIENT")


def _settings(name: str) -> dict[str, str]:
    (found,) = (one for one in build("base") if one["kind"] == "ConfigMap" and one["metadata"]["name"] == name)
    data: dict[str, str] = found["data"]
    return data


def test_dask_knows_every_variable() -> None:
    """A name with a mistake would be a setting that nobody reads."""
    own = {"DASK_CONFIG", "DASK_WORKER_NAME", "DASK_SCHEDULER_ADDRESS"}
    for name, values in found(r"\b(DASK_[A-Z_]*[A-Z])\b").items():
        for variable in values - own:
            key = variable.removeprefix("DASK_").lower().replace("__", ".")
            if not key.startswith("logging."):  # of Python's loggers, by their names
                known = dask.config.get(key, dask.config.get(key, "unknown", config=settings.defaults()))
                assert known != "unknown", (name, variable)


def test_variables_of_filterdb() -> None:
    """Each is told where it is set and where it is read, or explained where it is read: once alone is a mistake."""
    code = [path.read_text() for folder in ("filterdb", "tests") for path in (ROOT / folder).rglob("*.py")]
    everywhere = " ".join([*texts().values(), *code])
    for name, values in found(r"\b(FILTERDB_[A-Z_]*[A-Z])\b").items():
        for variable in values:
            assert len(re.findall(rf"\b{variable}\b", everywhere)) > 1, (name, variable)
    assert logs.VARIABLE in _settings("filterdb-dask")


def test_parameters_are_the_same_in_every_overlay() -> None:
    """But the role, and how the store is reached."""
    places = {name: text for name, text in texts().items() if name.endswith("parameters.env")}
    names = found(r"(?m)^(\w+)=", places)
    assert len(names) == 1 + len(OVERLAYS)
    own = {"FILTERDB_ROLE", "AWS_ENDPOINT_URL", "AWS_REGION", "AZURE_STORAGE_ACCOUNT_NAME"}
    assert len({frozenset(values - own) for values in names.values()}) == 1


def test_the_waits_fit_into_each_other() -> None:
    """A pod waits for workers; whoever waits for the pod waits longer, and the job's deadline is later still."""
    (batch,) = re.findall(r"START_TIMEOUT:-(\d+)", (DEPLOY / "jobs.sh").read_text())
    for folder in FOLDERS:
        for pod in pods(build(folder)):
            if pod.role == "job-runner":
                (wait,) = pod.spec["initContainers"]
                assert wait["args"] == ["python", "-m", await_workers.__name__]
                assert settings.seconds("filterdb.start-timeout") < int(batch) < pod.spec["activeDeadlineSeconds"]


def test_namespace() -> None:
    for name, values in found(r"(?:--namespace[= ]|\s-n |\nnamespace: )([a-z][\w-]*)").items():
        assert values <= {NAMESPACE, "dask-operator", "monitoring"}, name


def test_names_of_objects() -> None:
    """Whatever is called filterdb-… where Kubernetes is meant is there."""
    there = {*SECRETS}
    for folder in FOLDERS:
        built = build(folder, components=["components/monitoring", "components/cert-manager"])
        there |= {one["metadata"]["name"] for one in [*built, *operated(build(folder))]}
        there |= {pod.spec["serviceAccountName"] for pod in pods(build(folder))}
    there |= {one["metadata"]["name"] for folder in ADMIN for one in build(folder)}
    files = {name: text for name, text in texts().items() if "kubectl" in text or name.startswith("kubernetes/")}
    for name, values in found(r"(?<![\w./-])(filterdb-[a-z][a-z0-9-]*[a-z0-9])\b(?![./(]\w)", files).items():
        assert values <= there, name


@pytest.mark.parametrize("part", ["overlays", "jobs", "components"])
def test_folders_that_are_named_are_there(part: str) -> None:
    for name, values in found(rf"\b{part}/([a-z][\w-]*)").items():
        for value in values:
            assert (KUBERNETES / part / value).is_dir(), (name, value)


def test_labels_that_scripts_ask_for() -> None:
    known = {key.removeprefix("dask.org/") for pod in pods(build("jobs/reduce")) for key in pod.labels}
    for name, values in found(r"(?<!kubernetes\.)dask\.org(?:/|~1)([a-z-]+)").items():
        assert values <= known, name
