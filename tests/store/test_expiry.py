"""A history that ends: expired snapshots, the room that comes back, readers of what is gone, purged models."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

import filterdb as fdb
from filterdb.errors import DamageError, ExpiredSnapshotError, UsageError
from filterdb.store import history
from filterdb.store import snapshot as snapshots
from filterdb.store.files import Files
from tests.faults.crash import CrashError, mutations
from tests.models import chain, weights


def add(folder: Path, url: str, *names: str, compact: bool = False) -> fdb.Database:
    """One segment with a model of 30 filters for each name."""
    (folder / "list.csv").write_text("path,name,task\n" + "".join(f"{name}.onnx,{name},t\n" for name in names))
    for name in names:
        chain(folder / f"{name}.onnx", weights(6, 5, seed=ord(name[0])))
    return fdb.ingest(url, catalog=folder / "list.csv", chunk_rows=20, compact=compact).database


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "db")
    s3: Callable[[], str] = request.getfixturevalue("s3")
    return f"{s3()}/db"


def numbers(url: str) -> list[int]:
    return [state.number for state in snapshots.history(Files.at(url))]


def objects(url: str) -> set[str]:
    return {name for name in Files.at(url).list("") if not name.endswith(".committed")}


def test_room_comes_back(url: str, tmp_path: Path) -> None:
    """Four models, two removed: what only earlier snapshots list is gone after expire and gc, and nothing else."""
    for name in "abcd":
        add(tmp_path, url, name)
    left = fdb.remove(url, ["a", "b"])
    expected = left.dataset.filters.values
    pca = fdb.pca(left)["covariance"].values
    segments = {entry.id for entry in left.state.segments}
    assert fdb.gc(url, delete=True, grace=-1) == []  # the history still needs them
    db = fdb.expire(url, keep=1)
    assert (db.state.action, db.state.expired) == ("expire", ((0, 3),))
    assert numbers(url) == [4, 5]
    removed = fdb.gc(url, delete=True, grace=-1)
    assert sum(garbage.kind == "segment" for garbage in removed) == 2 and sum(garbage.bytes for garbage in removed) > 0
    assert {name.split("/")[1].split(".")[0] for name in objects(url) if name.startswith("segments/")} == segments
    assert not {snapshots.name_of(number) for number in range(4)} & objects(url)
    assert fdb.gc(url, delete=True, grace=-1) == []
    again = fdb.open(url)
    np.testing.assert_array_equal(again.dataset.filters.values, expected)
    np.testing.assert_array_equal(fdb.pca(again)["covariance"].values, pca)
    assert fdb.verify(again, deep=True).problems == []
    assert add(tmp_path, url, "a").counts["models"] == 3  # under another id, since the old one was collected
    assert fdb.verify(url, deep=True).problems == []


def test_a_reader_of_an_expired_snapshot(url: str, tmp_path: Path) -> None:
    """Before gc it goes on; afterwards its next read says what has happened. Opening it anew is refused at once."""
    for name in "ab":
        add(tmp_path, url, name)
    first = fdb.remove(url, ["a"])
    reader, late = fdb.open(url, 1), fdb.open(url, 1)
    assert reader.tables
    fdb.expire(url, keep=1)
    with pytest.raises(ExpiredSnapshotError, match=r"expected a snapshot of the history, this one has expired"):
        fdb.open(url, 1)
    assert reader.dataset.filters.values.shape == (60, 9)
    assert fdb.gc(url, delete=True, grace=3600) == []  # readers have an hour
    assert reader.dataset.filters.values.shape == (60, 9)
    fdb.gc(url, delete=True, grace=-1)
    with pytest.raises(ExpiredSnapshotError, match=r"its snapshots have expired and `filterdb gc` has removed it"):
        reader.dataset.filters.values  # noqa: B018
    with pytest.raises(ExpiredSnapshotError, match="open the database anew"):
        late.layers  # noqa: B018
    assert first.dataset.filters.values.shape == (30, 9)


def test_what_is_kept(tmp_path: Path) -> None:
    """Tagged snapshots stay unless their tags go too; ages are by the store's clock; the newest always stays."""
    url = str(tmp_path / "db")
    for name in "abcd":
        add(tmp_path, url, name)
    fdb.tag(fdb.open(url, 1), "paper")
    now = time.time()
    for number in range(5):
        os.utime(tmp_path / "db" / snapshots.name_of(number), (now - 86400 * (10 - number),) * 2)
    assert fdb.expire(url, older_than="30d").snapshot == 4  # nothing is that old
    assert fdb.expire(url, older_than=timedelta(days=7.5)).state.expired == ((0, 0), (2, 2))
    assert numbers(url) == [1, 3, 4, 5]
    assert fdb.open(url, "paper").counts["models"] == 2
    with pytest.raises(ExpiredSnapshotError):
        fdb.restore(url, 2)
    everything = fdb.expire(url, keep=1, tags=True)
    assert (everything.state.expired, dict(everything.state.tags)) == (((0, 4),), {})
    assert numbers(url) == [5, 6]
    with pytest.raises(UsageError, match="there are tags: none"):
        fdb.open(url, "paper")


