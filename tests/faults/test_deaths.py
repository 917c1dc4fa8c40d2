"""Faults 2, 3, 9, 10: workers and schedulers that die, two ingests at once."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster

import filterdb as fdb
from filterdb import cluster
from filterdb.engine.partition import partitions
from filterdb.errors import InputError, InterruptedRunError
from filterdb.ingestion.scanned import from_models
from filterdb.ingestion.write import write_partition
from filterdb.models import formats
from filterdb.models import scan as scanning
from filterdb.models.catalog import ModelSource
from filterdb.models.sandbox import Limits
from filterdb.models.scan import scan
from filterdb.models.spool import Spool
from filterdb.schema import Kernels
from filterdb.store.files import Files
from filterdb.store.segment import Segment
from tests.faults.crashing import ROWS, SHAPES
from tests.models import chain, weights

pytestmark = pytest.mark.slow


def models(folder: Path, names: str = "ab") -> list[Path]:
    return [chain(folder / f"{n}.onnx", weights(9, 8, seed=ord(n)), weights(7, 9, seed=ord(n) + 9)) for n in names]


def objects(url: str | Path) -> dict[str, str]:
    """Digests of everything that does not tell the moment."""
    files = Files.at(url)
    names = [name for prefix in ("segments", "summaries", "bases") for name in files.list(prefix)]
    return {name: hashlib.sha256(files.read(name)).hexdigest() for name in names}


def everything(url: str | Path, sources: list[Path]) -> dict[str, str]:
    """Ingest and every pass: moments, extremes (paper), histograms (both modes)."""
    db = fdb.ingest(url, sources, chunk_rows=10).database
    fdb.drift(db, by="model", mode="paper")
    fdb.drift(db, by="model")
    return objects(url)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], dict[str, str]]:
    folder = tmp_path_factory.mktemp("models")
    sources = models(folder)
    with dask.config.set(scheduler="synchronous"):
        return sources, everything(folder / "db", sources)


@pytest.fixture
def two_mortals() -> Iterator[Client]:
    """Two processes that may die; a nanny starts others in their place, or may give up: new ones a test."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as local,
        Client(local, set_as_default=False) as client,
    ):
        yield client


DEADLY = {
    "scan": ("filterdb.models.scan", "_scan", 1),
    "write": ("filterdb.store.segment", "Segment.write_chunk", 3),
    "moments": ("filterdb.ingestion.write", "fold", 2),
    "extremes": ("filterdb.reduce.reductions", "ExtremesReduction.add", 5),
    "histograms": ("filterdb.reduce.reductions", "HistogramsReduction.add", 5),
    "merge": ("filterdb.engine.parts", "join", 1),
    "store": ("filterdb.store.summary", "save", 1),
}


@pytest.mark.parametrize("where", DEADLY)
def test_a_worker_killed(
    where: str, undisturbed: tuple[list[Path], dict[str, str]], two_mortals: Client, tmp_path: Path
) -> None:
    """kill −9 in the middle of a task: others do its work, and every byte is that of an undisturbed run."""
    sources, expected = undisturbed
    marker = tmp_path / "killed"
    with two_mortals.as_current():
        two_mortals.wait_for_workers(2)
        two_mortals.run(die_once, *DEADLY[where], str(marker))
        found = everything(tmp_path / "db", sources)
    assert marker.exists()
    assert found == expected


def die_once(module: str, name: str, call: int, marker: str) -> None:
    """Make this process end without a word at the n-th call, unless another has already."""
    import importlib

    owner: object = importlib.import_module(module)
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    real, count = getattr(owner, last), [0]

    def deadly(*args: object, **kwargs: object) -> object:
        count[0] += 1
        if count[0] >= call:
            try:
                os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    setattr(owner, last, deadly)


def test_the_same_task_twice(tmp_path: Path) -> None:
    """As after a worker was taken for dead: the same bytes, and with `resume` no byte is written again."""
    sources = models(tmp_path)
    db = fdb.ingest(tmp_path / "db", sources, chunk_rows=10).database
    before = objects(db.url)
    (segment,), tables = db.segments, db.tables[0]
    found = fdb.ingest(tmp_path / "other", sources, chunk_rows=10).database
    assert found.segments[0].id == segment.id
    from filterdb.models.catalog import ModelSource

    scans = [scanning.scan(ModelSource(str(path), str(path)), None, Limits()) for path in sources]
    filler = from_models(tables, dict(enumerate(scans)), Limits())
    for resume in (False, True):
        times = {path: path.stat().st_mtime_ns for path in Path(db.url).glob("segments/*/filters/c/*/0")}
        for partition in partitions(segment, tables):
            write_partition(partition, filler(partition), resume=resume)
        assert objects(db.url) == before
        assert all((path.stat().st_mtime_ns == time) == resume for path, time in times.items())


