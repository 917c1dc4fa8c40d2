"""What holds for all resources of deploy/, from whatever they are built: schemas and policy."""

from __future__ import annotations

from tests.deploy.manifests import UNKNOWN_KINDS, Resource, operated, pods
from tests.deploy.policy import object_violations, violations
from tests.deploy.schemas import problems


def check_valid(resources: list[Resource]) -> None:
    """Check resources, what the operator makes of them, and their pods."""
    for resource in [*resources, *operated(resources)]:
        name = f"{resource['kind']} {resource['metadata']['name']}"
        assert not object_violations(resource), name
        assert resource["kind"] in UNKNOWN_KINDS or not problems(resource), name
    for pod in pods(resources):
        assert not violations(pod), pod.name
