"""One damaged object does not lock out what does not need it, and nothing that needs it passes over it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest

import filterdb as fdb
from filterdb import errors
from filterdb.commands.group import commands
from filterdb.errors import DamageError, StoreError, UsageError
from filterdb.store import snapshot as snapshots
from tests.models import chain, weights


@pytest.fixture(autouse=True)
def synchronous() -> Iterator[None]:
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Snapshots 0: model a, 1: its basis, 2: model b beside it, 3: tag `both` for 2."""
    folder = tmp_path_factory.mktemp("whole")
    for seed, name in enumerate("ab"):
        chain(folder / f"{name}.onnx", weights(6, 5, seed), weights(7, 6, seed + 9))
    with dask.config.set(scheduler="synchronous"):
        for name in "ab":
            (folder / "list.csv").write_text(f"path,name,task\n{name}.onnx,{name},task {name}\n")
            fdb.ingest(folder / "db", catalog=folder / "list.csv", chunk_rows=20)
            if name == "a":
                fdb.drift(fdb.open(folder / "db"), by="layer")
    fdb.tag(fdb.open(folder / "db"), "both")
    shutil.rmtree(folder / "db/summaries")
    return folder / "db"


@pytest.fixture
def db(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "db"))


def newest_segment(db: Path) -> Path:
    return db / f"segments/{fdb.open(db).state.segments[-1].id}.zarr"


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