@pytest.mark.parametrize("where", ["folder", "s3"])
def test_two_ingests_and_a_reader(where: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Both commit; whoever reads meanwhile sees all of one, of both, or of none; what is committed stays as it is."""
    url = str(tmp_path / "db") if where == "folder" else f"{request.getfixturevalue('s3')()}/db"
    sources = models(tmp_path, "abcd")
    pairs = [sources[:2], sources[2:]]
    whole = {
        frozenset(map(str, pair)): fdb.ingest(
            tmp_path / f"alone{i}", pair, chunk_rows=10
        ).database.dataset.filters.values
        for i, pair in enumerate(pairs)
    }
    command = [sys.executable, "-m", "filterdb", "ingest", url, "--chunk-rows", "10", "--threads", "2"]
    running = [
        subprocess.Popen([*command, *map(str, pair)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for pair in pairs
    ]
    committed: dict[str, str] = {}
    seen = set()
    while any(process.poll() is None for process in running):
        try:
            db = fdb.open(url)
        except fdb.errors.StoreMissingError:
            continue
        names = list(map(str, db.models["model"].values))
        halves = [frozenset(names[i : i + 2]) for i in range(0, len(names), 2)]
        np.testing.assert_array_equal(db.dataset.filters.values, np.concatenate([whole[half] for half in halves]))
        seen.add(len(names))
        listed = [name for entry in db.state.segments for name in db.files.list(f"segments/{entry.id}.zarr")]
        now = {name: hashlib.sha256(db.files.read(name)).hexdigest() for name in listed}
        assert all(now[name] == digest for name, digest in committed.items())
        committed |= now
    for process in running:
        assert process.wait() == 0, process.stderr.read().decode() if process.stderr else ""
    db = fdb.open(url)
    assert (db.snapshot, db.counts["models"]) == (1, 4)
    assert fdb.verify(db, deep=True).problems == []
    assert seen <= {2, 4}


@contextmanager
def dask_process(*command: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "distributed.cli.dask_scheduler" if command[0] == "scheduler" else "distributed.cli.dask_worker",
            *command[1:],
        ],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def own_cluster(port: int, workers: int, **environment: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A scheduler process and worker processes; gives the address and the scheduler."""
    address = f"tcp://127.0.0.1:{port}"
    with dask_process(
        "scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard", **environment
    ) as scheduler:
        if not workers:
            wait_for(port)
            yield address, scheduler
            return
        with dask_process(
            "worker", address, "--nworkers", str(workers), "--nthreads", "1", "--no-dashboard", **environment
        ):
            with Client(address, timeout="30s", set_as_default=False) as client:
                client.wait_for_workers(workers, timeout=60)
            yield address, scheduler


def wait_for(port: int) -> None:
    import socket

    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("no scheduler")


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


SLOW = """
import time
from filterdb.store.segment import Segment
def made_slow(real):
    def slow(segment, chunk):
        time.sleep(0.15)
        return real(segment, chunk)
    return slow
if Segment.read_columns.__name__ != "slow":  # a worker may load this twice
    Segment.read_columns = made_slow(Segment.read_columns)
"""


def test_the_scheduler_killed_in_a_pass(tmp_path: Path) -> None:
    """The client ends with 75 in time; the next run reads only what is missing, and every byte is right."""
    chain(tmp_path / "a.onnx", weights(40, 20, seed=1), weights(20, 40, seed=2))
    db = fdb.ingest(tmp_path / "db", [tmp_path / "a.onnx"], chunk_rows=16).database
    assert db.segments[0].chunks == 100
    expected = objects(db.url)
    (moments,) = (tmp_path / "db/summaries").rglob("moments-*.npz")
    moments.unlink()
    (tmp_path / "slow.py").write_text(SLOW)
    small_tasks = "from filterdb import commands, plan; plan.TASK_ROWS = 1; commands.main()"
    command = [sys.executable, "-c", small_tasks, "pca", db.url, "--json", "--scheduler"]
    parts = lambda: list((tmp_path / "db/summaries").rglob("parts/**/*.npz"))  # noqa: E731
    with own_cluster(free_port(), 2, DASK_DISTRIBUTED__WORKER__PRELOAD=str(tmp_path / "slow.py")) as (
        address,
        scheduler,
    ):
        run = subprocess.Popen([*command, address], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 120
        while len(parts()) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        scheduler.kill()
        began = time.monotonic()
        _, errors = run.communicate(timeout=120)
    assert run.returncode == 75, errors
    assert errors.strip().splitlines()[-1].startswith("filterdb: moments: "), errors
    assert "run again" in errors and "Traceback" not in errors
    assert time.monotonic() - began < 90
    kept = len(parts())
    assert kept >= 2
    with own_cluster(free_port(), 2) as (address, _):
        done = subprocess.run([*command, address], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["filters"] == 1_600
    assert parts() == []
    assert {name: digest for name, digest in objects(db.url).items() if name in expected} == expected


def test_no_workers(tmp_path: Path) -> None:
    """A client alone waits for ever; ours ends with 75 and says what is missing."""
    db = fdb.ingest(tmp_path / "db", models(tmp_path), chunk_rows=10).database
    environment = {**os.environ, "DASK_DISTRIBUTED__SCHEDULER__NO_WORKERS_TIMEOUT": "3s"}
    with own_cluster(free_port(), 0) as (address, _):
        command = [sys.executable, "-m", "filterdb", "drift", db.url, "--by", "model", "--scheduler", address]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)
    assert done.returncode == 75, done.stderr
    assert "expected at least one worker within 3 s" in done.stderr


def test_the_last_worker_gone_in_a_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    db = fdb.ingest(tmp_path / "db", models(tmp_path), chunk_rows=10).database
    monkeypatch.setattr(cluster.tasks, "LOOK_SECONDS", 0.2)
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as local,
        Client(local) as client,
        dask.config.set({"distributed.scheduler.no-workers-timeout": "2s"}),
    ):
        client.run(hang)
        threading.Timer(1.5, lambda: local.scale(0)).start()
        with pytest.raises(InterruptedRunError, match=r"the scheduler has had no worker for 2 s; run again"):
            fdb.drift(db, by="model")
    assert fdb.drift(fdb.open(db.url), by="model").sizes["group"] == 2


def hang() -> None:
    real = Segment.read_columns

    def slow(segment: Segment, chunk: int) -> np.ndarray:
        time.sleep(1)
        return real(segment, chunk)

    Segment.read_columns = slow  # type: ignore[assignment, method-assign]


def test_a_block_over_the_memory_limit(tmp_path: Path) -> None:
    """The nanny kills whoever takes it, again and again: an end with 75, not for ever; the store is as it was."""
    db = fdb.ingest(tmp_path / "db", models(tmp_path), chunk_rows=10).database
    before = objects(db.url)
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        LocalCluster(n_workers=1, threads_per_worker=1, memory_limit="700MiB", dashboard_address=None) as local,
        Client(local) as client,
    ):
        client.register_plugin(Greedy())
        with pytest.raises(InterruptedRunError, match="workers died again and again over it"):
            fdb.drift(db, by="model")
    assert {name: digest for name, digest in objects(db.url).items() if name in before} == before
    assert fdb.drift(fdb.open(db.url), by="model").sizes["group"] == 2


