"""Whether Kubernetes 1.37 and the Dask operator would take a resource: by schema, unknown fields refused."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Any

import kubernetes_validate
import yaml
from jsonschema import Draft202012Validator
from kubernetes.utils.quantity import parse_quantity

from tests.deploy.manifests import Resource

VERSION = "1.37"
DASK = "kubernetes.dask.org/v1"
CRDS = "deployment/helm/dask-kubernetes-operator/crds"
"""In the wheel of dask-kubernetes; the files beside, in customresources, hold stubs."""


def problems(resource: Resource) -> list[str]:
    """What is wrong with a resource; empty when nothing is."""
    validate = _dask if resource["apiVersion"] == DASK else _core
    return [*validate(resource), *_quantities(resource), *_restarts(resource)]


def _core(resource: Resource) -> Iterator[str]:
    try:
        kubernetes_validate.validate(resource, VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        yield f"{'.'.join(map(str, error.path))}: {error.message}"


def _dask(resource: Resource) -> Iterator[str]:
    # A custom resource's metadata are those of any other.
    yield from _core({"apiVersion": "v1", "kind": "ConfigMap", "metadata": resource["metadata"]})
    for error in Draft202012Validator(_schemas()[resource["kind"]]).iter_errors(resource):
        yield f"{error.json_path}: {error.message}"


@cache
def crds() -> dict[str, Any]:
    """Return the specs of the operator's CustomResourceDefinitions by the plural of their names."""
    paths = resources.files("dask_kubernetes.operator").joinpath(CRDS).iterdir()
    specs = [yaml.safe_load(path.read_text())["spec"] for path in paths]
    return {spec["names"]["plural"]: spec for spec in specs}


@cache
def _schemas() -> dict[str, Any]:
    """By kind, from the CustomResourceDefinitions."""
    found = {}
    for definition in crds().values():
        (version,) = (one for one in definition["versions"] if one["name"] == "v1")
        schema = _closed(version["schema"]["openAPIV3Schema"])
        for name in ("apiVersion", "kind", "metadata"):  # every object has them, whatever its schema says
            schema["properties"][name] = {}
        found[definition["names"]["kind"]] = schema
    return found


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """A JSON schema that refuses what the API server would silently drop."""
    closed: dict[str, Any] = {
        name: schema[name] for name in ("type", "enum", "required", "pattern", "minimum") if name in schema
    }
    if schema.get("x-kubernetes-int-or-string"):
        closed["type"] = ["integer", "string"]
    if "items" in schema:
        closed["items"] = _closed(schema["items"])
    if schema.get("type") == "object":
        closed["properties"] = {name: _closed(one) for name, one in schema.get("properties", {}).items()}
        others = schema.get("additionalProperties", schema.get("x-kubernetes-preserve-unknown-fields", False))
        closed["additionalProperties"] = _closed(others) if isinstance(others, dict) else others
    return closed


def _quantities(value: Any, path: str = "") -> Iterator[str]:
    """Amounts that Kubernetes could not read: to its schemas they are any text."""
    if isinstance(value, list):
        for index, one in enumerate(value):
            yield from _quantities(one, f"{path}.{index}")
    elif isinstance(value, dict):
        for name, one in value.items():
            amounts = one if name in {"requests", "limits"} else {name: one} if name == "sizeLimit" else {}
            for what, amount in amounts.items():
                try:
                    parse_quantity(amount)
                    readable = str(amount) == "".join(str(amount).split())  # it lets spaces pass
                except ValueError:
                    readable = False
                if not readable:
                    yield f"{path}.{name}.{what}: expected an amount such as 500m or 2Gi, got {amount!r}"
            yield from _quantities(one, f"{path}.{name}")


def _restarts(value: Any, kind: str = "") -> Iterator[str]:
    """A restartPolicy that a kind does not allow; to the schemas that is any text too."""
    if isinstance(value, list):
        for one in value:
            yield from _restarts(one, kind)
    elif isinstance(value, dict):
        kind = value.get("kind", kind)
        allowed = {
            "Deployment": {"Always"},
            "CronJob": {"Never", "OnFailure"},
            "Job": {"Never", "OnFailure"},
        }.get(kind, {"Always", "Never", "OnFailure"})
        if "containers" in value:
            policy = value.get("restartPolicy", "Always")
            if policy not in allowed:
                yield f"restartPolicy: expected one of {', '.join(sorted(allowed))} in a {kind}, got {policy!r}"
        for one in value.values():
            yield from _restarts(one, kind)
