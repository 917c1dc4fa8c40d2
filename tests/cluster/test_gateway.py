"""`gateway:…` on a real Dask Gateway with local processes for clusters; what it refuses, with a stub of the server."""

from __future__ import annotations

import base64
import getpass
import json
import os
import re
import subprocess
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import dask_gateway  # noqa: F401 - its defaults, which a first import inside `dask.config.set` would lose with the block
import pytest
from distributed import Client

import filterdb as fdb
from filterdb.cluster import gateway
from filterdb.errors import StoreError, UsageError
from tests.cluster.http_api import serving
from tests.models import chain, weights

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CONFIGURATION = """\
c.DaskGateway.backend_class = "dask_gateway_server.backends.local.UnsafeLocalBackend"
c.Proxy.address = "127.0.0.1:0"
# dask-gateway 2026.3 would start dask-scheduler and dask-worker, which distributed 2026.8 has no longer.
c.ClusterConfig.scheduler_cmd = [{dask!r}, "scheduler"]
c.ClusterConfig.worker_cmd = [{dask!r}, "worker"]
c.ClusterConfig.worker_memory = "1 G"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A gateway with its proxy; gives what a hub sets in a user's environment."""
    folder = tmp_path_factory.mktemp("gateway")
    command = str(Path(sysconfig.get_path("scripts")) / "dask")
    (folder / "config.py").write_text(CONFIGURATION.format(dask=command))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    log = folder / "log"
    start = "from dask_gateway_server.app import main; main()"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-c", start, "-f", "config.py"],
            cwd=folder, env=environment, stdout=stream, stderr=stream,
        )  # fmt: skip
    try:
        for _ in range(300):
            if "200 GET /api/v1/routes" in log.read_text():  # the proxy knows where to send requests
                break
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        address = re.search(r"HTTP routes listening at (\S+)", log.read_text())
        assert address, log.read_text()
        yield {**environment, "DASK_GATEWAY__ADDRESS": address[1]}
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def address(server: dict[str, str]) -> Iterator[str]:
    """The gateway's address, which Dask's configuration names."""
    with dask.config.set({"gateway.address": server["DASK_GATEWAY__ADDRESS"]}):
        yield server["DASK_GATEWAY__ADDRESS"]


def running(address: str) -> list[str]:
    """Names of the clusters that run, asked for without dask-gateway's client."""
    request = urllib.request.Request(f"{address}/api/v1/clusters/")
    request.add_header("Authorization", "Basic " + base64.b64encode(f"{getpass.getuser()}:".encode()).decode())
    with urllib.request.urlopen(request, timeout=30) as answer:
        return list(json.load(answer))


def test_a_new_cluster_ends_with_its_client_and_a_running_one_stays(address: str) -> None:
    with fdb.connect("gateway:") as client:
        assert Client.current() is client
        client.wait_for_workers(1, timeout=60)  # one, if no number is asked for
        assert client.submit(sum, [1, 2]).result(timeout=30) == 3
        (name,) = running(address)
        assert client.dashboard_link == f"{address}/clusters/{name}/status"
        for where, workers in ((f"gateway:{name}", None), (f"gateway:{address}/#{name}", 2)):
            with fdb.connect(where, workers=workers) as other:
                other.wait_for_workers(workers or 1, timeout=60)
                assert other.submit(sum, [3, 4]).result(timeout=30) == 7
            assert running(address) == [name]
    assert running(address) == []
    with pytest.raises(ValueError, match="No clients found"):
        Client.current()


@pytest.mark.soak
def test_a_command_computes_there(server: dict[str, str], address: str, tmp_path: Path) -> None:
    chain(tmp_path / "m.onnx", weights(8, 4, 1))
    done = subprocess.run(
        [sys.executable, "-m", "filterdb", "ingest", "db", "m.onnx", "--scheduler", f"gateway:{address}", "--json"],
        env=server, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(rf"dashboard: {address}/clusters/\w+/status\n", done.stderr), done.stderr
    assert fdb.open(tmp_path / "db").dataset.sizes["filter"] == 32
    assert running(address) == []


def test_no_such_cluster(address: str) -> None:
    with pytest.raises(StoreError, match=r"^gateway:nosuch: .*Cluster nosuch not found"):
        fdb.connect("gateway:nosuch")


class StubGateway:
    """The routes that the client calls; a new cluster has the status `status` for ever."""

    def __init__(self, status: str) -> None:
        self.status, self.log = status, list[tuple[str, str]]()

    def answer(self, method: str, path: str, _: Any) -> tuple[int, Any]:
        self.log.append((method, path.partition("?")[0]))
        report = {"name": "new", "options": {}, "status": self.status, "start_time": 1, "stop_time": None,
                  "dashboard_route": None, "tls_cert": None, "tls_key": None}  # fmt: skip
        return 200, report

    @contextmanager
    def running(self) -> Iterator[None]:
        with serving(self.answer) as url, dask.config.set({"gateway.address": url}):
            yield


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("FAILED", "cluster new is failed, expected it to run"),
        ("STOPPED", "cluster new is stopped"),
        ("PENDING", "cluster new is still pending after 1 s"),
        ("RUNNING", "expected the certificates of cluster new"),
    ],
)
def test_a_cluster_that_does_not_start_is_removed(status: str, expected: str) -> None:
    stub = StubGateway(status)
    with stub.running(), dask.config.set({"filterdb.start-timeout": "1 s"}):
        began = time.monotonic()
        with pytest.raises(StoreError, match=f"^gateway:: .*{expected}"):
            fdb.connect("gateway:")
        assert time.monotonic() - began < 10
    assert stub.log[0] == ("POST", "/api/v1/clusters/") and stub.log[-1] == ("DELETE", "/api/v1/clusters/new")


@pytest.mark.parametrize(
    ("where", "kind", "expected"),
    [
        ("gateway:ftp://hub.example", UsageError, "expected http:// or https://"),
        ("gateway:https://", UsageError, "expected http:// or https://"),
        ("gateway:https://me:secret@hub.example/x", UsageError, "expected no password in the address"),
        ("gateway:", UsageError, r"expected the gateway's address in Dask's configuration \(gateway\.address\)"),
        ("gateway:http://127.0.0.1:9", StoreError, "the cluster did not start.*127.0.0.1"),
    ],
)
def test_odd_addresses(where: str, kind: type[Exception], expected: str) -> None:
    with dask.config.set({"gateway.address": None}), pytest.raises(kind, match=expected) as caught:
        fdb.connect(where)
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("", (None, None)),
        ("team.1", (None, "team.1")),
        ("https://hub.example/services/dask-gateway", ("https://hub.example/services/dask-gateway", None)),
        ("https://hub.example/x#team.1", ("https://hub.example/x", "team.1")),
        ("http://127.0.0.1:8000/#", ("http://127.0.0.1:8000/", None)),
    ],
)
def test_forms(target: str, expected: tuple[str | None, str | None]) -> None:
    assert gateway._parse(target) == expected
