"""A writer that is stopped for long, or whose clock is wrong, beside a collector: nothing listed is ever removed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dask
import numpy as np
import pytest

import filterdb as fdb
from filterdb.errors import InterruptedRunError
from filterdb.store import lease
from filterdb.store import snapshot as snapshots
from filterdb.store.files import Files
from filterdb.store.segment import Segment, pack_name
from tests.faults.suspended import POINTS
from tests.models import chain, weights

pytestmark = pytest.mark.slow

SECONDS = 240.0
DAY = 86_400.0


@dataclass
class Writer:
    process: subprocess.Popen[str]

    def wait_until_stopped(self) -> None:
        began = time.monotonic()
        while time.monotonic() - began < SECONDS:
            pid, status = os.waitpid(self.process.pid, os.WUNTRACED | os.WNOHANG)
            if pid:
                assert os.WIFSTOPPED(status), self.process.stderr
                return
            time.sleep(0.05)
        raise AssertionError("the writer has not come to its point")

    def go_on(self) -> tuple[int, str]:
        """Continue the process; return its exit code and what it said."""
        self.process.send_signal(signal.SIGCONT)
        _, said = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, said.strip()


@contextmanager
def writer(point: str, url: str, model: Path, skew: float = 0) -> Iterator[Writer]:
    command = [sys.executable, "-m", "tests.faults.suspended", point, str(skew), url, str(model)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        found = Writer(process)
        found.wait_until_stopped()
        yield found
    finally:
        process.kill()
        process.wait()


@pytest.fixture(autouse=True)
def synchronous() -> Iterator[None]:
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    return [
        chain(tmp_path / f"{name}.onnx", weights(6, 5, seed), weights(7, 6, seed + 9)) for seed, name in enumerate("ab")
    ]


def place(where: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    return str(tmp_path / "db") if where == "folder" else f"{request.getfixturevalue('s3')()}/db"


def check_whole(url: str) -> None:
    """Two models, every byte of every snapshot's segments as it was committed, no garbage."""
    db = fdb.open(url)
    expected = [weights(6, 5, 0), weights(7, 6, 9), weights(6, 5, 1), weights(7, 6, 10)]
    np.testing.assert_array_equal(
        db.dataset.filters.values, np.concatenate([weight.reshape(-1, 9) for weight in expected])
    )
    for state in snapshots.history(db.files):
        assert fdb.verify(fdb.open(url, state.number), deep=True).problems == []


