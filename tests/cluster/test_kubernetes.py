"""`kubernetes:NAME` and `kubernetes:FILE.yaml` against a real HTTP server that answers as Kubernetes' API does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import dask
import pytest
import yaml

import filterdb as fdb
from filterdb.cluster import kubernetes
from filterdb.errors import FilterDBError, InputError, StoreError, UsageError
from tests.cluster.http_api import Answer, serving
from tests.cluster.test_places import scheduler
from tests.models import chain, weights

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
VERSION = {"major": "1", "minor": "34", "gitVersion": "v1.34.0"}
CLUSTERS = "/apis/kubernetes.dask.org/v1/namespaces/team/daskclusters/"


def status(code: int, message: str) -> tuple[int, dict[str, Any]]:
    """A Status, as the API answers what it refuses."""
    return code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}


def dask_cluster(*args: str, **container: Any) -> dict[str, Any]:
    """A DaskCluster whose scheduler has these arguments."""
    pod = {"containers": [{"name": "scheduler", "image": "x", "args": list(args), **container}]}
    worker = {"replicas": 1, "spec": {"containers": [{"name": "worker", "image": "x"}]}}
    return {
        "apiVersion": "kubernetes.dask.org/v1",
        "kind": "DaskCluster",
        "metadata": {"name": "plain", "namespace": "team"},
        "spec": {"scheduler": {"spec": pod}, "worker": worker},
    }


def our_cluster() -> dict[str, Any]:
    """The cluster that deploy/ describes."""
    text = (ROOT / "deploy" / "kubernetes" / "pods" / "pods.yaml").read_text()
    return {**dask_cluster(), "spec": yaml.safe_load(text)["spec"]["cluster"]["spec"]}


@contextmanager
def kubeconfig(folder: Path, answer: Answer) -> Iterator[Path]:
    """A server that answers so, and the kubeconfig of its user, whose namespace is `team`."""
    with serving(answer) as url:
        path = folder / "kubeconfig"
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "test", "cluster": {"server": url}}],
                    "users": [{"name": "me", "user": {"token": "secret"}}],
                    "contexts": [{"name": "c", "context": {"cluster": "test", "user": "me", "namespace": "team"}}],
                    "current-context": "c",
                }
            )
        )
        yield path


def api(name: str, cluster: tuple[int, Any]) -> Answer:
    """An API with one cluster, or with another answer when it is asked for `name`."""

    def answer(method: str, path: str, _: Any) -> tuple[int, Any]:
        if path == "/version/":
            return 200, VERSION
        if method == "GET" and path == CLUSTERS + name:
            return cluster
        return status(404, f'daskclusters.kubernetes.dask.org "{path.rpartition("/")[2]}" not found')

    return answer


FORBIDDEN = status(403, 'daskclusters.kubernetes.dask.org "x" is forbidden: User "me" cannot get resource')


@pytest.mark.parametrize(
    ("name", "answer", "kind", "expected"),
    [
        ("nosuch", api("x", (200, {})), StoreError, "found none; `kubectl get daskclusters --namespace team` lists"),
        ("nosuch", lambda *_: (404, "404 page not found"), StoreError, "404 Not Found.*/version"),
        ("plain", api("plain", FORBIDDEN), StoreError, "403: daskclusters.*forbidden.*cannot get resource"),
        ("plain", lambda *_: status(401, "Unauthorized"), StoreError, "Unauthorized"),
        ("plain", lambda *_: (500, "oops"), StoreError, "500"),
        ("plain", lambda *_: (200, "<html>a portal</html>"), (StoreError, UsageError), "plain: expected"),
        ("plain", api("plain", (200, our_cluster())), UsageError, "without TLS.*deploy/open-session.*tls://127"),
        ("", api("", (200, {})), UsageError, "expected the name of a DaskCluster"),
        ("../../secrets/x", api("", (200, {})), UsageError, "expected the name of a DaskCluster"),
    ],
)
def test_each_refusal_is_a_line(
    name: str,
    answer: Answer,
    kind: type[FilterDBError],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with kubeconfig(tmp_path, answer) as path:
        monkeypatch.setenv("KUBECONFIG", str(path))
        began = time.monotonic()
        with pytest.raises(kind, match=rf"^kubernetes:{name}: expected .*") as caught:
            fdb.connect(f"kubernetes:{name}")
        caught.match(expected)
        assert time.monotonic() - began < 10 and "\n" not in str(caught.value)


@pytest.mark.parametrize("answered", [set(), {"/version/"}], ids=["first", "second"])
def test_an_api_that_does_not_answer(answered: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither its first question nor its second waits for ever."""
    ended = Event()

    def answer(_: str, path: str, __: Any) -> tuple[int, Any]:
        if path not in answered:
            ended.wait(60)
        return 200, VERSION

    monkeypatch.setattr(kubernetes, "API_SECONDS", 1)
    with kubeconfig(tmp_path, answer) as path:
        monkeypatch.setenv("KUBECONFIG", str(path))
        try:
            with pytest.raises(StoreError, match="expected an answer of Kubernetes' API within 1 s"):
                fdb.connect("kubernetes:plain")
        finally:
            ended.set()
    with pytest.raises(StoreError, match="expected an answer of Kubernetes' API, got: "):  # the server has ended
        fdb.connect("kubernetes:plain")


