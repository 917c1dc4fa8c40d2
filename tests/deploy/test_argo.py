"""The workflow of Argo (deploy/argo): its pods are those of the plain Jobs. Argo's own schema is in no package."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from filterdb.errors import InterruptedRunError, StoreError
from tests.deploy.manifests import JOBS, ROOT, Pod, Resource, build, pods
from tests.deploy.network import INTERNET, End, allowed
from tests.deploy.policy import violations
from tests.deploy.schemas import problems

pytestmark = pytest.mark.slow

ARGO = ROOT / "deploy" / "argo"
KNOWN = {
    "": {
        "entrypoint", "arguments", "serviceAccountName", "automountServiceAccountToken", "executor", "ttlStrategy",
        "podDisruptionBudget", "podMetadata", "podSpecPatch", "securityContext", "affinity", "volumes", "templates",
    },
    "executor": {"serviceAccountName"},
    "ttlStrategy": {"secondsAfterCompletion"},
    "podMetadata": {"labels"},
    "templates": {"name", "steps", "activeDeadlineSeconds", "retryStrategy", "container"},
    "retryStrategy": {"limit", "retryPolicy", "expression", "backoff"},
    "backoff": {"duration", "factor"},
}  # fmt: skip
"""Fields of Argo's own that are used. The file was checked once, by hand, against the full CRD of Argo 4.1.2."""


@pytest.fixture(scope="module")
def workflow() -> Resource:
    content: Resource = yaml.safe_load((ARGO / "workflow.yaml").read_text())
    return content


def template(workflow: Resource, name: str) -> Any:
    (found,) = (each for each in workflow["spec"]["templates"] if each["name"] == name)
    return found


def pod_of(workflow: Resource, name: str) -> Pod:
    """The pod of a step, as Argo makes it: the fields of the workflow around the container of the template."""
    spec = workflow["spec"]
    container = {**template(workflow, name)["container"], "name": "runner", "image": "filterdb:set-image-to-a-digest"}
    names = ("serviceAccountName", "automountServiceAccountToken", "securityContext", "affinity", "volumes")
    body = {key: spec[key] for key in names} | yaml.safe_load(spec["podSpecPatch"])
    return Pod("Pod", name, spec["podMetadata"]["labels"], body | {"restartPolicy": "Never", "containers": [container]})


def test_fields(workflow: Resource) -> None:
    spec = workflow["spec"]
    assert spec.keys() <= KNOWN[""]
    for name in ("executor", "ttlStrategy", "podMetadata"):
        assert spec[name].keys() <= KNOWN[name]
    for each in spec["templates"]:
        assert each.keys() <= KNOWN["templates"]
        assert each.get("retryStrategy", {}).keys() <= KNOWN["retryStrategy"]
        assert each.get("retryStrategy", {}).get("backoff", {}).keys() <= KNOWN["backoff"]
    assert spec["arguments"] == {"parameters": [{"name": "image"}]}  # without a value: Argo asks for it


def test_the_steps_follow_one_another(workflow: Resource) -> None:
    assert workflow["spec"]["entrypoint"] == "all"
    steps = template(workflow, "all")["steps"]
    assert steps == [[{"name": job, "template": job}] for job in JOBS]


@pytest.mark.parametrize("job", JOBS)
def test_a_step_is_the_plain_job(workflow: Resource, job: str) -> None:
    pod, (plain,) = pod_of(workflow, job), pods(build(f"plain/one-node/{job}"))
    (ours,), (theirs,) = pod.spec.pop("containers"), plain.spec.pop("containers")
    assert ours.pop("command") == ["tini", "--", "filterdb-entrypoint"]
    assert ours == theirs
    assert pod.spec == plain.spec
    assert pod.labels.items() <= plain.labels.items()
    assert template(workflow, job)["container"]["image"] == "{{workflow.parameters.image}}"


@pytest.mark.parametrize("job", JOBS)
def test_schemas_and_policy(workflow: Resource, job: str) -> None:
    pod = pod_of(workflow, job)
    metadata = {"name": job, "labels": pod.labels}
    assert not problems({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod.spec})
    assert violations(pod).keys() == {"entry_point"}  # Argo does not run an image's own


def test_the_command_is_the_images() -> None:
    (line,) = [line for line in (ROOT / "deploy/docker/Dockerfile").read_text().splitlines() if "ENTRYPOINT" in line]
    assert yaml.safe_load(line.removeprefix("ENTRYPOINT ")) == ["tini", "--", "filterdb-entrypoint"]


@pytest.mark.parametrize("job", JOBS)
def test_74_and_75_are_tried_again_and_no_other_code(workflow: Resource, job: str) -> None:
    step = template(workflow, job)
    again = step["retryStrategy"]
    codes = [StoreError.exit_code, InterruptedRunError.exit_code]
    assert again["expression"] == f"asInt(lastRetry.exitCode) in {codes}"
    assert again["retryPolicy"] == "Always"  # else a policy stands beside the expression
    assert int(again["limit"]) == 3
    assert step["activeDeadlineSeconds"] == 14400


def test_what_argo_itself_needs(workflow: Resource) -> None:
    """Its container may report results and nothing else, with a token that filterdb's container does not get."""
    documents = list(yaml.safe_load_all((ARGO / "executor.yaml").read_text()))
    for document in documents:
        document["metadata"]["namespace"] = "filterdb"
        assert not problems(document)
    named = {each["kind"]: each for each in documents}
    account = workflow["spec"]["executor"]["serviceAccountName"]
    assert named["ServiceAccount"]["metadata"]["name"] == account
    assert named["Secret"]["metadata"]["name"] == f"{account}.service-account-token"  # as Argo looks for it
    assert "data" not in named["Secret"] and "stringData" not in named["Secret"]
    (rule,) = named["Role"]["rules"]
    assert rule == {"apiGroups": ["argoproj.io"], "resources": ["workflowtaskresults"], "verbs": ["create", "patch"]}
    assert workflow["spec"]["automountServiceAccountToken"] is False

    policies = [*build("overlays/workload-identity"), named["NetworkPolicy"]]
    labels = {**workflow["spec"]["podMetadata"]["labels"], "workflows.argoproj.io/workflow": "filterdb-x"}
    for port in (443, 6443):
        assert allowed(policies, End(labels), End(address=INTERNET), port)
    assert not allowed(policies, End(labels), End(address=INTERNET), 8080)
