"""The Helm chart: generated from the manifests, rendered by the real helm, equal to what kustomize builds."""

from __future__ import annotations

import copy
import json
import re
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

import filterdb
from tests.deploy import chart
from tests.deploy.chart import CHART, TEMPLATES, ChartError
from tests.deploy.manifests import DIGEST, JOBS, NAMESPACE, Resource, build, helm, parse, pods
from tests.deploy.network import INTERNET, End, allowed
from tests.deploy.validity import check_valid

pytestmark = pytest.mark.slow

IMAGE = f"registry.example/team/filterdb@{DIGEST}"
RELEASES = tuple(sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").iterdir()))
"""The values files of the chart's own checks."""


def call(*words: str | Path, namespace: str = NAMESPACE) -> subprocess.CompletedProcess[str]:
    """Run helm without any cluster or settings of this machine's user."""
    command = [helm(), *words, "--namespace", namespace]
    environment = {"PATH": "", "HOME": "/nonexistent"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


@cache
def template(release: str, *options: str, namespace: str = NAMESPACE) -> subprocess.CompletedProcess[str]:
    values = CHART / "ci" / f"{release}-values.yaml"
    return call("template", "filterdb", CHART, "--values", values, *options, namespace=namespace)


def rendered(release: str, *options: str, namespace: str = NAMESPACE) -> list[Resource]:
    done = template(release, *options, namespace=namespace)
    assert done.returncode == 0, done.stderr
    return parse(done.stdout)


def built(folders: Sequence[str], components: Sequence[str] = ()) -> list[Resource]:
    """What kustomize builds of folders, with the parameters of the values files; a release brings no claim."""
    every = []
    for folder in folders:
        # A folder that has a component already does not take it twice.
        own = [f"components/{name}" for name in components if name.split("-")[0] not in folder]
        every += build(folder, components=own, image=IMAGE)
    mine = json.loads(json.dumps(every).replace("SET-ME", "mine"))
    return [each for each in mine if each["kind"] != "PersistentVolumeClaim"]


def by_name(resources: Sequence[Resource]) -> dict[tuple[str, str], Resource]:
    found = {(each["kind"], each["metadata"]["name"]): each for each in resources}
    assert len(found) == len(resources)
    return found


def test_the_templates_are_those_of_the_manifests() -> None:
    """`make chart` has been run."""
    files = {path.name: path.read_text() for path in TEMPLATES.glob("*.yaml")}
    assert files == chart.templates()


class Same(NamedTuple):
    """What kustomize builds of the same things as a release."""

    release: str
    folders: list[str]
    components: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def jobs(folder: str) -> list[str]:
    return [f"{folder}/{job}" for job in JOBS]


SITE = ("openshift", "pull-secret", "dedicated-nodes")
GOOGLE = (
    *("--set", "identity=gcp,role=mine@mine.iam.gserviceaccount.com,database=gs://mine/filterdb"),
    *("--set", "catalog=gs://mine/models/catalog.csv,report=gs://mine/report"),
)
SAME = {
    "a bucket and the operator": Same("s3-endpoint", ["overlays/s3-endpoint", "interactive", *jobs("jobs")]),
    "a role, no operator": Same("several-nodes", ["overlays/workload-identity", *jobs("plain/several-nodes")]),
    "one pod, a queue": Same("one-node", ["overlays/s3-endpoint", *jobs("plain/one-node")], ("kueue",)),
    "several nodes, a queue": Same(
        "several-nodes",
        ["overlays/workload-identity", *jobs("plain/several-nodes")],
        ("kueue",),
        ("--set", "kueue.queue=filterdb"),
    ),
    "OpenShift and a volume": Same(
        "openshift", ["overlays/volume", "overlays/volume/interactive", *jobs("overlays/volume/jobs")], SITE
    ),
    "OpenShift and a volume, no operator": Same(
        "openshift",
        ["overlays/volume", *jobs("plain/several-nodes")],
        ("volume", *SITE),
        ("--set", "operator.enabled=false,interactive.enabled=false"),
    ),
    "Azure": Same("azure", ["overlays/azure", "overlays/azure/interactive", *jobs("overlays/azure/jobs")]),
    "Azure, no operator": Same(
        "azure",
        ["overlays/azure", *jobs("plain/several-nodes")],
        ("azure-identity",),
        ("--set", "operator.enabled=false,interactive.enabled=false"),
    ),
    "Google": Same("several-nodes", ["overlays/gcs", *jobs("plain/several-nodes")], (), GOOGLE),
}


LONGER = {"several nodes, a queue", "Azure", "Google", "OpenShift and a volume, no operator"}
"""What other cases show in part."""


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.soak) if case in LONGER else case for case in SAME]
)
def test_a_release_is_what_kustomize_builds(case: str) -> None:
    release, folders, components, options = SAME[case]
    ours = by_name(rendered(release, *options))
    theirs = by_name(built(folders, components))
    assert ours.keys() == theirs.keys()
    for name in theirs:
        assert ours[name] == theirs[name], name