@pytest.mark.parametrize("text", [None, "", "kind: [", "kind: Config", "apiVersion: v1\nkind: Config\ncontexts: []"])
def test_without_a_kubeconfig(text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kubeconfig"
    if text is not None:
        path.write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(path))
    with pytest.raises(UsageError, match=r"^kubernetes:filterdb: expected a kubeconfig \(KUBECONFIG"):
        fdb.connect("kubernetes:filterdb")


@pytest.mark.parametrize(("name", "code"), [("nosuch", 74), ("ours", 2)])
def test_the_command_ends_with_one_line(name: str, code: int, tmp_path: Path) -> None:
    chain(tmp_path / "m.onnx", weights(4, 2, 1))
    with kubeconfig(tmp_path, api("ours", (200, our_cluster()))) as path:
        done = subprocess.run(
            [sys.executable, "-m", "filterdb", "ingest", "db", "m.onnx", "--scheduler", f"kubernetes:{name}"],
            env={**os.environ, "KUBECONFIG": str(path), "PYTHONPATH": str(ROOT)},
            cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
    lines = done.stderr.splitlines()
    assert done.returncode == code and len(lines) == 1 and f"kubernetes:{name}: expected" in lines[0], done.stderr


@pytest.mark.parametrize(
    ("cluster", "encrypted"),
    [
        (our_cluster(), True),
        (dask_cluster("dask", "scheduler", "--protocol", "tls"), True),
        (dask_cluster("dask", "scheduler", "--protocol=tls"), True),
        (dask_cluster("dask", "scheduler", "--host", "tls://0.0.0.0"), True),
        (dask_cluster("dask", "scheduler", "--tls-cert", "x"), True),
        (dask_cluster("dask", env=[{"name": kubernetes.ENCRYPTION, "value": "True"}]), True),
        (dask_cluster("dask", env=[{"name": kubernetes.ENCRYPTION, "value": "False"}]), False),
        (dask_cluster("dask", env=[{"name": "A", "valueFrom": {}}], command=None), False),
        (dask_cluster("dask", "scheduler", "--protocol", "tcp"), False),
        ({"spec": {"scheduler": None}}, False),
    ],
)
def test_what_speaks_tls(cluster: dict[str, Any], encrypted: bool) -> None:
    if encrypted:
        with pytest.raises(UsageError, match="open-session"):
            kubernetes._reject_tls("kubernetes:x", cluster)
    else:
        kubernetes._reject_tls("kubernetes:x", cluster)


def test_a_manifest_with_tls_is_refused_before_anything_starts(tmp_path: Path) -> None:
    manifest = tmp_path / "cluster.yaml"
    manifest.write_text(yaml.safe_dump(our_cluster()))
    with pytest.raises(UsageError, match="without TLS"):
        fdb.connect(f"kubernetes:{manifest}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot read it"),
        ("kind: [", "cannot read it"),
        ("kind: Pod\nmetadata: {name: a}", "got kind 'Pod'"),
        ("- 1", "got list"),
        ("kind: DaskCluster\nmetadata:", "got kind 'DaskCluster' without one"),
        ("kind: DaskCluster\nmetadata: {name: 7}", "got kind 'DaskCluster' without one"),
    ],
)
def test_odd_manifests(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "cluster.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message):
        fdb.connect(f"kubernetes:{path}")


def running(address: str, requests: list[tuple[str, str, Any]], ready: bool = True, exists: bool = True) -> Answer:
    """An API with the cluster `plain`, whose scheduler is the process at `address`."""
    port = int(address.rpartition(":")[2])
    meta = {"namespace": "team", "labels": {"dask.org/cluster-name": "plain", "dask.org/component": "scheduler"}}
    pod_status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"},
                  {"type": "ContainersReady", "status": "True"}]}  # fmt: skip
    pod = {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "plain-scheduler-0", **meta}, "status": pod_status}
    ports = [{"name": name, "port": port, "protocol": "TCP"} for name in ("tcp-comm", "http-dashboard")]
    balancer = {"loadBalancer": {"ingress": [{"ip": "127.0.0.1"}]}}
    service = {"kind": "Service", "apiVersion": "v1", "metadata": {"name": "plain-scheduler", **meta},
               "spec": {"type": "LoadBalancer", "ports": ports, "selector": {}}, "status": balancer}  # fmt: skip
    group = {"kind": "DaskWorkerGroup", "apiVersion": "kubernetes.dask.org/v1",
             "metadata": {"name": "plain-default", **meta}, "spec": {"worker": {"replicas": 1}}}  # fmt: skip
    clusters = {"plain": {**dask_cluster("dask", "scheduler"), "status": {"phase": "Running"}}} if exists else {}

    def answer(method: str, path: str, body: Any) -> tuple[int, Any]:
        requests.append((method, path, body))
        name = path.partition("?")[0].rpartition("/")[2]
        if method == "PATCH":
            group.update(body)
        if method == "POST":
            clusters["plain"] = {**body, "status": {"phase": "Running"}}
            return 201, clusters["plain"]
        if method == "DELETE" and name == "plain" and "daskclusters" in path:
            return 200, clusters.pop("plain")
        if path == "/version/":
            return 200, VERSION
        if name == "pods":
            return 200, {"kind": "PodList", "apiVersion": "v1", "items": [pod] if ready else []}
        if name in {"services", "daskclusters", "daskworkergroups"}:
            items = {"services": [service], "daskworkergroups": [group], "daskclusters": list(clusters.values())}
            return 200, {"kind": "List", "apiVersion": "v1", "items": items[name]}
        single = {"plain-scheduler-0": pod, "plain-scheduler": service, "plain-default": group, **clusters}
        return (200, single[name]) if name in single else status(404, f"{name} not found")

    return answer