def test_a_tag_or_restore_that_comes_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = str(tmp_path / "db")
    for name in "abc":
        add(tmp_path, url, name)
    early = fdb.open(url, 0)
    fdb.expire(url, keep=1)
    with pytest.raises(ExpiredSnapshotError):
        fdb.tag(early, "late")

    def opened_before(root: str, snapshot: int | str) -> fdb.Database:
        """Open the snapshot to restore, and let another expire it before the commit."""
        db = fdb.open(root, snapshot)
        fdb.expire(url, keep=1)
        return db

    monkeypatch.setattr(history, "open_database", opened_before)
    kept = add(tmp_path, url, "d").snapshot - 1
    with pytest.raises(ExpiredSnapshotError):
        fdb.restore(url, kept)
    assert fdb.open(url).state.action == "expire"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "or `keep` .a number of snapshots., got neither"),
        ({"keep": 1, "older_than": "1d"}, "or `keep` .*, got both"),
        ({"keep": 0}, "at least 1 snapshot"),
        ({"keep": True}, "at least 1 snapshot"),
        ({"older_than": "soon"}, "an age such as 30d"),
        ({"older_than": "-3d"}, "an age such as 30d"),
    ],
)
def test_odd_options(options: dict[str, object], message: str, tmp_path: Path) -> None:
    add(tmp_path, str(tmp_path / "db"), "a")
    with pytest.raises(UsageError, match=message):
        fdb.expire(tmp_path / "db", **options)  # type: ignore[arg-type]


def test_a_lost_snapshot_can_expire(tmp_path: Path) -> None:
    """An early snapshot that is lost keeps gc from working until it is dropped."""
    url = str(tmp_path / "db")
    for name in "abc":
        add(tmp_path, url, name)
    (tmp_path / "db" / snapshots.name_of(0)).unlink()
    with pytest.raises(DamageError, match="snapshot 0 is missing"):
        fdb.gc(url)
    fdb.expire(url, keep=1)
    assert fdb.gc(url, delete=True, grace=-1)
    assert fdb.verify(url).problems == []
    assert fdb.open(url).counts["models"] == 3


def test_many_collected_segments_are_listed_apart(tmp_path: Path) -> None:
    """Their ids are in an object of their own, which later snapshots name."""
    url = str(tmp_path / "db")
    add(tmp_path, url, "a")
    files, head = Files.at(url), snapshots.latest(Files.at(url))
    ids = tuple(f"{number:020}" for number in range(1_000))
    state = snapshots.commit(files, head, lambda base: snapshots.existing(files, base).next("gc", collected=ids))
    assert len(state.to_json()) < 2_000
    assert fdb.open(url).state.collected == ids
    assert add(tmp_path, url, "b").state.collected == ids
    assert len(files.list("collected")) == 1