from distributed.diagnostics.plugin import WorkerPlugin  # noqa: E402


class Greedy(WorkerPlugin):
    """A worker, and every one that comes after it, whose third chunk takes all memory."""

    name = "greedy"

    def setup(self, worker: object) -> None:
        real = Segment.read_columns

        def greedy(segment: Segment, chunk: int) -> np.ndarray:
            if chunk == 3:
                held = np.ones(2**28)
                time.sleep(5)
                del held
            return real(segment, chunk)

        Segment.read_columns = greedy  # type: ignore[assignment, method-assign]


def test_a_model_that_crashes_its_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real segmentation fault, a real abort, a reader that eats memory, one that never ends: each is put aside."""
    monkeypatch.setattr(formats, "FORMATS", (replace(formats.ONNX, reader="tests.faults.crashing"),))
    for name in ("segfault", "abort", "memory", "cpu", "sleep", "nonsense", "exit", "negative", "endless"):
        chain(tmp_path / f"m/{name}.onnx", weights(3, 3))
    models(tmp_path / "m")
    found = fdb.ingest(tmp_path / "db", [tmp_path / "m"], chunk_rows=10, limits=Limits(2**28, 2))
    reasons = {Path(model).stem: reason for model, reason in found.rejected.items()}
    assert "ended with SIGSEGV" in reasons["segfault"]
    assert "256 MiB of memory" in reasons["abort"]
    assert "256 MiB of memory" in reasons["memory"]
    assert "within 2 s" in reasons["cpu"] and "within 2 s" in reasons["sleep"]
    assert "nonsense" in reasons["nonsense"] and "nonsense" in reasons["negative"]
    assert "nonsense" in reasons["endless"] or "within 2 s" in reasons["endless"]
    assert "ended with exit code 3" in reasons["exit"]
    assert [Path(model).stem for model in found.added] == ["a", "b"]


@pytest.mark.parametrize("name", [*SHAPES, *ROWS])
@pytest.mark.parametrize("kernels", [((3, 3),), None], ids=["3x3", "all"])
def test_a_reader_that_lies_about_shapes(
    name: str, kernels: Kernels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either the file is rejected, or nothing is kept but arrays of the shapes that the rows say."""
    monkeypatch.setattr(formats, "FORMATS", (replace(formats.ONNX, reader="tests.faults.crashing"),))
    path = chain(tmp_path / f"{name}.onnx", weights(3, 3))
    spool = Spool(2**20)
    found = scan(ModelSource("m", str(path)), None, Limits(2**29, 5), spool=spool, kernels=kernels)
    kept = spool.layers("m")
    if name in {"other", "much"}:  # as many numbers in another shape, and more than there is room for
        assert found.rejected is None and [row["kernel"] for row in found.rows] == ["3x3"] and kept is None
    elif name == "nine" and kernels is None:
        assert kept is not None and kept["conv0"].shape == (9, 9)  # the truth, but for its name
    elif name == "five" and kernels is None:
        assert kept is None
    else:
        assert found.rejected is not None and kept is None and not found.rows
    assert spool.room >= 0


