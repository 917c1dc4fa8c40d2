"""Collection beside open ingests and readers."""

from __future__ import annotations

import threading
from pathlib import Path

import dask
import numpy as np
import pytest

import filterdb as fdb
from filterdb.errors import InterruptedRunError, StoreError
from filterdb.store import collect, lease
from filterdb.store import snapshot as snapshots
from filterdb.store.files import Files
from filterdb.store.segment import Segment
from tests.faults.test_deaths import models, objects

pytestmark = pytest.mark.slow


def test_gc_beside_an_open_ingest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A collection while chunks are being written takes nothing that the ingest has or will have."""
    fdb.ingest(tmp_path / "db", models(tmp_path, "a"), chunk_rows=10)
    real, at_work, go_on = Segment.write_chunk, threading.Event(), threading.Event()

    def held(segment: Segment, chunk: int, filters: np.ndarray) -> None:
        real(segment, chunk, filters)
        at_work.set()
        assert go_on.wait(60)

    monkeypatch.setattr(Segment, "write_chunk", held)
    with dask.config.set(scheduler="threads", num_workers=2):
        ingest = threading.Thread(target=lambda: fdb.ingest(tmp_path / "db", models(tmp_path, "b"), chunk_rows=10))
        ingest.start()
        assert at_work.wait(60)
        assert [one.kind for one in fdb.gc(tmp_path / "db", delete=True, grace=-1)] in ([], ["temporary"])
        go_on.set()
        ingest.join(120)
    db = fdb.open(tmp_path / "db")
    assert db.counts["models"] == 2
    assert fdb.verify(db, deep=True).problems == []
    assert fdb.gc(tmp_path / "db", grace=-1) == []


def test_gc_takes_what_a_dead_ingest_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fdb.ingest(tmp_path / "db", models(tmp_path, "a"), chunk_rows=10)
    before = objects(tmp_path / "db")

    def dies(*_: object) -> None:
        raise StoreError("died")

    monkeypatch.setattr(Segment, "write_chunk", dies)
    with pytest.raises(StoreError, match="died"):
        fdb.ingest(tmp_path / "db", models(tmp_path, "b"), chunk_rows=10)
    assert fdb.gc(tmp_path / "db", grace=-1) == []  # its lease still counts
    monkeypatch.setattr(lease, "LEASE_SECONDS", -1.0)
    assert fdb.gc(tmp_path / "db") == []  # too young
    found = fdb.gc(tmp_path / "db", grace=-1)
    assert {one.kind for one in found} == {"segment", "leases"}
    assert set(objects(tmp_path / "db")) > set(before)  # a dry run
    removed = [garbage.name for garbage in fdb.gc(tmp_path / "db", delete=True, grace=-1)]
    assert objects(tmp_path / "db") == before
    assert not [
        name for name in Files.at(tmp_path / "db").list("segments") if name.split("/")[1].split(".")[0] in removed
    ]
    assert [state.action for state in snapshots.history(Files.at(tmp_path / "db"))] == ["ingest", "gc"]
    assert not Files.at(tmp_path / "db").list("ingests")


def test_who_comes_first_gc_or_ingest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ingest that resumes a segment which is just being collected: one of the two steps back."""
    fdb.ingest(tmp_path / "db", models(tmp_path, "a"), chunk_rows=10)
    files = Files.at(tmp_path / "db")
    with monkeypatch.context() as patch, dask.config.set(scheduler="synchronous"):
        patch.setattr(Segment, "write_chunk", lambda *_: (_ for _ in ()).throw(StoreError("died")))
        with pytest.raises(StoreError):
            fdb.ingest(tmp_path / "db", models(tmp_path, "b"), chunk_rows=10)
    files.remove(files.list("ingests"))
    (orphan,) = fdb.gc(tmp_path / "db", grace=-1)
    # The ingest is first: its lease comes between the look and the removal.
    with lease.writing(files, orphan.name), monkeypatch.context() as patch:
        patch.setattr(collect, "find_garbage", lambda *_: [orphan])
        assert fdb.gc(tmp_path / "db", delete=True, grace=-1) == []
    assert fdb.gc(tmp_path / "db", grace=-1) == [orphan]
    # The collector is first.
    with lease.collecting(files, [orphan.name]), pytest.raises(InterruptedRunError, match=r"`filterdb gc` is removing"):
        fdb.ingest(tmp_path / "db", models(tmp_path, "b"), chunk_rows=10)
    files.remove(files.list("ingests"))
    fdb.gc(tmp_path / "db", delete=True, grace=-1)
    assert fdb.ingest(tmp_path / "db", models(tmp_path, "b"), chunk_rows=10).database.counts["models"] == 2


def test_gc_beside_an_open_reader(tmp_path: Path) -> None:
    """Whoever reads an older snapshot keeps it, whatever was removed, compacted and collected since."""
    for name in "abc":
        fdb.ingest(tmp_path / "db", models(tmp_path, name), chunk_rows=10)
    reader = fdb.open(tmp_path / "db")
    expected = fdb.open(tmp_path / "db").dataset.filters.values
    lazily = reader.dataset.filters
    db = fdb.remove(reader, [str(reader.models["model"].values[1])])
    db = fdb.compact(db)
    assert [entry.models for entry in db.state.segments] == [2]
    assert fdb.gc(tmp_path / "db", delete=True, grace=-1) == []
    np.testing.assert_array_equal(lazily.values, expected)
    np.testing.assert_array_equal(fdb.open(tmp_path / "db", 2).dataset.filters.values, expected)
    np.testing.assert_array_equal(db.dataset.filters.values, np.concatenate([expected[:135], expected[-135:]]))
