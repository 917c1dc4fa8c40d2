"""Pages of a snapshot's segments, and the joined tables of a page: any number of segments, damage, old formats."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import filterdb as fdb
from filterdb.errors import ConflictError, DamageError, FilterDBError, StoreError
from filterdb.ingestion import compact
from filterdb.store import pages
from filterdb.store import snapshot as snapshots
from filterdb.store.files import Files
from filterdb.store.pages import Entry, located, paginate
from tests.models import chain, weights

pytestmark = pytest.mark.slow


def entries(number: int) -> tuple[Entry, ...]:
    return tuple(Entry(f"{i:020}", i, 1, 1, 0, 20, {"pack": "0" * 64}) for i in range(number))


@pytest.mark.parametrize("number", [0, 1, 31, 32, 33, 63, 64, 1023, 1024, 1025, 1056, 2_000, 33_000])
def test_any_number_of_segments(number: int) -> None:
    """All segments once and in order, and a snapshot of about the same size whatever their number."""
    segments = entries(number)
    top, rest = paginate(segments)
    assert (*(entry for page in top for entry in page.segments), *rest) == segments
    assert [page.level for page in top] == sorted((page.level for page in top), reverse=True)
    assert len(rest) < pages.FAN and len(top) < 3 * pages.FAN
    state = snapshots.new("ingest", segments=segments)
    assert len(state.to_json()) < 20_000
    firsts = {page.id: first for page, first in located(top)}
    assert all(segments[firsts[page.id]] is page.segments[0] for page, _ in located(top))


def test_a_history_writes_each_page_once(tmp_path: Path) -> None:
    """A hundred commits, each with one segment more, and what every one of them lists afterwards."""
    files = Files(str(tmp_path))
    segments, head = entries(100), None
    for number in range(1, 101):
        following = snapshots.new("ingest", number - 1, segments=segments[:number])
        head = snapshots.commit(files, head, lambda _, following=following: following)  # type: ignore[misc]
    assert len(files.list("pages")) == 3
    pages.forget()
    for state in snapshots.history(files):
        assert state.segments == segments[: state.number + 1]
    sizes = [files.list("snapshots")[snapshots.name_of(number)] or 0 for number in (31, 63, 95, 99)]
    assert max(sizes) < 2 * min(sizes) + 4 * 300


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty-five segments of one model each."""
    folder = tmp_path_factory.mktemp("grown")
    for number in range(35):
        path = chain(folder / f"m{number}.onnx", weights(3, 3, seed=number))
        (folder / "list.csv").write_text(f"path,name,task\n{path},m{number},{'ab'[number % 2]}\n")
        fdb.ingest(folder / "db", catalog=folder / "list.csv", compact=False)
    return folder / "db"


@pytest.fixture
def copy(grown: Path, tmp_path: Path) -> Path:
    pages.forget()
    return Path(shutil.copytree(grown, tmp_path / "db"))


def test_joined_tables_are_those_of_the_segments(copy: Path) -> None:
    db = fdb.open(copy)
    assert len(db.segments) == 35 and len(db.state.pages) == 1
    with_join = db.layers.load()
    assert [path.name for path in (copy / "tables").iterdir()] == [f"{db.state.pages[0].id}.safetensors"]
    assert with_join["layer"].values.tolist() == [f"m{number}/conv0" for number in range(35)]
    assert with_join["model_index"].values.tolist() == list(range(35))
    shutil.rmtree(copy / "tables")
    assert fdb.open(copy).layers.identical(with_join)
    assert len(list((copy / "tables").iterdir())) == 1
    expected = np.concatenate([weights(3, 3, seed=number).reshape(-1, 9) for number in range(35)])
    np.testing.assert_array_equal(fdb.open(copy).dataset.filters.values, expected)


def test_damaged_joined_tables_are_made_again(copy: Path) -> None:
    expected = fdb.open(copy).layers.load()
    (path,) = (copy / "tables").iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert [problem.variable for problem in fdb.verify(copy).problems] == [f"tables/{path.name}"]
    assert fdb.open(copy).layers.identical(expected)
    assert path.read_bytes() == whole
    assert fdb.verify(copy, deep=True).problems == []