def test_a_reader_that_sends_no_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a child sent of the filters is checked once more before it is written."""
    monkeypatch.setattr(formats, "FORMATS", (replace(formats.ONNX, reader="tests.faults.crashing"),))
    chain(tmp_path / "nan.onnx", weights(3, 3))
    with pytest.raises(InputError, match="layer 'conv0': a weight is NaN or infinite"):
        fdb.ingest(tmp_path / "db", tmp_path / "nan.onnx")
    assert not (tmp_path / "db/snapshots").exists()


def test_a_fork_server_that_was_ended_while_it_waited(tmp_path: Path) -> None:
    """As by the kernel, for its memory: another takes its place, no model is blamed."""
    from filterdb.models.sandbox import sandbox

    fdb.ingest(tmp_path / "one", models(tmp_path, "a"), chunk_rows=10)
    waiting = sandbox(formats.ONNX.reader)._free
    assert waiting
    for server in waiting:
        server.process.poll = lambda: None  # type: ignore[method-assign]  # as in the moment before it is known
        os.kill(server.process.pid, signal.SIGKILL)
        os.waitpid(server.process.pid, 0)
    done = fdb.ingest(tmp_path / "two", models(tmp_path, "b"), chunk_rows=10)
    assert (len(done.added), done.rejected) == (1, {})


def test_chunks_that_vanish_before_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody removes what an ingest has written: no snapshot lists it; run again."""
    from filterdb.ingestion import segment_writer

    real = segment_writer.write_banks

    def robbed(banks: list[Segment], *args: Any) -> None:
        real(banks, *args)
        banks[0].files.remove([banks[0].chunk_name(2)])

    monkeypatch.setattr(segment_writer, "write_banks", robbed)
    with pytest.raises(InterruptedRunError, match=r"chunk 2 is missing; .* run again"):
        fdb.ingest(tmp_path / "db", models(tmp_path), chunk_rows=10)
    assert not (tmp_path / "db/snapshots").exists()
    monkeypatch.setattr(segment_writer, "write_banks", real)
    assert fdb.verify(fdb.ingest(tmp_path / "db", models(tmp_path), chunk_rows=10).database, deep=True).problems == []
