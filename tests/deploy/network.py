"""Who may reach whom under a set of NetworkPolicies, decided as Kubernetes says that a network plugin has to."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tests.deploy.manifests import NAMESPACE, Resource

INTERNET = "203.0.113.7"


class End(NamedTuple):
    """One end of a connection: a pod by its namespace and labels, or an address outside."""

    labels: Mapping[str, str] = {}
    namespace: str = NAMESPACE
    address: str = ""


def allowed(policies: Iterable[Resource], source: End, target: End, port: int, protocol: str = "TCP") -> bool:
    """Whether the policies let a connection out of `source` and into `target`."""
    policies = [policy for policy in policies if policy["kind"] == "NetworkPolicy"]
    return all(
        _passes([policy["spec"] for policy in policies], direction, here, there, port, protocol)
        for direction, here, there in (("Egress", source, target), ("Ingress", target, source))
    )


def _passes(specs: list[Any], direction: str, here: End, there: End, port: int, protocol: str) -> bool:
    if here.address or here.namespace != NAMESPACE:
        return True  # not ours to say
    holding = [spec for spec in specs if direction in spec["policyTypes"] and selects(spec["podSelector"], here.labels)]
    peers = {"Ingress": "from", "Egress": "to"}[direction]
    return not holding or any(
        _has_port(rule, port, protocol) and (peers not in rule or any(_is_peer(one, there) for one in rule[peers]))
        for spec in holding
        for rule in spec.get(direction.lower(), [])
    )


def _has_port(rule: Resource, port: int, protocol: str) -> bool:
    return "ports" not in rule or any(
        one.get("protocol", "TCP") == protocol and one["port"] <= port <= one.get("endPort", one["port"])
        for one in rule["ports"]
    )


def _is_peer(peer: Resource, there: End) -> bool:
    if "ipBlock" in peer:
        block = peer["ipBlock"]
        inside = there.address and ipaddress.ip_address(there.address) in ipaddress.ip_network(block["cidr"])
        return bool(inside) and not block.get("except")
    if there.address:
        return False
    if "namespaceSelector" in peer:
        if not selects(peer["namespaceSelector"], {"kubernetes.io/metadata.name": there.namespace}):
            return False
    elif there.namespace != NAMESPACE:
        return False
    return selects(peer.get("podSelector", {}), there.labels)


def selects(selector: Resource, labels: Mapping[str, str]) -> bool:
    """Whether a label selector selects these labels. An empty one selects everything."""
    assert selector.keys() <= {"matchLabels", "matchExpressions"}, selector
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        _holds(expression, labels) for expression in selector.get("matchExpressions", [])
    )


def _holds(expression: Resource, labels: Mapping[str, str]) -> bool:
    key, operator, values = expression["key"], expression["operator"], expression.get("values", [])
    return {
        "In": labels.get(key) in values,
        "NotIn": labels.get(key) not in values,
        "Exists": key in labels,
        "DoesNotExist": key not in labels,
    }[operator]
