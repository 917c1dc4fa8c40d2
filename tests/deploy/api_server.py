"""A Kubernetes API over HTTP for the real kubectl: objects in memory, and hooks for what plays operator and kubelet.

It has discovery, get, list, watch, create, merge patch, delete and a container's log. What it knows of Kubernetes' own
controllers is the garbage collector: what has owners goes when none of them is left.
"""

from __future__ import annotations

import base64
import io
import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

Resource = dict[str, Any]
Key = tuple[str, str]
"""Plural and name."""

GROUPS = {
    "v1": {
        "configmaps": "ConfigMap", "events": "Event", "persistentvolumeclaims": "PersistentVolumeClaim", "pods": "Pod",
        "secrets": "Secret", "serviceaccounts": "ServiceAccount", "services": "Service",
    },
    "apps/v1": {"deployments": "Deployment", "replicasets": "ReplicaSet"},
    "cert-manager.io/v1": {"certificates": "Certificate", "issuers": "Issuer"},
    "batch/v1": {"cronjobs": "CronJob", "jobs": "Job"},
    "kubernetes.dask.org/v1": {
        "daskautoscalers": "DaskAutoscaler", "daskclusters": "DaskCluster", "daskjobs": "DaskJob",
    },
    "networking.k8s.io/v1": {"networkpolicies": "NetworkPolicy"},
    "policy/v1": {"poddisruptionbudgets": "PodDisruptionBudget"},
}  # fmt: skip
"""Kinds by the plural of their names, by apiVersion."""

PATH = re.compile(r"/(?:api|apis)/(?P<version>(?:[\w.-]+/)?v1)/namespaces/(?P<namespace>[\w-]+)/(?P<plural>\w+)"
                  r"(?:/(?P<name>[\w.-]+))?(?:/(?P<part>log))?")  # fmt: skip


@dataclass
class Api:
    """The objects of one namespace, and what happens to them."""

    namespace: str = "filterdb"
    objects: dict[Key, Resource] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of every request but those of discovery."""

    created: list[Key] = field(default_factory=list)
    """What kubectl has created, in order."""

    logs: dict[str, str] = field(default_factory=dict)
    """Of containers."""

    on_create: Callable[[str, str], None] = lambda plural, name: None
    before_read: Callable[[str, str], None] = lambda plural, name: None
    on_delete: Callable[[str, str], bool] = lambda plural, name: True
    """Whether the object goes at once."""

    without_operator: bool = False
    """Whether the Dask operator's kinds are unknown."""

    failing: int = 0
    """How many of the next requests get 503."""

    lock: threading.RLock = field(default_factory=threading.RLock)

    def put(self, plural: str, name: str, **fields: Any) -> Resource:
        """Create or replace an object."""
        metadata = {"uid": str(uuid.uuid4()), "creationTimestamp": "2026-11-30T00:00:00Z"}
        metadata |= self.objects.get((plural, name), {}).get("metadata", {}) | fields.pop("metadata", {})
        metadata |= {"name": name, "namespace": self.namespace, "resourceVersion": str(len(self.calls) + 1)}
        version, kind = next((v, kinds[plural]) for v, kinds in GROUPS.items() if plural in kinds)
        self.objects[plural, name] = {"apiVersion": version, "kind": kind, **fields, "metadata": metadata}
        return self.objects[plural, name]

    def delete(self, plural: str, name: str) -> None:
        """Remove an object and whatever it alone owns."""
        self.objects.pop((plural, name), None)
        left = {entry["metadata"]["uid"] for entry in self.objects.values()}
        for (other, dependent), entry in list(self.objects.items()):
            owners = entry["metadata"].get("ownerReferences", [])
            if owners and not any(owner["uid"] in left for owner in owners):
                self.ask_to_delete(other, dependent)

    def ask_to_delete(self, plural: str, name: str) -> None:
        """Delete an object, or only mark it where somebody holds it."""
        if self.on_delete(plural, name):
            self.delete(plural, name)
        else:
            self.objects[plural, name]["metadata"]["deletionTimestamp"] = "2026-11-30T00:00:00Z"

    def event(self, kind: str, name: str, reason: str, message: str) -> None:
        """Record a warning about an object."""
        self.put(
            "events", f"{name}.{len(self.objects)}", type="Warning", reason=reason, message=message,
            involvedObject={"kind": kind, "name": name},
        )  # fmt: skip