@pytest.mark.parametrize(("point", "where"), [*((point, "folder") for point in POINTS), ("before the put", "s3")])
def test_a_stopped_writer_whose_segment_was_collected(
    point: str, where: str, tmp_path: Path, models: list[Path], request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    url = place(where, tmp_path, request)
    fdb.ingest(url, models[:1], chunk_rows=20)
    with writer(point, url, models[1]) as stopped:
        monkeypatch.setattr(lease, "LEASE_SECONDS", 0.5)
        time.sleep(2.5)  # an object store tells whole seconds
        kinds = {garbage.kind for garbage in fdb.gc(url, delete=True, grace=0)}
        assert {"segment", "leases"} <= kinds
        code, said = stopped.go_on()
    monkeypatch.undo() if where == "folder" else monkeypatch.setattr(lease, "LEASE_SECONDS", 900.0)
    assert code == 75, said
    assert "`filterdb gc` removed what it had written; nothing was committed, run again" in said
    assert len(said.splitlines()) == 1
    assert [state.action for state in snapshots.history(Files.at(url))] == ["ingest", "gc"]
    done = fdb.ingest(url, models[1:], chunk_rows=20)
    assert len(done.added) == 1
    check_whole(url)


@pytest.mark.parametrize("point", POINTS)
def test_a_stopped_writer_whose_added_shapes_were_collected(
    point: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, url = chain(tmp_path / "a.onnx", weights(6, 5), weights(7, 6, 9, (5, 5))), str(tmp_path / "db")
    fdb.ingest(url, [model], chunk_rows=20, kernels="3x3")
    with writer(point, url, model) as stopped:
        monkeypatch.setattr(lease, "LEASE_SECONDS", 0.5)
        time.sleep(2.5)
        removed = {garbage.name for garbage in fdb.gc(url, delete=True, grace=0) if garbage.kind == "segment"}
        code, said = stopped.go_on()
    monkeypatch.undo()
    assert (code, len(removed), len(said.splitlines())) == (75, 1, 1), said
    assert "`filterdb gc` removed what it had written; nothing was committed, run again" in said
    assert fdb.open(url).kernels == ((3, 3),)
    done = fdb.ingest(url, [model], chunk_rows=20)
    assert done.widened == [str(model)]
    (entry,) = done.database.state.segments
    assert len(entry.ids) == 2 and not entry.ids & removed
    np.testing.assert_array_equal(
        done.database.bank("5x5").dataset.filters.values, weights(7, 6, 9, (5, 5)).reshape(-1, 25)
    )
    for number in (0, done.database.snapshot):
        assert fdb.verify(fdb.open(url, number), deep=True).problems == []


@pytest.mark.parametrize(
    ("ahead", "skew", "where"),
    [
        ("the collector's", DAY, "folder"),
        ("the collector's", DAY, "s3"),
        ("the collector's", -DAY, "folder"),
        ("the writer's", -DAY, "folder"),
    ],
)
def test_clocks_apart(
    where: str, skew: float, ahead: str, tmp_path: Path, models: list[Path], request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A writer that lives keeps its segment, whatever the clock of the collector or its own says."""
    url = place(where, tmp_path, request)
    fdb.ingest(url, models[:1], chunk_rows=20)
    with writer("before the checks", url, models[1], 0 if ahead == "the collector's" else skew) as stopped:
        now = time.time
        if ahead == "the collector's":
            monkeypatch.setattr(time, "time", lambda: now() + skew)
        time.sleep(1.5)
        assert fdb.gc(url, delete=True, grace=0) == []
        assert stopped.go_on() == (0, "")
    assert [state.action for state in snapshots.history(Files.at(url))] == ["ingest", "ingest"]
    check_whole(url)


def test_a_collector_whose_clock_is_behind_removes_what_is_dead(
    tmp_path: Path, models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(tmp_path / "db")
    fdb.ingest(url, models[:1], chunk_rows=20)
    with writer("after a chunk", url, models[1]):
        pass  # killed
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - DAY)
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.1)
    time.sleep(0.5)
    assert "segment" in {garbage.kind for garbage in fdb.gc(url, delete=True, grace=0)}


def test_a_collector_that_was_suspended(tmp_path: Path, models: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever ingests the same models meanwhile writes another segment: what comes late removes nothing of it."""
    url = str(tmp_path / "db")
    fdb.ingest(url, models[:1], chunk_rows=20)
    with writer("after a chunk", url, models[1]):
        pass  # killed
    monkeypatch.setattr(lease, "LEASE_SECONDS", -1.0)
    remove = Files.remove
    done: list[str | None] = []

    def remove_late(files: Files, names: list[str]) -> None:
        """Before its first object is removed the collector is suspended, until an ingest has come and gone."""
        if not done and any(name.startswith("segments/") for name in names):
            done.append(fdb.ingest(url, models[1:], chunk_rows=20).segment)
        remove(files, names)

    monkeypatch.setattr(Files, "remove", remove_late)
    removed = [garbage.name for garbage in fdb.gc(url, delete=True, grace=-1) if garbage.kind == "segment"]
    assert len(done) == len(removed) == 1
    assert done != removed
    check_whole(url)


@pytest.mark.parametrize("name", ["row_size/c/0", "zarr.json", "filters/zarr.json", "pack", "filters/c/1/0", "lease"])
def test_whatever_is_gone_before_the_commit(
    name: str, tmp_path: Path, models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Removed by hand, or by a version that knows nothing of leases."""
    from filterdb.engine import checkpoint

    url, store = str(tmp_path / "db"), checkpoint.store

    def rob(segment: Segment, *args: object) -> object:
        result = store(segment, *args)  # type: ignore[arg-type]
        leases = list(segment.files.list("ingests"))
        places = {"pack": [pack_name(segment.id)], "lease": leases}
        segment.files.remove(places.get(name, [f"{segment.name}/{name}"]))
        return result

    monkeypatch.setattr(checkpoint, "store", rob)
    with pytest.raises(InterruptedRunError, match="nothing was committed, run again"):
        fdb.ingest(url, models, chunk_rows=20)
    assert Files.at(url).list("snapshots") == {}
    monkeypatch.setattr(checkpoint, "store", store)
    fdb.ingest(url, models, chunk_rows=20)
    check_whole(url)