def test_a_cluster_without_tls_is_reached_scaled_and_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[tuple[str, str, Any]] = []
    with scheduler(tmp_path, ["--nthreads", "1"]) as address, kubeconfig(tmp_path, running(address, requests)) as path:
        monkeypatch.setenv("KUBECONFIG", str(path))
        with fdb.connect("kubernetes:plain", workers=3) as client:
            client.wait_for_workers(1, timeout=30)
            assert client.submit(sum, [1, 2]).result(timeout=30) == 3
    scaled = [body for method, path_, body in requests if method == "PATCH" and "daskworkergroups" in path_]
    assert [body["spec"]["worker"]["replicas"] for body in scaled] == [3]
    assert not [path_ for method, path_, _ in requests if method == "DELETE" and "daskclusters" in path_]


@pytest.mark.soak
def test_a_manifest_is_started_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[tuple[str, str, Any]] = []
    manifest = tmp_path / "cluster.yaml"
    manifest.write_text(yaml.safe_dump(dask_cluster("dask", "scheduler")))
    with (
        scheduler(tmp_path, ["--nthreads", "1"]) as address,
        kubeconfig(tmp_path, running(address, requests, exists=False)) as path,
    ):
        monkeypatch.setenv("KUBECONFIG", str(path))
        with fdb.connect(f"kubernetes:{manifest}") as client:
            client.wait_for_workers(1, timeout=30)
            assert client.submit(sum, [1, 2]).result(timeout=30) == 3
    changes = [(method, path_.rstrip("/")) for method, path_, _ in requests if method in {"POST", "DELETE"}]
    assert changes == [("POST", CLUSTERS.rstrip("/")), ("DELETE", f"{CLUSTERS}plain")]


@pytest.mark.parametrize(("ready", "step"), [(False, "Waiting for scheduler pod"), (True, "Connecting to scheduler")])
def test_a_scheduler_that_never_answers_ends_the_wait(
    ready: bool, step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        kubeconfig(tmp_path, running("tcp://127.0.0.1:9", [], ready)) as path,
        dask.config.set({"filterdb.start-timeout": "2 s"}),
    ):
        monkeypatch.setenv("KUBECONFIG", str(path))
        began = time.monotonic()
        with pytest.raises(StoreError, match=f"^kubernetes:plain: .* not ready after 2 s, last step: {step}; "):
            fdb.connect("kubernetes:plain")
        assert time.monotonic() - began < 20
    assert capsys.readouterr().out == ""  # stdout is for answers


def test_certificates_are_not_silently_dropped() -> None:
    from distributed.security import Security

    for where in ("kubernetes:plain", "gateway:"):
        with pytest.raises(UsageError, match=f"^{where}: expected no certificates"):
            fdb.connect(where, security=Security.temporary())