def merged(old: Any, new: Any) -> Any:
    """Apply a JSON merge patch (RFC 7396)."""
    if not isinstance(new, dict):
        return new
    kept = dict(old) if isinstance(old, dict) else {}
    for name, value in new.items():
        if value is None:
            kept.pop(name, None)
        else:
            kept[name] = merged(kept.get(name), value)
    return kept


@contextmanager
def served(api: Api, folder: Path) -> Iterator[dict[str, str]]:
    """Serve the API on 127.0.0.1 and yield the environment in which kubectl talks to it."""

    class Handler(_Handler):
        pass

    Handler.api = api
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        "users": [{"name": "me", "user": {}}],
        "current-context": "here",
    }
    (folder / "config").write_text(json.dumps(config))
    try:
        yield {"KUBECONFIG": str(folder / "config"), "KUBECACHEDIR": str(folder / "cache"), "HOME": str(folder)}
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)


class _Handler(BaseHTTPRequestHandler):
    api: Api
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *arguments: object) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def do_PATCH(self) -> None:
        self._answer(self._patch)

    def do_DELETE(self) -> None:
        self._answer(self._delete)

    def _answer(self, handle: Callable[[re.Match[str], dict[str, str], Any], None]) -> None:
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        match = PATH.fullmatch(url.path)
        if self.api.without_operator and "kubernetes.dask.org" in url.path:
            match = None
        elif url.path in DISCOVERY:
            self._send(
                200, DISCOVERY[f"{url.path} without" if self.api.without_operator and url.path == "/apis" else url.path]
            )
            return
        if match is None or match["plural"] not in GROUPS.get(match["version"], {}):
            self._status(404, "NotFound", f"{url.path} is not served")
            return
        with self.api.lock:
            self.api.calls.append((self.command, url.path))
            if self.api.failing:
                self.api.failing -= 1
                self._status(503, "ServiceUnavailable", "the API server is being replaced")
                return
        if match["namespace"] != self.api.namespace:
            self._status(404, "NotFound", f'namespaces "{match["namespace"]}" not found')
            return
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        handle(match, query, _decoded(body))

    def _get(self, match: re.Match[str], query: dict[str, str], _: Any) -> None:
        plural, name = match["plural"], match["name"]
        if match["part"] == "log":
            text = b"" if "sinceTime" in query else self.api.logs.get(query["container"], "").encode()
            self._send(200, text, "text/plain")
            return
        with self.api.lock:
            if name is not None:
                self.api.before_read(plural, name)
                self._one(plural, name)
                return
        if "sendInitialEvents" in query:
            self._status(
                422, "Invalid", "sendInitialEvents is forbidden for watch unless the WatchList feature gate is on"
            )
            return
        if query.get("watch") in {"true", "1"}:
            self._watch(plural, query)
            return
        with self.api.lock:
            items = [entry for key, entry in self.api.objects.items() if key[0] == plural and _wanted(entry, query)]
            kind = GROUPS[match["version"]][plural]
            found = {"kind": f"{kind}List", "apiVersion": match["version"], "items": items}
            self._send(200, {**found, "metadata": {"resourceVersion": "1"}})

    def _watch(self, plural: str, query: dict[str, str]) -> None:
        """Send what is deleted, until everything that was there has gone or the time is over."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        end = time.monotonic() + min(30, int(query.get("timeoutSeconds", 30)))
        with self.api.lock:
            there = {
                key: entry for key, entry in self.api.objects.items() if key[0] == plural and _wanted(entry, query)
            }
        while there and time.monotonic() < end:
            for key in [key for key in there if key not in self.api.objects]:
                line = json.dumps({"type": "DELETED", "object": there.pop(key)}) + "\n"
                self.wfile.write(line.encode())
                self.wfile.flush()
            time.sleep(0.05)

    def _post(self, match: re.Match[str], _: dict[str, str], body: Any) -> None:
        plural, name = match["plural"], body["metadata"]["name"]
        with self.api.lock:
            if (plural, name) in self.api.objects:
                self._status(409, "AlreadyExists", f'{plural} "{name}" already exists')
                return
            self.api.put(plural, name, **{key: body[key] for key in body if key not in {"apiVersion", "kind"}})
            self.api.created.append((plural, name))
            self.api.on_create(plural, name)
            self._one(plural, name, 201)

    def _patch(self, match: re.Match[str], _: dict[str, str], body: Any) -> None:
        plural, name = match["plural"], match["name"]
        with self.api.lock:
            if (plural, name) in self.api.objects:
                self.api.objects[plural, name] = merged(self.api.objects[plural, name], body)
            self._one(plural, name)

    def _delete(self, match: re.Match[str], _: dict[str, str], body: Any) -> None:
        plural, name = match["plural"], match["name"]
        with self.api.lock:
            entry = self.api.objects.get((plural, name))
            if entry is None:
                self._one(plural, name)
                return
            if (body or {}).get("gracePeriodSeconds") == 0:
                self.api.delete(plural, name)
            else:
                self.api.ask_to_delete(plural, name)
            self._send(200, entry)

    def _one(self, plural: str, name: str, code: int = 200) -> None:
        entry = self.api.objects.get((plural, name))
        if entry is None:
            self._status(404, "NotFound", f'{plural} "{name}" not found')
        else:
            self._send(code, entry)

    def _status(self, code: int, reason: str, message: str) -> None:
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        self._send(code, {**status, "reason": reason, "message": message, "code": code})

    def _send(self, code: int, content: Any, kind: str = "application/json") -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _decoded(body: bytes) -> Any:
    """Decode what kubectl sends: JSON, or for a Secret that it creates, protocol buffers."""
    if not body.startswith(b"k8s\0"):
        return json.loads(body) if body else None
    (secret,) = (value for number, value in _fields(body[4:]) if number == 2)
    (metadata,) = (value for number, value in _fields(secret) if number == 1)
    entries = [dict(_fields(value)) for number, value in _fields(secret) if number == 2]
    return {
        "metadata": {"name": dict(_fields(metadata))[1].decode()},
        "data": {entry[1].decode(): base64.b64encode(entry[2]).decode() for entry in entries},
    }


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the numbers and contents of a message's fields that have a length."""
    data = io.BytesIO(message)
    while tag := _number(data):
        assert tag & 7 in {0, 2}, tag
        value = _number(data)
        if tag & 7 == 2:
            yield tag >> 3, data.read(value)


