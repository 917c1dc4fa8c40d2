"""A damaged chunk, read by worker processes as the command line does: one line that names it, in bounded time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import dask
import fsspec
import pytest
from distributed import Client, LocalCluster

import filterdb as fdb
from filterdb.errors import DamageError
from tests.faults.place import forget_clients
from tests.models import chain, weights

pytestmark = pytest.mark.slow

SECONDS = 240.0
"""How long a command may take before it counts as hanging."""

Damage = Callable[[bytes], bytes | None]
"""What a chunk's bytes become; None: the object is removed."""

DAMAGES: dict[str, Damage] = {
    "truncated by a byte": lambda data: data[:-1],
    "half of it": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "missing": lambda data: None,
    "a flipped bit": lambda data: bytes([*data[:100], data[100] ^ 1, *data[101:]]),
}


@pytest.fixture(params=["folder", "s3"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Two layers in four chunks of 20, without summaries: every command must read the filters."""
    url = str(tmp_path / "db") if request.param == "folder" else f"{request.getfixturevalue('s3')()}/db"
    with dask.config.set(scheduler="synchronous"):
        db = fdb.ingest(url, [chain(tmp_path / "a.onnx", weights(6, 5, 1), weights(7, 6, 2))], chunk_rows=20).database
    db.files.remove(db.files.list("summaries"))
    return url


def damage_chunk(db: fdb.Database, chunk: int, damage: Damage) -> None:
    place = db.files.url(db.segments[0].chunk_name(chunk))
    files = fsspec.filesystem(place.split("://")[0] if "://" in place else "file")
    data = damage(files.cat_file(place))
    files.rm_file(place)
    if data is not None:
        files.pipe_file(place, data)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "filterdb", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )


@pytest.fixture(scope="module")
def worker() -> Iterator[Client]:
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as processes,
        Client(processes, set_as_default=False) as client,
    ):
        yield client


def set_environment(variables: dict[str, str]) -> None:
    os.environ.update(variables)
    forget_clients()


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_chunk_names_itself(name: str, database: str, worker: Client) -> None:
    """A worker that hangs ends by the test's own timeout."""
    damage_chunk(fdb.open(database), 1, DAMAGES[name])
    worker.run(set_environment, {key: value for key, value in os.environ.items() if key.startswith("AWS_")})
    with (
        worker.as_current(),
        pytest.raises(DamageError, match=r"zarr/filters chunk 1: (expected|the object is missing)") as info,
    ):
        fdb.pca(fdb.open(database))
    assert info.value.exit_code == 74
    assert "\n" not in str(info.value)


def test_the_command_ends(database: str) -> None:
    """As a user has it: a process, its worker, half a chunk."""
    damage_chunk(fdb.open(database), 1, DAMAGES["half of it"])
    done = subprocess.run(
        [sys.executable, "-m", "filterdb", "pca", database, "--workers", "1"],
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    lines = [line for line in done.stderr.splitlines() if not line.startswith("dashboard:")]
    assert (done.returncode, len(lines), done.stdout) == (74, 1, ""), done.stderr
    assert f"{fdb.open(database).segments[0].id}.zarr/filters chunk 1: expected" in lines[0]
