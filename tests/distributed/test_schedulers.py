"""The same bytes on every scheduler and every store; real processes, a real S3 server."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr
from distributed import Client

import filterdb as fdb

pytestmark = pytest.mark.slow

VOLATILE = {"database", "basis_moved"}


def answers(db: fdb.Database) -> dict[str, xr.Dataset]:
    """One of each analysis, every pass behind them."""
    return {
        "pca": fdb.pca(db, by="model"),
        "raw pca": fdb.pca(db, scaled=False),
        "sound": fdb.drift(db, by="task"),
        "paper": fdb.drift(db, by="model", mode="paper"),
        "raw": fdb.drift(db, by="task", scaled=False, metric="wasserstein"),
        "degeneration": fdb.degeneration(db),
    }


def fingerprint(db: fdb.Database) -> dict[str, bytes]:
    """Every number of every answer, as bytes; and the summaries' own bytes."""
    found = {
        f"{name} {variable}": array.values.tobytes()
        if array.dtype.kind != "O"
        else repr(array.values.tolist()).encode()
        for name, result in answers(db).items()
        for variable, array in result.variables.items()
    }
    for name in db.files.list("summaries"):
        found[name] = db.files.read(name)
    for name in db.files.list("bases"):
        found[name] = db.files.read(name)
    assert len([name for name in found if name.startswith("summaries")]) == 6
    return found


@pytest.fixture(scope="module")
def reference(demo_catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """All of it on the synchronous scheduler, in a folder."""
    with dask.config.set(scheduler="synchronous"):
        return fingerprint(ingest(tmp_path_factory.mktemp("sync") / "db", demo_catalog))


def ingest(url: str | Path, catalog: Path) -> fdb.Database:
    return fdb.ingest(url, catalog=catalog, chunk_rows=5_000).database


def test_threads(reference: dict[str, bytes], demo_catalog: Path, tmp_path: Path) -> None:
    with dask.config.set(scheduler="threads", num_workers=4):
        assert fingerprint(ingest(tmp_path / "db", demo_catalog)) == reference


def test_two_processes(reference: dict[str, bytes], demo_catalog: Path, tmp_path: Path, two_workers: Client) -> None:
    """The current client is used, its processes do the work, and in whatever order the bytes are the same."""
    with two_workers.as_current():
        db = ingest(tmp_path / "db", demo_catalog)
        assert fingerprint(db) == reference
        db.files.remove(db.files.list("summaries"))
        assert fingerprint(fdb.open(db.url)) == reference  # moments by a pass of their own now
    done = two_workers.run(os.getpid)
    assert len(set(done.values()) - {os.getpid()}) == 2
    story = two_workers.cluster.scheduler.task_prefixes
    for prefix in ("scan", "write", "write-merge", "moments", "moments-merge", "extremes-store", "histograms"):
        assert any(name.startswith(prefix) for name in story), (prefix, list(story))


def test_s3(reference: dict[str, bytes], demo_catalog: Path, s3: Callable[[], str]) -> None:
    with dask.config.set(scheduler="threads", num_workers=4):
        assert fingerprint(ingest(f"{s3()}/db", demo_catalog)) == reference


def test_the_same_chunks_whoever_writes(demo_catalog: Path, tmp_path: Path, two_workers: Client) -> None:
    with dask.config.set(scheduler="synchronous"):
        one = ingest(tmp_path / "one", demo_catalog)
    with two_workers.as_current():
        two = ingest(tmp_path / "two", demo_catalog)
    names = one.files.list("segments")
    assert names == two.files.list("segments")
    assert all(one.files.read(name) == two.files.read(name) for name in names)


def test_a_worker_that_dies_in_a_pass(demo_catalog: Path, tmp_path: Path) -> None:
    """Killed in its first chunk: the work is done by others, the result is that of an undisturbed run."""
    from distributed import LocalCluster

    db = ingest(tmp_path / "db", demo_catalog)
    shutil.copytree(tmp_path / "db", tmp_path / "copy", ignore=shutil.ignore_patterns("summaries"))
    expected = fdb.pca(db)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        marker = tmp_path / "killed"
        client.run(_die_once, str(marker), workers=[next(iter(client.scheduler_info()["workers"]))])
        found = fdb.pca(fdb.open(tmp_path / "copy"))
        assert marker.exists()
    np.testing.assert_array_equal(found["covariance"], expected["covariance"])
    xr.testing.assert_equal(found, expected)


def _die_once(marker: str) -> None:
    """Make this worker process end without a word at its next chunk, unless one has already."""
    from filterdb.store.segment import Segment

    real = Segment.read_columns

    def deadly(segment: Segment, chunk: int) -> np.ndarray:
        if not Path(marker).exists():
            Path(marker).touch()
            os._exit(9)
        return real(segment, chunk)

    Segment.read_columns = deadly  # type: ignore[assignment, method-assign]