def test_purge(url: str, tmp_path: Path) -> None:
    """A model shares a segment with another, is tagged, was compacted: no object holds its filters afterwards."""
    add(tmp_path, url, "a", "b")
    fdb.tag(fdb.open(url), "both")
    add(tmp_path, url, "c")
    fdb.compact(url)
    fdb.drift(url, by="model")
    reader = fdb.open(url)
    layer = weights(6, 5, seed=ord("a")).reshape(-1, 9)
    done = fdb.purge(url, "a")
    assert (done.shared_with, done.snapshots) == ([], [0, 1, 2, 3, 4, 5])
    assert list(done.database.models["model"].values) == ["b", "c"]
    assert done.database.state.tags == {}
    needles = [layer[:20, position].tobytes() for position in range(9)]  # columns, as a chunk holds them
    files = Files.at(url)
    for name in files.list(""):
        data = files.read(name)
        assert not any(needle[:40] in data for needle in needles), name
        assert b'"a"' not in data or name.startswith("snapshots/"), name
    assert fdb.verify(url, deep=True).problems == []
    with pytest.raises(ExpiredSnapshotError):
        reader.dataset.filters.values  # noqa: B018
    np.testing.assert_array_equal(
        fdb.open(url).dataset.filters.values, np.concatenate([weights(6, 5, seed=ord(n)).reshape(-1, 9) for n in "bc"])
    )
    with pytest.raises(UsageError, match="no stored model is named 'a'; nothing was purged"):
        fdb.purge(url, "a")


def test_a_purge_that_was_stopped_goes_on(tmp_path: Path) -> None:
    """Wherever it was: while it writes, marks segments as collected, or removes them."""
    add(tmp_path, str(tmp_path / "base"), "a", "b")
    add(tmp_path, str(tmp_path / "base"), "c")
    shutil.copytree(tmp_path / "base", tmp_path / "counted")
    with mutations() as counted:
        fdb.purge(tmp_path / "counted", "a")
    chunks = [i for i, what in enumerate(counted.log) if what.startswith("remove segments/") and "/filters/c/" in what]
    assert len(chunks) == 3
    needle = weights(6, 5, seed=ord("a")).reshape(-1, 9)[:10, 0].tobytes()
    for at in (chunks[0] - 20, chunks[0], chunks[1], chunks[-1] + 1, len(counted.log) - 3):
        url = shutil.copytree(tmp_path / "base", tmp_path / str(at))
        with pytest.raises(CrashError), mutations(at):
            fdb.purge(url, "a")
        assert list(fdb.purge(url, "a").database.models["model"].values) == ["b", "c"]
        assert not [path for path in url.rglob("*") if path.is_file() and needle in path.read_bytes()], at


def test_purge_looks_into_what_no_snapshot_lists(tmp_path: Path) -> None:
    """A compaction died while it wrote. Whose filters it left is not known without its tables."""
    url = str(tmp_path / "db")
    for name in "ab":
        add(tmp_path, url, name)
    shutil.copytree(url, tmp_path / "counted")
    with mutations() as counted:
        fdb.compact(tmp_path / "counted")
    first_summary = [what.startswith("create summaries/") for what in counted.log].index(True)
    with pytest.raises(CrashError), mutations(first_summary):
        fdb.compact(url)
    listed = {entry.id for entry in fdb.open(url).state.segments}
    (left,) = {path for path in (tmp_path / "db" / "segments").glob("*.safetensors") if path.stem not in listed}
    tables = left.read_bytes()
    for damaged, state in ((tables[:-1] + b"?", "damaged"), (None, "missing")):
        left.unlink() if damaged is None else left.write_bytes(damaged)
        with pytest.raises(DamageError, match=rf"which no snapshot lists, has {state} tables; .*Run `filterdb gc"):
            fdb.purge(url, "a")
        assert fdb.open(url).counts["models"] == 2
    left.write_bytes(tables)
    fdb.purge(url, "a")
    assert not left.exists() and not left.with_suffix(".zarr").exists()


def test_a_purged_model_whose_filters_another_has(tmp_path: Path) -> None:
    url = str(tmp_path / "db")
    add(tmp_path, url, "a")
    add(tmp_path, url, "a copy")
    assert fdb.purge(url, "a").shared_with == ["a copy"]
    assert fdb.purge(url, ["a copy"]).shared_with == []
    assert fdb.open(url).counts == {"filters": 0, "layers": 0, "models": 0}