Run = Callable[..., tuple[dict[str, Any], str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command with --json; return its answer and what it said on stderr."""

    def call(*arguments: object) -> tuple[dict[str, Any], str]:
        commands.main([*map(str, arguments), "--json", "--threads", "1"], standalone_mode=False)
        said = capsys.readouterr()
        return json.loads(said.out), said.err

    return call


@pytest.mark.parametrize("table", ["pack", "zarr.json", "row_size/c/0"])
def test_damaged_tables_of_one_segment(table: str, db: Path, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    path = newest_segment(db).with_suffix(".safetensors") if table == "pack" else newest_segment(db) / table
    damages_answers = table == "pack"  # what other readers of Zarr look at is no matter of ours
    half(path)
    listed, said = run("snapshots", db)
    assert ([row["action"] for row in listed["rows"]], said) == (["ingest", "reduce", "ingest", "tag"], "")
    assert run("gc", db, "--delete")[0]["rows"] == []
    assert run("tag", db, "three")[0]["tags"] == {"both": 2, "three": 3}
    answer, said = run("info", db)
    assert (answer["filters"], answer["models"]) == (144, 2)
    if damages_answers:
        assert [damage["segment"] for damage in answer["damaged"]] == [path.stem]
        assert (answer["skipped_layers"], answer["skipped_by_code"]) == (None, None)
        (line,) = said.splitlines()
        assert "filterdb restore" in line and str(answer["damaged"][0]["segment"]) in line
        for command in (["drift", db, "--by", "task"], ["models", db], ["remove", db, "b"]):
            with pytest.raises(StoreError, match="filterdb restore"):
                run(*command)
        with pytest.raises(StoreError, match="filterdb restore"):
            fdb.ingest(db, [chain(db.parent / "c.onnx", weights())])
    else:
        assert (answer["skipped_layers"], answer["damaged"], said) == (0, [], "")
    assert run("drift", db, "--by", "layer", "--snapshot", 1)[0]["filters"] == 72
    removed, _ = run("remove", db, "a")
    assert (removed["filters"], removed["models"]) == (72, 1)
    assert ("restore" in caplog.text) == damages_answers
    assert fdb.open(db, "both").state.counts["models"] == 2


def test_a_damaged_chunk(db: Path, run: Run) -> None:
    half(newest_segment(db) / "filters/c/1/0")
    answer, said = run("info", db)
    assert (answer["filters"], answer["skipped_layers"], said) == (144, 0, "")
    assert len(run("snapshots", db)[0]["rows"]) == 4
    with pytest.raises(DamageError, match=r"filters chunk 1: .*filterdb restore"):
        run("pca", db)
    assert run("pca", db, "--snapshot", 1)[0]["filters"] == 72
    assert run("remove", db, "b")[0]["models"] == 1
    assert run("pca", db)[0]["filters"] == 72


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("damage", [half, Path.unlink])
def test_a_damaged_old_snapshot(number: int, damage: Callable[[Path], None], db: Path, run: Run) -> None:
    damage(db / f"snapshots/0000000{number}.json")
    answer, said = run("snapshots", db)
    rows = answer["rows"]
    assert [row["snapshot"] for row in rows] == [0, 1, 2, 3]
    assert [row["snapshot"] for row in rows if row["damage"]] == [number]
    assert rows[number]["filters"] is None
    (line,) = said.splitlines()
    assert f"0000000{number}.json" in line
    assert run("info", db)[0]["models"] == 2
    assert run("drift", db, "--by", "task")[0]["filters"] == 144
    assert run("tag", db, "x")[0]["changed"]
    assert run("remove", db, "a")[0]["models"] == 1
    before = sorted(path.name for path in (db / "segments").iterdir())
    with pytest.raises(DamageError, match=f"0000000{number}"):  # what it lists is not known
        run("gc", db, "--delete", "--grace", 0)
    assert sorted(path.name for path in (db / "segments").iterdir()) == before


@pytest.mark.parametrize("damage", [half, Path.unlink])
def test_the_newest_snapshot_damaged(damage: Callable[[Path], None], db: Path, run: Run) -> None:
    """Its tag is lost with it; nothing else is, and restoring overwrites nothing."""
    damage(db / "snapshots/00000003.json")
    for command in (["info", db], ["tag", db, "x"], ["drift", db, "--by", "task"]):
        with pytest.raises(DamageError, match=r"00000003\.json.*filterdb restore"):
            run(*command)
    answer, said = run("snapshots", db)
    assert [bool(row["damage"]) for row in answer["rows"]] == [False, False, False, True]
    assert "00000003.json" in said
    assert run("drift", db, "--by", "task", "--snapshot", 2)[0]["filters"] == 144
    assert run("drift", db, "--by", "layer", "--snapshot", 0)[0]["filters"] == 72
    names = {path.name: path.read_bytes() for path in (db / "snapshots").glob("*.json")}
    restored, _ = run("restore", db, "--snapshot", 2)
    assert (restored["snapshot"], restored["action"], restored["changed"], restored["models"]) == (
        4,
        "restore",
        True,
        2,
    )
    assert {name: (db / "snapshots" / name).read_bytes() for name in names} == names
    assert run("info", db)[0]["models"] == 2
    assert run("drift", db, "--by", "task")[0]["filters"] == 144
    assert [problem.variable for problem in fdb.verify(fdb.open(db)).problems] == ["snapshots/00000003.json"]


def test_no_commit_takes_the_place_of_a_lost_snapshot(db: Path) -> None:
    """A writer that began before the lost snapshot, and was suspended until after the restore: it must not win."""
    files = fdb.open(db).files
    before = snapshots.read(files, 2)
    (db / "snapshots/00000003.json").unlink()
    fdb.restore(db, 1)
    with pytest.raises(DamageError, match=r"00000003\.json: the committed snapshot \d+ is missing"):
        snapshots.commit(files, before, lambda head: head.next("tag", tags={"x": 0}))  # type: ignore[union-attr]
    assert fdb.open(db).snapshot == 4
    assert not (db / "snapshots/00000003.json").exists()


def test_restore(db: Path, run: Run) -> None:
    """Damaged tables in the newest snapshot: back to one without them, tags and history kept, and on from there."""
    half(newest_segment(db).with_suffix(".safetensors"))
    said = run("restore", db, "--snapshot", 2)[1]
    assert ".safetensors" in said and len(said.splitlines()) == 1  # that one has the damaged table too
    restored, said = run("restore", db, "--snapshot", 1)
    assert said == ""
    assert (restored["snapshot"], restored["filters"], restored["models"], restored["tags"]) == (4, 72, 1, {"both": 2})
    assert run("drift", db, "--by", "layer")[0]["filters"] == 72
    expected = np.concatenate([weight.reshape(-1, 9) for weight in (weights(6, 5, 0), weights(7, 6, 9))])
    np.testing.assert_array_equal(fdb.open(db).dataset.filters.values, expected)
    again, _ = run("restore", db, "--snapshot", 1)
    assert (again["snapshot"], again["changed"]) == (4, False)
    chain(db.parent / "c.onnx", weights(3, 3))
    assert fdb.ingest(db, [db.parent / "c.onnx"]).database.counts["models"] == 2
    assert [state.action for state in snapshots.history(fdb.open(db).files)][-2:] == ["restore", "ingest"]


def test_restore_from_python(db: Path) -> None:
    """Labels, removed models and the basis go back as well; a path, a Database, a number or a tag."""
    (db.parent / "rows.csv").write_text("name,task\na,other\n")
    fdb.relabel(fdb.open(db), db.parent / "rows.csv")
    fdb.remove(fdb.open(db), ["b"])
    fdb.refit(fdb.open(db))
    newest = fdb.open(db)
    assert list(newest.models["task"].values) == ["other"]
    restored = fdb.restore(db, "both")
    assert list(restored.models["task"].values) == ["task a", "task b"]
    assert restored.state.basis == fdb.open(db, 2).state.basis != newest.state.basis
    assert fdb.restore(fdb.open(db), newest.snapshot).state.has_content_of(newest.state)
    for number in (99, "none"):
        with pytest.raises(UsageError):
            fdb.restore(db, number)
    with pytest.raises(errors.FilterDBError, match="expected a snapshot"):
        fdb.restore(db.parent / "nowhere", 1)
