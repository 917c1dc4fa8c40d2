"""Real parts for tests: trained models from PyPI, an S3 server process, worker processes."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import dask
import fsspec
import hypothesis
import pytest
import s3fs
from distributed import Client, LocalCluster

import filterdb as fdb
from filterdb import demo, plan
from filterdb.cluster import fork_server
from filterdb.store import http, part_cache, remote
from tests import loggers, seaweed

hypothesis.settings.register_profile("filterdb", deadline=None)  # no test asserts a time
hypothesis.settings.load_profile("filterdb")

QUIET = {
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "false",
    "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "1s",
    "DASK_DISTRIBUTED__ADMIN__TICK__LIMIT": "10s",
}
"""What Dask's schedulers and workers do while they wait, here and in processes that tests start: a hundred samples of
every worker's stack and fifty looks at the event loop in a second, which took a fifth of the CPU time of all tests."""

os.environ.update(QUIET)
os.environ["LOKY_MAX_CPU_COUNT"] = "1"  # pages draw their figures in this process: other tests have the other cores
dask.config.refresh()
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell starts what runs in the background like this
    signal.signal(signal.SIGINT, signal.default_int_handler)
fork_server.use()  # as commands do: a worker takes 0.1 s of CPU time to start instead of 3 s

CACHE = Path(__file__).parent.parent / ".cache"


@pytest.fixture(scope="session", autouse=True)
def many_tasks() -> Iterator[None]:
    """Every chunk is a task of its own, however small, so that small data cross the borders of tasks and merges."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "TASK_ROWS", 1)
        yield


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep parts of remote models in a folder of the tests, also in processes that they start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(part_cache.FOLDER, str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """Restore the loggers that commands and schedulers in the tests' process set up as their own."""
    with loggers.restored():
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    """Skip fsync in this process: no test cuts the power, and on many disks it takes most of the time of an ingest.

    Commands and workers of their own clusters call it. tests/store/test_durability.py tests which calls there are.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


def _skip_fsync() -> None:
    os.fsync = lambda fd: None


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


@pytest.fixture(scope="module")
def two_workers() -> Iterator[Client]:
    """A cluster of two processes; not the current client unless a test makes it so."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.run(_skip_fsync)
        yield client


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A SeaweedFS process with S3 on a port of its own; gives the endpoint. Unlike moto it holds conditional puts."""
    with seaweed.serving(tmp_path_factory.mktemp("s3")) as endpoint:
        yield endpoint


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """The environment of an S3 user; each call gives a fresh prefix in a bucket."""
    for name, value in {**seaweed.KEYS, "AWS_ENDPOINT_URL": s3_server}.items():
        monkeypatch.setenv(name, value)
    # Clients of other servers may be there still, from tests with keys of their own.
    s3fs.S3FileSystem.clear_instance_cache()
    remote._known_filesystem.cache_clear()
    files = fsspec.filesystem("s3", use_listings_cache=False)
    if not files.exists("tests"):
        files.mkdir("tests")
    return lambda: f"s3://tests/{uuid.uuid4().hex}"


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make requests of this process again at once, as often as usual."""
    monkeypatch.setattr(http, "PAUSE", 0.01)
    monkeypatch.setattr(remote, "PAUSE", 0.01)


LONGEST = (
    "deploy/test_processes.py",
    "deploy/test_slurm.py",
    "end_to_end/test_users.py",
    "faults/test_deaths.py",
    "end_to_end/test_cli.py",
    "faults/test_s3_faults.py",
    "faults/test_s3_refusals.py",
    "faults/test_suspended_writer.py",
    "faults/test_crawl_killed.py",
    "docs/test_six_files.py",
    "faults/test_credentials.py",
    "ingestion/test_crawl.py",
    "faults/test_hostile_tflite.py",
    "faults/test_hostile_keras.py",
    "faults/test_hostile_models.py",
    "end_to_end/test_signals.py",
    "interactive/test_dashboard.py",
    "deploy/test_docker.py",
    "store/test_history.py",
    "faults/test_damage.py",
    "faults/test_killed.py",
    "faults/test_damage_on_workers.py",
    "numerics/test_compiled.py",
    "faults/test_state_machine.py",
)
"""Files of tests that take longest. They start first, so that no process is left with one of them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the files that take longest to the front, and leave the order as it is otherwise."""
    first = {Path(__file__).parent / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: first.get(item.path, len(first)))
