"""filterdb computes on whatever `distributed.Client` is the current one, however it was made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from distributed import Client, LocalCluster, Scheduler, SubprocessCluster

import filterdb as fdb
from tests.models import chain, weights

pytestmark = pytest.mark.slow

KINDS = {
    "LocalCluster": LocalCluster,
    "SubprocessCluster": SubprocessCluster,  # shares no memory with this process, as Coiled's and a hub's
}


@contextmanager
def client_of(kind: str) -> Iterator[Client]:
    """A client that a user makes without filterdb."""
    with KINDS[kind](n_workers=1, threads_per_worker=1) as local, Client(local) as client:
        yield client


@pytest.mark.parametrize("kind", KINDS)
def test_the_current_client_does_the_work(kind: str, tmp_path: Path) -> None:
    chain(tmp_path / "m.onnx", weights(8, 4, 1), weights(4, 8, 2))
    with client_of(kind) as client:
        client.wait_for_workers(1, timeout=60)
        there = fdb.pca(fdb.ingest(tmp_path / "there", tmp_path / "m.onnx").database)
        prefixes = client.run_on_scheduler(_prefixes)
        assert any(name.startswith("scan") for name in prefixes), prefixes
        assert Client.current() is client and client.status == "running"  # it is its maker's to close
    here = fdb.pca(fdb.ingest(tmp_path / "here", tmp_path / "m.onnx").database)
    for variable, values in here.items():
        np.testing.assert_array_equal(there[variable].values, values.values)


def _prefixes(dask_scheduler: Scheduler) -> list[str]:
    return sorted(dask_scheduler.task_prefixes)