def test_a_damaged_page(copy: Path) -> None:
    (path,) = (copy / "pages").iterdir()
    whole = path.read_text()
    path.write_text(whole.replace('"filters":9', '"filters":8', 1))
    with pytest.raises(DamageError, match=rf"{path.name}: expected content with SHA-256"):
        fdb.open(copy)
    path.unlink()
    with pytest.raises(DamageError, match=rf"{path.name}: the object is missing"):
        fdb.open(copy)
    path.write_text(whole)
    opened = fdb.open(copy)
    path.unlink()
    assert {problem.variable for problem in fdb.verify(opened).problems} >= {"snapshots/00000034.json"}


def test_remove_and_compact_rewrite_the_pages(copy: Path) -> None:
    """The first segment goes: every page is another, and the history still reads."""
    db = fdb.remove(copy, "m0")
    assert db.counts["models"] == 34 and len(db.state.pages) == 1
    joined = fdb.compact(db)
    assert len(joined.segments) == 1 and not joined.state.pages
    assert joined.layers["model"].values.tolist() == [f"m{number}" for number in range(1, 35)]
    assert [len(state.segments) for state in snapshots.history(joined.files)][-3:] == [35, 34, 1]


def test_the_index_of_the_history_is_json(copy: Path) -> None:
    (path,) = (copy / "pages").iterdir()
    assert [entry["filters"] for entry in json.loads(path.read_text())["segments"]] == [9] * 32


def test_an_ingest_compacts(tmp_path: Path) -> None:
    """Forty models one by one: few segments, the same filters, and every earlier snapshot still opens."""
    for number in range(40):
        path = chain(tmp_path / f"m{number:02}.onnx", weights(3, 3, seed=number))
        done = fdb.ingest(tmp_path / "db", [path])
        assert done.added == [str(path)]
        assert len(done.database.segments) < compact.COMPACT_FROM + 2
    actions = [state.action for state in snapshots.history(done.database.files)]
    assert actions.count("compact") == 2 and actions.count("ingest") == 40
    expected = np.concatenate([weights(3, 3, seed=number).reshape(-1, 9) for number in range(40)])
    np.testing.assert_array_equal(done.database.dataset.filters.values, expected)
    assert fdb.verify(done.database, deep=True).problems == []
    assert fdb.open(tmp_path / "db", 14).counts["models"] == 15


@pytest.mark.parametrize("error", [ConflictError, StoreError])
def test_a_compaction_that_fails_fails_no_ingest(
    error: type[FilterDBError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The model is committed. Another writer's commit is no matter; any other failure is a warning.

    An ingest that finds the models there joins the segments.
    """
    join_segments = compact.join_segments

    def fails(*_: object) -> None:
        raise error("the disk is full")

    monkeypatch.setattr(compact, "COMPACT_FROM", 2)
    monkeypatch.setattr(compact, "join_segments", fails)
    for number in range(2):
        path = chain(tmp_path / f"m{number}.onnx", weights(3, 3, seed=number))
        done = fdb.ingest(tmp_path / "db", [path])
    assert (done.added, len(done.database.segments)) == ([str(path)], 2)
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [w for w in warned if "not compacted: the disk is full" in w] == warned[: 0 if error is ConflictError else 1]
    assert bool(warned) == (error is StoreError)
    monkeypatch.setattr(compact, "join_segments", join_segments)
    again = fdb.ingest(tmp_path / "db", [path])
    assert (again.added, again.present, len(again.database.segments)) == ([], [str(path)], 1)


def runs(*models: int) -> list[str]:
    """The models of the segments that an ingest joins."""
    segments = tuple(Entry(str(i), number * 9, number, number, 0, 20, {}) for i, number in enumerate(models))
    ids = compact._last_run(snapshots.new("ingest", segments=segments), 10_000)
    return [str(segments[int(id_)].models) for id_ in ids]


def test_what_is_compacted() -> None:
    assert runs() == runs(*[1] * 15) == []
    assert runs(*[1] * 16) == ["1"] * 16
    assert runs(16, *[1] * 15) == runs(31, *[1] * 15) == []  # else all would be copied again every 15 ingests
    assert runs(*[16] * 15, *[1] * 3) == ["16"] * 15 + ["1"] * 3
    assert runs(*[16, 1] * 8) == ["16", "1"] * 8  # batches of different sizes in turn
    assert runs(*[1] * 20, 2_000) == []  # a large one, of 18,000 filters, ends the run