def _number(data: io.BytesIO) -> int:
    """Read a variable-length number; 0 at the end."""
    number = shift = 0
    while byte := data.read(1):
        number |= (byte[0] & 127) << shift
        shift += 7
        if byte[0] < 128:
            break
    return number


def _wanted(entry: Resource, query: dict[str, str]) -> bool:
    """Whether an object fits the selectors of a list."""
    name = re.fullmatch(r"metadata\.name=(.+)", query.get("fieldSelector", "metadata.name=*"))
    assert name is not None, query
    labels = dict(pair.split("=") for pair in query.get("labelSelector", "").split(",") if pair)
    return name[1] in {"*", entry["metadata"]["name"]} and labels.items() <= entry["metadata"].get("labels", {}).items()


def _discovery() -> dict[str, Resource]:
    """Return the answers that tell kubectl which kinds there are, and that the server checks the fields of objects."""
    verbs = ["create", "delete", "get", "list", "patch", "watch"]
    pages: dict[str, Resource] = {
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/version": {"major": "1", "minor": "36", "gitVersion": "v1.36.2"},
    }
    groups = []
    for version, kinds in GROUPS.items():
        group, _, short = version.rpartition("/")
        pages[f"/{'apis' if group else 'api'}/{version}"] = {
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version,
            "resources": [
                {"name": plural, "singularName": kind.lower(), "namespaced": True, "kind": kind, "verbs": verbs}
                for plural, kind in kinds.items()
            ],
        }  # fmt: skip
        if group:
            names = {"groupVersion": version, "version": short}
            groups.append({"name": group, "versions": [names], "preferredVersion": names})
    pages["/apis"] = {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    others = [group for group in groups if group["name"] != "kubernetes.dask.org"]
    pages["/apis without"] = {**pages["/apis"], "groups": others}
    prefixes = {version: f"{'apis' if '/' in version else 'api'}/{version}" for version in GROUPS}
    pages["/openapi/v3"] = {
        "paths": {prefix: {"serverRelativeURL": f"/openapi/v3/{prefix}?hash=1"} for prefix in prefixes.values()}
    }
    for version, prefix in prefixes.items():
        pages[f"/openapi/v3/{prefix}"] = _open_api(version)
    return pages


def _open_api(version: str) -> Resource:
    """Return as much of OpenAPI as kubectl looks at: that a PATCH takes `fieldValidation`."""
    group, _, short = version.rpartition("/")
    parameter = {"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}
    paths = {
        f"/{plural}/{{name}}": {
            "patch": {
                "parameters": [parameter],
                "responses": {},
                "x-kubernetes-group-version-kind": {"group": group, "kind": kind, "version": short},
            }
        }
        for plural, kind in GROUPS[version].items()
    }
    return {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.36.2"}, "paths": paths}


DISCOVERY = _discovery()
