"""Real parts for tests: trained models from PyPI, an S3 server process, worker processes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sysconfig
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
from distributed import Client, LocalCluster

import filterdb as fdb
from filterdb import demo, plan

CACHE = Path(__file__).parent.parent / ".cache"


@pytest.fixture(scope="session", autouse=True)
def many_tasks() -> Iterator[None]:
    """Every chunk is a task of its own, however small, so that small data cross the borders of tasks and merges."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "TASK_ROWS", 1)
        yield


@pytest.fixture(scope="session")
def demo_catalog() -> Path:
    """The catalog of the demo's real models, fetched once per checkout; paths beside it."""
    return demo.fetch(CACHE / "demo")


@pytest.fixture(scope="session")
def real_db(demo_catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> fdb.Database:
    """The real models in chunks of 1,000 rows: 336 chunks, layers across up to 66 of them. Read only."""
    url = tmp_path_factory.mktemp("real") / "db"
    return fdb.ingest(url, catalog=demo_catalog, chunk_rows=1_000).database


@pytest.fixture(scope="session")
def real_db_one_chunk(demo_catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> fdb.Database:
    """The same in one chunk."""
    return fdb.ingest(tmp_path_factory.mktemp("real-one") / "db", catalog=demo_catalog).database


@pytest.fixture(scope="session")
def two_workers() -> Iterator[Client]:
    """A cluster of two processes; not the current client unless a test makes it so."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


KEYS = {
    "AWS_ACCESS_KEY_ID": "admin",
    "AWS_SECRET_ACCESS_KEY": "secretsecret",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A SeaweedFS process with S3 on a port of its own; gives the endpoint. Unlike moto it holds conditional puts."""
    # Each part also opens its gRPC port 10,000 above.
    master, volume, filer, s3, admin = ports = _free_ports(5)
    folder = tmp_path_factory.mktemp("s3")
    command = [
        str(Path(sysconfig.get_path("scripts")) / "weed"), "mini", f"-dir={folder}", "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1", "-master.telemetry=false", "-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0",
        "-s3.port.lance=0", "-s3.autoCreateBucket=false", f"-master.port={master}", f"-volume.port={volume}",
        f"-filer.port={filer}", f"-s3.port={s3}", f"-admin.port={admin}",
    ]  # fmt: skip
    log = (folder / "log").open("wb")
    server = subprocess.Popen(command, env={**os.environ, **KEYS}, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
    endpoint = f"http://127.0.0.1:{s3}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(endpoint, timeout=1)
            except urllib.error.HTTPError:
                break  # 403: it is up
            except (urllib.error.URLError, OSError):
                assert server.poll() is None, (folder / "log").read_text()
                time.sleep(0.1)
        else:
            raise AssertionError(f"no S3 on ports {ports}: {(folder / 'log').read_text()[-2000:]}")
        yield endpoint
    finally:
        server.kill()
        server.wait()
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """The environment of an S3 user; each call gives a fresh prefix in a bucket."""
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": s3_server}.items():
        monkeypatch.setenv(name, value)
    files = fsspec.filesystem("s3", use_listings_cache=False)
    if not files.exists("tests"):
        files.mkdir("tests")
    return lambda: f"s3://tests/{uuid.uuid4().hex}"


def _free_ports(count: int) -> list[int]:
    """Free ports below 50,000 whose neighbours 10,000 above are free as well."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as probe, socket.socket() as other:
            probe.bind(("127.0.0.1", 0))
            port = 20_000 + probe.getsockname()[1] % 20_000
            with socket.socket() as wanted:
                try:
                    wanted.bind(("127.0.0.1", port))
                    other.bind(("127.0.0.1", port + 10_000))
                except OSError:
                    continue
            if all(abs(port - taken) not in {0, 10_000} for taken in found):
                found.append(port)
    return found
