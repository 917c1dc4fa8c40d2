"""New snapshots that rewrite nothing: remove, relabel, tag, compact; older ones stay what they were. Folder and S3."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import filterdb as fdb
from filterdb.errors import ConflictError, InputError, StoreMissingError, UsageError
from filterdb.store import snapshot as snapshots
from tests.models import chain, weights
from tests.several import run_several

pytestmark = pytest.mark.slow


def add(folder: Path, url: str, name: str, row: str = "") -> fdb.Database:
    """One model of two layers (30 and 42 filters) as a segment of its own."""
    seed = ord(name)
    chain(folder / f"{name}.onnx", weights(6, 5, seed=seed), weights(7, 6, seed=seed + 50))
    (folder / "list.csv").write_text(f"path,name,task,epoch\n{name}.onnx,{name},{row or f'task {name}'},1\n")
    return fdb.ingest(url, catalog=folder / "list.csv", chunk_rows=10).database


def filters(names: str) -> np.ndarray:
    parts = [w for n in names for w in (weights(6, 5, seed=ord(n)), weights(7, 6, seed=ord(n) + 50))]
    return np.concatenate([part.reshape(-1, 9) for part in parts])


@pytest.fixture
def db(tmp_path: Path) -> fdb.Database:
    for name in "abcd":
        found = add(tmp_path, str(tmp_path / "db"), name)
    return found


def names(db: fdb.Database) -> str:
    return "".join(db.models["model"].values)


@pytest.mark.parametrize("where", ["folder", "s3"])
def test_a_life(where: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = str(tmp_path / "db") if where == "folder" else f"{request.getfixturevalue('s3')()}/db"
    for name in "abcd":
        add(tmp_path, url, name)
    db = fdb.tag(fdb.open(url), "all")
    removed = fdb.remove(db, ["b"])
    assert (names(removed), removed.counts) == ("acd", {"filters": 216, "layers": 6, "models": 3})
    np.testing.assert_array_equal(removed.dataset.filters.values, filters("acd"))
    assert list(removed.layers["model_index"].values) == [0, 0, 1, 1, 2, 2]
    before = fdb.drift(removed, by="model")
    compacted = fdb.compact(removed, chunk_rows=100)
    assert [(entry.models, entry.chunk_rows) for entry in compacted.state.segments] == [(3, 100)]
    np.testing.assert_array_equal(compacted.dataset.filters.values, filters("acd"))
    after = fdb.drift(compacted, by="model")
    np.testing.assert_allclose(after["drift"], before["drift"], rtol=1e-12)
    (tmp_path / "labels.csv").write_text("name,task\nc,new\n")
    labelled = fdb.relabel(compacted, tmp_path / "labels.csv")
    assert list(labelled.models["task"].values) == ["task a", "new", "task d"]
    assert list(labelled.models["epoch"].values) == ["1", "unknown", "1"]  # the row is replaced, not mended
    assert "new" in fdb.pca(labelled, by="task")["group"].values
    again = add(tmp_path, url, "b")
    assert names(again) == "acdb"
    assert fdb.verify(again, deep=True).problems == []
    assert fdb.gc(url, delete=True, grace=-1) == []
    old = fdb.open(url, "all")
    assert (names(old), old.snapshot) == ("abcd", 3)
    np.testing.assert_array_equal(old.dataset.filters.values, filters("abcd"))
    actions = [state.action for state in snapshots.history(db.files)]
    assert actions == ["ingest"] * 4 + ["tag", "remove", "reduce", "compact", "relabel", "ingest"]


def test_answers_without_a_model_are_those_of_a_database_without_it(db: fdb.Database, tmp_path: Path) -> None:
    """A model removed from the middle of a segment: every analysis as if it had never been there."""
    for name in "abc":
        chain(tmp_path / f"two/{name}.onnx", weights(6, 5, seed=ord(name)), weights(7, 6, seed=ord(name) + 50))
    one = fdb.remove(
        fdb.ingest(tmp_path / "one", [tmp_path / "two"], chunk_rows=10).database, [f"{tmp_path}/two/b.onnx"]
    )
    (tmp_path / "two/b.onnx").unlink()
    other = fdb.ingest(tmp_path / "other", [tmp_path / "two"], chunk_rows=10).database
    for mode in ("sound", "paper"):
        for found, expected in (
            (fdb.drift(one, "model", mode=mode), fdb.drift(other, "model", mode=mode)),
            (fdb.degeneration(one, mode=mode), fdb.degeneration(other, mode=mode)),
        ):
            for variable in expected.data_vars:
                if expected[variable].dtype.kind == "f":
                    np.testing.assert_allclose(found[variable], expected[variable], rtol=1e-9, atol=1e-12)
    xr.testing.assert_allclose(fdb.pca(one)["covariance"], fdb.pca(other)["covariance"], rtol=1e-9)
    np.testing.assert_array_equal(
        one.select(conv_depth=1).dataset.filters.values, other.select(conv_depth=1).dataset.filters.values
    )
    assert one.layers["model_index"].max() == 1


def test_all_of_a_segment_removed(db: fdb.Database, tmp_path: Path) -> None:
    left = fdb.remove(db, ["a", "d"])
    assert [entry.models for entry in left.state.segments] == [1, 1] and left.state.without == ()
    nothing = fdb.remove(left, ["b", "c"])
    assert nothing.counts == {"filters": 0, "layers": 0, "models": 0}
    with pytest.raises(InputError, match="at least one"):
        fdb.pca(nothing)
    back = add(tmp_path, db.url, "a")
    assert names(back) == "a"


def test_the_same_inputs_bring_a_removed_model_back(db: fdb.Database, tmp_path: Path) -> None:
    chunks = {path: path.stat().st_mtime_ns for path in Path(db.url).rglob("filters/c/*/0")}
    fdb.remove(db, ["b"])
    back = add(tmp_path, db.url, "b")
    assert sorted(names(back)) == list("abcd")
    assert {path: path.stat().st_mtime_ns for path in Path(db.url).rglob("filters/c/*/0")} == chunks


def test_labels_of_a_removed_model_do_not_cling(db: fdb.Database, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("name,task\nb,new\n")
    fdb.remove(fdb.relabel(db, tmp_path / "labels.csv"), ["b"])
    back = add(tmp_path, db.url, "b")
    assert list(back.select(model="b").models["task"].values) == ["task b"]


def test_relabel_is_what_ingest_asks_for(db: fdb.Database, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`filterdb relabel`"):
        add(tmp_path, db.url, "a", "other")
    fdb.relabel(db, tmp_path / "list.csv")
    assert names(add(tmp_path, db.url, "a", "other")) == "abcd"
    assert fdb.relabel(fdb.open(db.url), tmp_path / "list.csv").snapshot == fdb.open(db.url).snapshot  # nothing new


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda db, _: fdb.remove(db, ["x"]), UsageError, "expected models of snapshot 3, got 'x'"),
        (lambda db, _: fdb.remove(db, []), UsageError, "expected at least one model"),
        (lambda db, _: fdb.tag(db, "7"), UsageError, "a name that is no number"),
        (lambda db, _: fdb.tag(db, " "), UsageError, "a name that is no number"),
        (lambda db, folder: fdb.relabel(db, folder / "x.csv"), InputError, "got one of 'x'"),
        (lambda db, folder: fdb.relabel(db, folder / "y.csv"), InputError, "expected a column `path` or `name`"),
        (lambda db, _: fdb.open(db.url, "none"), UsageError, "a snapshot's number or a tag, got 'none'"),
        (lambda db, _: fdb.gc(db.url + "x"), StoreMissingError, "nothing is removed"),
    ],
)
def test_what_cannot_be(db: fdb.Database, tmp_path: Path, change: object, error: type[Exception], message: str) -> None:
    (tmp_path / "x.csv").write_text("name,task\nx,y\n")
    (tmp_path / "y.csv").write_text("task\ny\n")
    with pytest.raises(error, match=message):
        change(db, tmp_path)  # type: ignore[operator]
    assert fdb.open(db.url).state == db.state


def test_tags_never_move(db: fdb.Database) -> None:
    tagged = fdb.tag(fdb.open(db.url, 1), "early")
    assert tagged.state.tags == {"early": 1}
    assert names(fdb.open(db.url, "early")) == "ab"
    assert fdb.tag(fdb.open(db.url, 1), "early").snapshot == tagged.snapshot
    with pytest.raises(ConflictError, match="'early' is snapshot 1"):
        fdb.tag(db, "early")


def test_others_change_what_is_being_compacted(db: fdb.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    from filterdb.ingestion import compact, segment_writer

    real = segment_writer.commit_segment

    def meanwhile(*args: Any, **kwargs: Any) -> object:
        monkeypatch.setattr(compact, "commit_segment", real)
        fdb.remove(fdb.open(db.url), ["b"])
        return real(*args, **kwargs)

    monkeypatch.setattr(compact, "commit_segment", meanwhile)
    with pytest.raises(ConflictError, match="another writer changed these segments"):
        fdb.compact(db)
    assert names(fdb.open(db.url)) == "acd"


@pytest.mark.parametrize("chunk_rows", [1_000, 100], ids=["one chunk", "layers across chunks"])
def test_compacting_notices_damage_that_checksums_do_not(db: fdb.Database, chunk_rows: int) -> None:
    """Whole chunks of two segments exchanged: a layer's hash tells, also of layers that no task has whole."""
    one, other = (Path(db.url) / segment.chunk_name(0) for segment in db.segments[:2])
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    with pytest.raises(fdb.errors.DamageError, match="rows 0 to 29 do not have SHA-256"):
        fdb.compact(db, chunk_rows=chunk_rows)
    assert fdb.open(db.url).state == db.state


