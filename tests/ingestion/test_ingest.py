"""Ingest: what is new becomes one segment; resumes; odd models cost only themselves; conflicts are refused."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import filterdb as fdb
from filterdb import plan
from filterdb.engine import partition
from filterdb.errors import ConflictError, InputError, UsageError
from filterdb.ingestion import run, scanning, segment_writer
from filterdb.store.segment import Segment
from tests.models import chain, save, weights


def state(db: Path) -> dict[str, str]:
    """Every file of a database with its content and its time of change."""
    files = sorted(path for path in db.rglob("*") if path.is_file())
    return {
        str(path.relative_to(db)): f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.stat().st_mtime_ns}"
        for path in files
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    chain(tmp_path / "m/a.onnx", weights(6, 5, seed=1), weights(7, 6, seed=2))
    chain(tmp_path / "m/b.onnx", weights(4, 4, seed=3))
    (tmp_path / "m/list.csv").write_text("path,name,task,epoch\na.onnx,A,detection,3\nb.onnx,B,,\n")
    return tmp_path


def ingest(folder: Path, **kwargs: object) -> fdb.Ingested:
    return fdb.ingest(folder / "db", catalog=folder / "m/list.csv", chunk_rows=10, **kwargs)  # type: ignore[arg-type]


def test_catalog_columns_become_coordinates(folder: Path) -> None:
    db = ingest(folder).database
    assert list(db.dataset["task"].values) == ["detection"] * 72 + ["unknown"] * 16
    assert list(db.models["task"].values) == ["detection", "unknown"]
    assert list(db.models["epoch"].values) == ["3", "unknown"]
    assert list(db.layers["task"].values) == ["detection", "detection", "unknown"]
    assert list(db.layers["layer_name"].values) == ["conv0", "conv1", "conv0"]
    filters = np.concatenate([w.reshape(-1, 9) for w in (weights(6, 5, 1), weights(7, 6, 2), weights(4, 4, 3))])
    np.testing.assert_array_equal(db.dataset.filters.values, filters)
    assert db.dataset.filters.chunks is not None


def test_the_same_inputs_again_write_nothing(folder: Path) -> None:
    ingest(folder)
    before = state(folder / "db")
    again = ingest(folder)
    assert again.segment is None
    assert again.present == ["A", "B"]
    assert state(folder / "db") == before


def test_one_more_model_is_one_small_segment(folder: Path) -> None:
    ingest(folder)
    before = state(folder / "db")
    chain(folder / "m/c.onnx", weights(2, 2, seed=4))
    with (folder / "m/list.csv").open("a") as file:
        file.write("c.onnx,C,other,\n")
    done = ingest(folder)
    assert (done.added, done.present) == (["C"], ["A", "B"])
    after = state(folder / "db")
    assert {name: after[name] for name in before} == before  # nothing else touched
    assert [(e.filters, e.chunk_rows) for e in done.database.state.segments] == [(88, 10), (4, 4)]
    assert list(done.database.layers["model"].values) == ["A", "A", "B", "C"]
    assert list(done.database.layers["model_index"].values) == [0, 0, 1, 2]


def test_other_content_under_a_known_name_is_refused(folder: Path) -> None:
    ingest(folder)
    before = state(folder / "db")
    chain(folder / "m/a.onnx", weights(6, 5, seed=99))
    with pytest.raises(InputError, match=r"model 'A': .* has different content"):
        ingest(folder)
    assert state(folder / "db") == before


def test_another_row_under_a_known_name_is_refused(folder: Path) -> None:
    ingest(folder)
    (folder / "m/list.csv").write_text("path,name,task,epoch\na.onnx,A,segmentation,3\n")
    with pytest.raises(
        InputError, match=r"model 'A': .*task = 'segmentation' instead of 'detection'.*filterdb relabel"
    ):
        ingest(folder)


def test_the_same_content_under_another_name_is_a_duplicate(folder: Path) -> None:
    (folder / "m/list.csv").write_text("path,name\na.onnx,A\na.onnx,twin\n")
    db = ingest(folder).database
    assert list(db.models["duplicate_of"].values) == ["", "A"]
    (folder / "m/list.csv").write_text("path,name\na.onnx,third\n")
    assert list(ingest(folder).database.models["duplicate_of"].values) == ["", "A", "A"]


def test_a_row_without_a_file_names_it(folder: Path) -> None:
    (folder / "m/b.onnx").unlink()
    with pytest.raises(InputError, match=r"list\.csv: model 'B': expected a file at .*b\.onnx, found none"):
        ingest(folder)
    assert not (folder / "db").exists()


def test_an_odd_model_costs_only_itself(folder: Path) -> None:
    (folder / "m/b.onnx").write_bytes((folder / "m/b.onnx").read_bytes()[:100])
    done = ingest(folder)
    assert done.added == ["A"]
    assert "b.onnx: not" in done.rejected["B"]
    ledger = done.database.skipped
    assert list(ledger["skipped_model"].values) == ["B"]
    assert list(ledger["skipped_code"].values) == ["rejected"]
    again = ingest(folder)
    assert (again.segment, again.present, list(again.rejected)) == (None, ["A"], ["B"])


def test_a_rejection_is_listed_once_and_not_after_it_is_mended(folder: Path) -> None:
    good = (folder / "m/b.onnx").read_bytes()
    (folder / "m/b.onnx").write_bytes(b"junk")
    ingest(folder)
    chain(folder / "m/c.onnx", weights(2, 2, seed=4))
    with (folder / "m/list.csv").open("a") as file:
        file.write("c.onnx,C,,\n")
    db = ingest(folder).database
    assert list(db.skipped["skipped_model"].values) == ["B"]
    (folder / "m/b.onnx").write_bytes(good)
    db = ingest(folder).database
    assert db.counts["models"] == 3
    assert not db.skipped.sizes["skipped"]


def test_reasons_do_not_depend_on_where_a_model_is_parsed(folder: Path, s3: Callable[[], str]) -> None:
    """Truncated data in a file, from S3: temporary folders differ, ledger and segment do not."""
    import fsspec
    import onnx

    from tests.models import conv, model, tensor

    url = s3()
    proto = model([conv("x", "w", "h", "lost"), conv("h", "v", "y", "kept")], [tensor("w", weights(3, 3))])
    onnx.external_data_helper.set_external_data(proto.graph.initializer[0], "m.data", length=8)
    proto.graph.initializer[0].ClearField("raw_data")
    fsspec.filesystem("s3").pipe(f"{url}/m.data", bytes(8))
    proto.graph.initializer.append(tensor("v", weights(2, 3)))
    fsspec.filesystem("s3").pipe(f"{url}/m.onnx", proto.SerializeToString())
    one, two = (fdb.ingest(folder / name, [f"{url}/m.onnx"]) for name in ("one", "two"))
    assert one.segment == two.segment
    (reason,) = one.database.skipped["skipped_reason"].values
    assert "data of length 8" in reason and "filterdb-" not in reason and "/tmp" not in reason


def test_names_that_are_not_utf8(folder: Path) -> None:
    import os

    path = os.fsdecode(os.fsencode(folder) + b"/b\xff.onnx")
    Path(path).write_bytes((folder / "m/b.onnx").read_bytes())
    done = fdb.ingest(folder / "db", [path])
    assert done.added == [f"{folder}/b�.onnx"]
    assert fdb.ingest(folder / "db", [path]).present == done.added


def test_file_urls(folder: Path) -> None:
    (folder / "m/urls.csv").write_text(f"path,name\nfile://{folder}/m/a.onnx,A\n")
    assert fdb.ingest(folder / "db", catalog=f"file://{folder}/m/urls.csv").added == ["A"]
    assert fdb.ingest(f"file://{folder}/db", [f"file://{folder}/m/b.onnx"]).added == [f"{folder}/m/b.onnx"]


@pytest.mark.slow
def test_the_same_ingest_at_the_same_time(folder: Path, s3: Callable[[], str]) -> None:
    """Real processes, in a folder and on S3: both succeed, the database opens, the chunks are whole."""
    import subprocess
    import sys

    from filterdb.reduce.integrity import verify

    for url in (str(folder / "db"), f"{s3()}/db"):
        command = [
            sys.executable,
            "-m",
            "filterdb",
            "ingest",
            url,
            "--catalog",
            str(folder / "m/list.csv"),
            "--threads",
            "1",
        ]
        running = [
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)
        ]
        for process in running:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
        db = fdb.open(url)
        assert (db.snapshot, db.counts["models"]) == (0, 2)
        assert not verify(db, deep=True).problems


def test_a_server_that_refuses(folder: Path) -> None:
    import http.server
    import threading

    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(403)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(fdb.errors.StoreError, match="403"):
            fdb.ingest(folder / "db", [f"http://127.0.0.1:{server.server_port}/m.onnx"])
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("room", [0, 88 * 36, 50 * 36])
def test_a_model_that_vanishes_between_scan_and_write(folder: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """A model that is in memory is not read again; the others are, and are missed."""
    real = segment_writer.commit_segment
    gone = ["a", "b"] if room == 88 * 36 else ["b" if room == 0 else "a"]

    def vanish(*args: Any, **kwargs: Any) -> object:
        for name in gone:
            (folder / f"m/{name}.onnx").unlink()
        return real(*args, **kwargs)

    expected = fdb.ingest(folder / "other", catalog=folder / "m/list.csv", chunk_rows=10).database
    monkeypatch.setattr(scanning, "MAX_BYTES", room)
    monkeypatch.setattr(run, "commit_segment", vanish)
    if room < 88 * 36:
        with pytest.raises(InputError, match=rf"model '{gone[0].upper()}': .* was removed or changed after the scan"):
            ingest(folder)
        return
    db = ingest(folder).database
    assert {name: db.files.read(name) for name in db.files.list("segments")} == {
        name: expected.files.read(name) for name in expected.files.list("segments")
    }


def test_no_secret_travels_with_a_graph(folder: Path, s3: Callable[[], str]) -> None:
    import cloudpickle

    db = fdb.ingest(f"{s3()}/db", catalog=folder / "m/list.csv", chunk_rows=10).database
    assert db.dataset.filters.shape == (88, 9)
    for thing in (db, db.dataset, db.segments[0]):
        assert b"secretsecret" not in cloudpickle.dumps(thing)


def test_only_odd_models_are_an_error(folder: Path) -> None:
    for name in "ab":
        (folder / f"m/{name}.onnx").write_bytes(b"junk")
    with pytest.raises(InputError, match=r"a\.onnx: not an ONNX model"):
        ingest(folder)
    assert not (folder / "db").exists()


def test_sources_without_a_row(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids are the paths as given; two files of one base name stay apart; overlapping sources count once."""
    chain(folder / "m/deep/a.onnx", weights(2, 3, seed=8))
    monkeypatch.chdir(folder)
    done = fdb.ingest("db", ["m", "m/*.onnx", folder / "m/deep/a.onnx"])
    assert done.added == ["m/a.onnx", "m/b.onnx", "m/deep/a.onnx"]
    assert set(done.database.models["task"].values) == {"unknown"}


