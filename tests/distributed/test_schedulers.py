"""The same bytes on every scheduler and every store; real processes, a real S3 server."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import dask
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
        "lineage": fdb.lineage(db),
        "pca of 5x5": fdb.pca(db, by="model", kernel="5x5"),
        "sound of 5x5": fdb.drift(db, by="model", kernel="5x5"),
    }


def fingerprint(db: fdb.Database) -> dict[str, bytes]:
    """Every number of every answer, as bytes; and the bytes of every object of segments, summaries and bases."""
    found = {
        f"{name} {variable}": array.values.tobytes()
        if array.dtype.kind != "O"
        else repr(array.values.tolist()).encode()
        for name, result in answers(db).items()
        for variable, array in result.variables.items()
    }
    for folder in ("segments", "summaries", "bases"):
        found |= {name: db.files.read(name) for name in db.files.list(folder)}
    of_3x3 = [name for name in found if name.startswith("summaries/") and name.count("/") == 2]
    assert len(of_3x3) == 7
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
        again = fingerprint(fdb.open(db.url))  # moments by a pass of their own now
        unasked = {name for name in reference.keys() - again.keys() if name.startswith("summaries/")}
        assert again == {name: value for name, value in reference.items() if name not in unasked}
        assert all(name.count("/") == 3 for name in unasked)  # of banks that no answer is about
    done = two_workers.run(os.getpid)
    assert len(set(done.values()) - {os.getpid()}) == 2
    story = two_workers.cluster.scheduler.task_prefixes
    for prefix in ("scan", "write", "write-merge", "moments", "moments-merge", "extremes-store", "histograms"):
        assert any(name.startswith(prefix) for name in story), (prefix, list(story))


def test_s3(reference: dict[str, bytes], demo_catalog: Path, s3: Callable[[], str]) -> None:
    with dask.config.set(scheduler="threads", num_workers=4):
        assert fingerprint(ingest(f"{s3()}/db", demo_catalog)) == reference