def test_on_the_command_line(db: fdb.Database, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("name,task\nc,new\n")
    checks: list[tuple[list[str], Callable[[dict[str, Any]], bool]]] = [
        (["tag", db.url, "first"], lambda answer: answer["tags"] == {"first": 3}),
        (["remove", db.url, "b"], lambda answer: answer["models"] == 3),
        (["relabel", db.url, "--catalog", f"{tmp_path}/labels.csv"], lambda answer: answer["changed"] is True),
        (["compact", db.url], lambda answer: len(answer["segments"]) == 1),
        (["gc", db.url], lambda answer: answer["rows"] == []),
        (["info", db.url, "--snapshot", "first"], lambda answer: answer["models"] == 4),
        (["snapshots", db.url], lambda answer: answer["rows"][3]["tags"] == ["first"]),
        (["verify", db.url, "--deep"], lambda answer: answer["ok"] is True),
    ]
    refused = [
        [command, db.url, *models, "--snapshot", "1"] for command, models in (("remove", ["a"]), ("compact", []))
    ]
    done = run_several(*([*command, "--json", "--threads", "1"] for command, _ in checks), *refused)
    for (_, holds), result in zip(checks, done, strict=False):
        assert result.returncode == 0, result.stderr
        assert holds(json.loads(result.stdout)), (result.args, result.stdout)
    for result in done[len(checks) :]:
        assert (result.returncode, len(result.stderr.splitlines())) == (2, 1), result.stderr
        assert "a change always follows the newest snapshot" in result.stderr