def test_sources_with_a_catalog_take_their_rows(folder: Path) -> None:
    done = ingest(folder, sources=[folder / "m/b.onnx"])
    assert done.added == ["B"]
    assert done.database.counts["models"] == 1


def test_neither_sources_nor_catalog(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected sources or a catalog"):
        fdb.ingest(tmp_path / "db")


def test_an_interrupted_write_resumes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stopped half-way left no snapshot; the next run keeps the whole chunks, mends the rest, same bytes."""
    real = Segment.write_chunk
    written: list[int] = []

    def failing(segment: Segment, chunk: int, filters: np.ndarray) -> None:
        if len(written) == 5:
            raise OSError("disk full")
        written.append(chunk)
        real(segment, chunk, filters)

    monkeypatch.setattr(Segment, "write_chunk", failing)
    with pytest.raises(OSError, match="disk full"):
        ingest(folder)
    assert not (folder / "db/snapshots").exists()
    with pytest.raises(fdb.errors.StoreMissingError):
        fdb.open(folder / "db")
    (broken,) = (folder / "db").glob(f"segments/*/filters/c/{written[2]}/0")
    broken.write_bytes(broken.read_bytes()[:50])
    kept = {path: path.stat().st_mtime_ns for path in (folder / "db").glob("segments/*/filters/c/*/0")}
    monkeypatch.setattr(Segment, "write_chunk", real)
    db = ingest(folder).database
    changed = [path for path, time in kept.items() if path.stat().st_mtime_ns != time]
    assert changed == [broken]
    fresh = fdb.ingest(folder / "fresh", catalog=folder / "m/list.csv", chunk_rows=10).database
    assert db.state.segments == fresh.state.segments
    np.testing.assert_array_equal(db.dataset.filters.values, fresh.dataset.filters.values)


@pytest.mark.parametrize("where", ["threads", "two processes"])
def test_many_writing_tasks_with_layers_and_models_across_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, where: str
) -> None:
    """A run of chunks is about a default chunk long, so small data are one task: here each has two chunks of 10."""
    import contextlib

    monkeypatch.setattr(plan, "TASK_ROWS", 20)
    made: list[int] = []
    real = partition.partitions

    def counted(*args: object) -> list[object]:
        found = real(*args)  # type: ignore[arg-type]
        made.append(len(found))
        return found  # type: ignore[return-value]

    monkeypatch.setattr(partition, "partitions", counted)
    client = request.getfixturevalue("two_workers") if where == "two processes" else None
    with client.as_current() if client else contextlib.nullcontext():
        db = ingest(folder).database
    assert set(made) == {5}  # 88 filters; layers of 30, 42 and 16 lie across tasks, and so do both models
    filters = np.concatenate([w.reshape(-1, 9) for w in (weights(6, 5, 1), weights(7, 6, 2), weights(4, 4, 3))])
    np.testing.assert_array_equal(db.dataset.filters.values, filters)
    for chunk in (1, 4):
        (path,) = (folder / "db").glob(f"segments/*/filters/c/{chunk}/0")
        path.unlink()
    for snapshot in (folder / "db/snapshots").iterdir():
        snapshot.unlink()  # as if it had stopped before the commit, in the middle of two tasks
    kept = {name: db.files.read(name) for name in db.files.list("summaries")}
    assert len(kept) == 2
    shutil.rmtree(folder / "db/summaries")
    np.testing.assert_array_equal(ingest(folder).database.dataset.filters.values, filters)
    # Moments and sketches of rows in hand, of chunks read back, and of a pass of their own: the same bytes.
    assert {name: db.files.read(name) for name in db.files.list("summaries")} == kept
    shutil.rmtree(folder / "db/summaries")
    fdb.lineage(fdb.open(folder / "db"))
    assert {name: db.files.read(name) for name in db.files.list("summaries")} == kept


def test_a_model_that_changes_between_scan_and_write(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = segment_writer.commit_segment

    def swapped(*args: Any, **kwargs: Any) -> object:
        chain(folder / "m/b.onnx", weights(4, 4, seed=77))
        return real(*args, **kwargs)

    monkeypatch.setattr(scanning, "MAX_BYTES", 0)
    monkeypatch.setattr(run, "commit_segment", swapped)
    with pytest.raises(InputError, match="model 'B' layer 'conv0': the weights differ from the scan"):
        ingest(folder)
    assert not (folder / "db/snapshots").exists()


def rival(folder: Path, monkeypatch: pytest.MonkeyPatch, catalog: str) -> None:
    """Another ingest commits after this one has looked and before it commits."""
    real = segment_writer.commit_segment

    def meanwhile(*args: Any, **kwargs: Any) -> object:
        monkeypatch.setattr(run, "commit_segment", real)
        (folder / "m/rival.csv").write_text(catalog)
        fdb.ingest(folder / "db", catalog=folder / "m/rival.csv", chunk_rows=10)
        return real(*args, **kwargs)

    monkeypatch.setattr(run, "commit_segment", meanwhile)


def test_a_rival_with_other_models_commits_below(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rival(folder, monkeypatch, "path,name\na.onnx,other\n")
    db = ingest(folder).database
    assert db.snapshot == 1
    assert list(db.models["model"].values) == ["other", "A", "B"]


def test_a_rival_with_the_same_model_is_a_conflict(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rival(folder, monkeypatch, "path,name\na.onnx,A\n")
    with pytest.raises(ConflictError, match="another ingest committed 'A' meanwhile"):
        ingest(folder)
    assert fdb.open(folder / "db").counts["models"] == 1


def test_a_rival_with_the_same_inputs_has_done_the_work(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rival(folder, monkeypatch, (folder / "m/list.csv").read_text())
    db = ingest(folder).database
    assert db.snapshot == 0
    assert db.counts["models"] == 2


def test_no_task_carries_filters(folder: Path) -> None:
    """Workers parse models, the client never holds the filters: what is sent and what comes back is small."""
    import pickle

    from filterdb.models.catalog import ModelSource
    from filterdb.models.sandbox import Limits
    from filterdb.models.scan import scan

    chain(folder / "big.onnx", weights(128, 128))
    result = scan(ModelSource("big", str(folder / "big.onnx")), None, Limits())
    assert len(pickle.dumps(result)) < 5_000 < 128 * 128 * 36


@pytest.mark.parametrize("where", ["models", "database", "both"])
def test_on_s3(folder: Path, s3: Callable[[], str], where: str) -> None:
    """Models, database or both behind a real S3 server: the same tables and filters as in a folder."""
    import fsspec

    url = s3()
    local = ingest(folder).database
    source: str | Path = folder / "m/list.csv"
    if where in {"models", "both"}:
        fsspec.filesystem("s3").put(str(folder / "m"), f"{url}/m", recursive=True)
        source = f"{url}/m/list.csv"
    target = f"{url}/db" if where in {"database", "both"} else folder / "again"
    db = fdb.ingest(target, catalog=source, chunk_rows=10).database
    assert db.state.segments == local.state.segments
    np.testing.assert_array_equal(db.dataset.filters.values, local.dataset.filters.values)
    again = fdb.ingest(target, catalog=source, chunk_rows=10)
    assert again.segment is None
    assert fdb.open(target).snapshot == 0


def test_empty_models_are_models(tmp_path: Path) -> None:
    """A model without any 3×3 convolution is a row with zero filters; the database opens."""
    from onnx import helper

    from tests.models import model

    save(tmp_path / "none.onnx", model([helper.make_node("Relu", ["x"], ["y"])]))
    db = fdb.ingest(tmp_path / "db", [tmp_path / "none.onnx"]).database
    assert db.counts == {"filters": 0, "layers": 0, "models": 1}
    assert db.dataset.filters.shape == (0, 9)
    with pytest.raises(InputError, match="at least one layer with 3×3 filters"):
        fdb.drift(db, by="task")
    with pytest.raises(InputError, match="at least one"):
        fdb.pca(db)
    chain(tmp_path / "some.onnx", weights())
    grown = fdb.ingest(tmp_path / "db", [tmp_path / "some.onnx"]).database
    assert grown.counts == {"filters": 12, "layers": 1, "models": 2}
    assert int(fdb.pca(grown)["count"].sum()) == 12