def test_a_planted_difference_is_seen() -> None:
    """By the comparison above, in the smallest that there is."""
    one = by_name(rendered("s3-endpoint"))
    other = by_name(rendered("s3-endpoint", "--set", "workers.report=3"))
    assert [name for name in one if one[name] != other[name]] == [("DaskJob", "filterdb-report")]


@pytest.mark.parametrize("release", RELEASES)
def test_releases_are_valid(release: str) -> None:
    """The same schemas and the same policy as for the manifests, also for what the operator makes."""
    check_valid(rendered(release))


@pytest.mark.parametrize("release", RELEASES)
def test_lint(release: str) -> None:
    done = call("lint", "--strict", "--quiet", CHART, "--values", CHART / "ci" / f"{release}-values.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


WRONG = (
    {
        "image.digest=latest": "/image/digest",
        "image.repository=": "/image/repository",
        "database=s3://SET-ME/filterdb": "/database",
        "jobs={train}": "/jobs/0",
        "workers.ingest=0": "/workers/ingest",
        "workers.reduce=many": "/workers/reduce",
        "worker.memory=4 GB": "/worker/memory",
        "scheduler.cpus=4": "/scheduler",
        "operator.enabled=no-thanks": "/operator/enabled",
        "endpoint=s3.example:8333": "/endpoint",
        "nightly.schedule=daily": "/nightly/schedule",
        "environment.key=x": "/environment",
        "deadlineSeconds=0": "/deadlineSeconds",
        "bucket=mine": "",
    },
    {"database=": "/database"},
)
"""Settings that are refused together, and the place that Helm names for each."""


def refused(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What Helm says of each wrong value, a line each."""
    assert done.returncode != 0
    assert done.stdout == ""
    lines = [line.strip() for line in done.stderr.splitlines()]
    return [line for line in lines if line.startswith("- at ") and not line.endswith("validation failed")]


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_values_are_refused_in_a_line_each(wrong: dict[str, str]) -> None:
    lines = refused(template("s3-endpoint", *(word for setting in wrong for word in ("--set", setting))))
    assert sorted(line.split("'")[1] for line in lines) == sorted(wrong.values())


def test_what_is_required() -> None:
    """A release without an image or a database is refused, and each missing value is named."""
    lines = refused(call("template", "filterdb", CHART))
    required = ("/image/repository", "/image/digest", "/database", "/catalog", "/report")
    assert sorted(line.split("'")[1] for line in lines) == sorted(required)


def test_the_schema_has_every_value() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())

    def names(place: dict[str, Any]) -> Any:
        place = schema["definitions"][place["$ref"].rsplit("/", 1)[1]] if "$ref" in place else place
        return {name: names(each) for name, each in place.get("properties", {}).items()}

    def keys(place: Any) -> Any:
        return {name: keys(each) for name, each in place.items()} if isinstance(place, dict) else {}

    known = names(schema)
    del known["global"]  # Helm's own
    assert known == keys(chart.values())


def test_every_value_does_something() -> None:
    text = "".join(path.read_text() for path in TEMPLATES.iterdir())

    def paths(place: Any, before: str) -> list[str]:
        if not isinstance(place, dict) or not place:
            return [before]
        return [each for name, inner in place.items() for each in paths(inner, f"{before}.{name}")]

    unused = [path for path in paths(chart.values(), ".Values") if not re.search(rf"{re.escape(path)}(?![\w.])", text)]
    assert not unused


def test_settings_reach_every_pod() -> None:
    """Of a release with all that can be set on pods."""
    for pod in pods(rendered("openshift")):
        assert pod.spec["nodeSelector"] == {"dedicated": "filterdb"}
        assert {"key": "dedicated", "operator": "Equal", "value": "filterdb"} in pod.spec["tolerations"]
        assert not {"runAsUser", "runAsGroup", "fsGroup"} & pod.spec["securityContext"].keys()
        claims = [each["persistentVolumeClaim"]["claimName"] for each in pod.spec["volumes"] if each["name"] == "data"]
        mounted = [each["name"] for each in pod.containers if any(m["name"] == "data" for m in each["volumeMounts"])]
        stores = [each["name"] for each in pod.containers if "filterdb-s3" in str(each["envFrom"])]
        assert (claims, mounted) == (["filterdb-data"] if stores else [], stores)
    for account in (each for each in rendered("openshift") if each["kind"] == "ServiceAccount"):
        assert account["imagePullSecrets"] == [{"name": "filterdb-registry"}]


def test_other_sizes() -> None:
    found = by_name(rendered("other-sizes"))
    workers = found["Job", "filterdb-ingest-workers"]["spec"]
    assert (workers["parallelism"], workers["completions"]) == (9, 9)
    (worker,) = workers["template"]["spec"]["containers"]
    assert worker["resources"]["limits"] == {"cpu": "2", "memory": "8Gi", "ephemeral-storage": "20Gi"}
    assert {"name": "MEMORY", "value": "3GiB"} in worker["env"]
    assert {job["spec"]["activeDeadlineSeconds"] for (kind, _), job in found.items() if kind == "Job"} == {7200}
    text = json.dumps(list(found.values()))
    assert "filterdb-s3" not in text and "filterdb-tls" not in text
    assert found["CronJob", "filterdb-ingest-new"]["spec"]["timeZone"] == "Europe/Berlin"


@pytest.mark.parametrize(
    ("endpoint", "port"), [("http://minio", 80), ("https://s3.example", 443), ("http://a:9000", 9000)]
)
def test_the_endpoint_can_be_reached(endpoint: str, port: int) -> None:
    policies = rendered("several-nodes", "--set", f"endpoint={endpoint}")
    for pod in pods(policies):
        reached = allowed(policies, End(pod.labels), End(address=INTERNET), port)
        assert reached is (pod.role != "scheduler"), pod.name


def test_another_namespace() -> None:
    """Nothing of the chart stays in the namespace that the manifests have."""
    for release in ("s3-endpoint", "several-nodes", "one-node"):
        here, there = rendered(release), rendered(release, namespace="team-b")
        assert {each["metadata"]["namespace"] for each in there} == {"team-b"}
        for resource in there:
            resource["metadata"]["namespace"] = NAMESPACE
        assert there == here


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ("s3-endpoint", "logs --follow --container runner filterdb-reduce-runner"),
        ("several-nodes", "logs --follow --container runner job/filterdb-reduce-runner"),
        ("one-node", "logs --follow --container runner job/filterdb-reduce"),
    ],
)
def test_what_helm_says_after_an_installation(release: str, expected: str) -> None:
    """Commands with the names that are there."""
    values = CHART / "ci" / f"{release}-values.yaml"
    done = call("install", "mine", CHART, "--dry-run=client", "--values", values)
    assert done.returncode == 0, done.stderr
    notes = done.stdout.split("NOTES:")[1]
    assert f"kubectl --namespace filterdb {expected}\n" in notes
    assert "helm upgrade mine CHART --namespace filterdb --reuse-values" in notes


def test_nothing_runs_unless_asked_for() -> None:
    kinds = {
        each["kind"]
        for each in rendered(
            "s3-endpoint", "--set-json", "jobs=[]", "--set", "interactive.enabled=false,nightly.enabled=false"
        )
    }
    assert kinds == {"ServiceAccount", "ConfigMap", "NetworkPolicy", "PodDisruptionBudget"}


def test_the_version_is_filterdbs() -> None:
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert about["version"] == about["appVersion"] == filterdb.__version__


# The generator refuses what it does not know


def test_a_kind_without_a_rule_is_refused() -> None:
    with pytest.raises(ChartError, match="StatefulSet database: the chart has no rule"):
        chart.render([{"kind": "StatefulSet", "metadata": {"name": "database"}}])


def test_a_default_that_is_not_the_manifests_is_refused() -> None:
    (job,) = (each for each in build("jobs/reduce") if each["kind"] == "DaskJob")
    changed = copy.deepcopy(job)
    changed["spec"]["cluster"]["spec"]["worker"]["replicas"] = 5
    with pytest.raises(ChartError, match=r"workers\.reduce: expected 5 as in deploy/kubernetes, got 4"):
        chart.render([changed])
    changed = copy.deepcopy(job)
    changed["spec"]["job"]["spec"]["containers"][0]["args"] = ["{{ .Values.database }}"]
    with pytest.raises(ChartError, match=re.escape("contains {{")):
        chart.render([changed])
