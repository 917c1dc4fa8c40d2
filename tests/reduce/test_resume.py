"""A pass that is stopped goes on where it was; memory is projected before anything runs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from distributed import Client, LocalCluster

import filterdb as fdb
from filterdb import cluster
from filterdb.engine import graph
from filterdb.engine.moments import MomentsReduction
from filterdb.errors import UsageError
from filterdb.store import summary
from filterdb.store.segment import Segment
from tests.models import chain, weights

KEY = MomentsReduction().key


@pytest.fixture
def db(tmp_path: Path) -> fdb.Database:
    """66 chunks of 10 filters, five groups of FAN_IN; without summaries."""
    chain(tmp_path / "a.onnx", weights(20, 13, seed=1), weights(20, 20, seed=2))
    found = fdb.ingest(tmp_path / "db", [tmp_path / "a.onnx"], chunk_rows=10).database
    assert found.segments[0].chunks == 66
    forget(found)
    return found


def forget(db: fdb.Database) -> bytes:
    """Remove the moments; gives their bytes."""
    name = summary.name_of(db.segments[0].id, KEY)
    data = db.files.read(name)
    db.files.remove([name])
    db.kept.clear()
    return data


class Stopper:
    """Counts readings; after `allowed` of them the process is interrupted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, allowed: int | None = None) -> None:
        self.read: list[int] = []
        real = Segment.read_columns

        def counted(segment: Segment, chunk: int) -> np.ndarray:
            if len(self.read) == allowed:
                raise KeyboardInterrupt
            self.read.append(chunk)
            return real(segment, chunk)

        monkeypatch.setattr(Segment, "read_columns", counted)


def test_a_stopped_pass_resumes(db: fdb.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    import dask

    undisturbed = fdb.pca(db)["covariance"].values
    expected = forget(db)
    with dask.config.set(scheduler="synchronous"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            Stopper(patch, 60)
            fdb.pca(db)
        kept = db.files.list(summary.parts_name(db.segments[0].id))
        assert len(kept) >= 3  # the groups of FAN_IN that were complete
        with monkeypatch.context() as patch:
            counter = Stopper(patch)
            np.testing.assert_array_equal(fdb.pca(db)["covariance"], undisturbed)
    assert sorted(counter.read) == sorted(set(range(66)) - complete(kept))
    assert db.files.list(summary.parts_name(db.segments[0].id)) == {}
    assert forget(db) == expected  # byte for byte that of the undisturbed pass


def complete(kept: Iterable[str]) -> set[int]:
    """Chunks that kept parts cover."""
    ranges = [Path(name).stem.split("-") for name in kept]
    return {chunk for first, last in ranges for chunk in range(int(first), int(last) + 1)}


def test_parts_that_are_damaged_or_gone_are_computed_again(
    db: fdb.Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import dask

    fdb.pca(db)
    expected = forget(db)
    with dask.config.set(scheduler="synchronous"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            Stopper(patch, 60)
            fdb.pca(db)
        first, second, *_ = [Path(db.url) / name for name in db.files.list(summary.parts_name(db.segments[0].id))]
        data = bytearray(first.read_bytes())
        data[len(data) // 2] ^= 1
        first.write_bytes(data)
        real = graph.merge_tree

        def gone(*args: object, **more: object) -> object:
            second.unlink(missing_ok=True)  # another process has finished the pass
            return real(*args, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(graph, "merge_tree", gone)
        fdb.pca(db)
    assert "got damage" in caplog.text
    assert forget(db) == expected


def test_parts_of_another_reduction_are_not_taken(db: fdb.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two passes of different content stopped in the same place: each resumes from its own."""
    import dask

    with dask.config.set(scheduler="synchronous"):
        fdb.drift(db, by="layer")
        forget(db)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            Stopper(patch, 60)
            fdb.pca(db)
        done = complete(db.files.list(summary.parts_name(db.segments[0].id)))
        counter = Stopper(monkeypatch)
        fdb.drift(db, by="layer", mode="paper")
    # The rest of the moments, then extremes and histograms from nothing.
    assert 0 < len(done) < 66
    assert len(counter.read) == 66 - len(done) + 2 * 66


@pytest.mark.slow
def test_memory_is_told_before_anything_runs(db: fdb.Database) -> None:
    """A worker whose limit is too small is told in one line; nothing was read.

    It is enough to start: below some 250 MiB the nanny ends a worker before it is one.
    """
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, memory_limit="380MiB", dashboard_address=None) as small,
        Client(small),
        pytest.raises(UsageError, match=r"worker tcp://.*: expected a memory limit of \d+ MiB or more for 2 threads"),
    ):
        fdb.pca(db)


@pytest.mark.slow
def test_projected_memory_holds(tmp_path: Path) -> None:
    """Measured after: the most that a worker has held is below what was projected for it."""
    rng = np.random.default_rng(0)
    for i in range(4):
        chain(tmp_path / f"{i}.onnx", rng.standard_normal((1_024, 640, 3, 3)).astype(np.float32))
    db = fdb.ingest(tmp_path / "db", [tmp_path], chunk_rows=1 << 19).database
    forget(db)
    need = graph.projected(db.segments[0], db.tables[0], [MomentsReduction()])
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None) as one,
        Client(one),
    ):
        fdb.drift(db, by="layer")
        peaks = cluster.peak_memory()
    worker = max(value for name, value in peaks.items() if name != "client")
    assert worker <= cluster.PROCESS_BYTES + 2 * need.per_thread + need.once
