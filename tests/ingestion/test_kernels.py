"""Ingests of every kernel shape: what is stored, in chunks that cut layers, and what is added to older segments."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr

import filterdb as fdb
from filterdb import schema
from filterdb.errors import ConflictError, StoreError, UsageError
from filterdb.ingestion import more_kernels, segment_writer
from filterdb.store.database import Database
from filterdb.store.files import Files
from filterdb.store.snapshot import Snapshot
from tests.commands.running import answer, run
from tests.models import chain, weights

pytestmark = pytest.mark.slow

SHAPES: dict[str, list[tuple[int, int, tuple[int, int]]]] = {
    "a": [(8, 3, (3, 3)), (16, 8, (5, 5)), (16, 16, (1, 1)), (16, 16, (3, 3)), (4, 16, (1, 3))],
    "b": [(6, 3, (7, 7)), (12, 6, (5, 5)), (5, 12, (3, 1)), (2, 5, (17, 17))],
    "c": [(4, 3, (3, 3)), (9, 4, (5, 5)), (9, 9, (2, 2))],
}
"""Output and input channels and kernel of each layer of some models."""


def layers(name: str) -> list[np.ndarray]:
    return [weights(out, into, 10 * ord(name) + i, kernel) for i, (out, into, kernel) in enumerate(SHAPES[name])]


def files(folder: Path, names: str = "abc") -> list[str]:
    return [str(chain(folder / f"{name}.onnx", *layers(name))) for name in names]


def expected(kernel: schema.Kernel, names: str = "abc") -> np.ndarray:
    """All filters of this shape in the models' order, straight from the weights that were written."""
    own = [w.reshape(-1, kernel[0] * kernel[1]) for name in names for w in layers(name) if w.shape[2:] == kernel]
    return np.concatenate([np.empty((0, kernel[0] * kernel[1]), np.float32), *own])


def contents(folder: Path, *without: str) -> dict[str, str]:
    """The SHA-256 of every object of a database."""
    names = [path for path in folder.rglob("*") if path.is_file() and path.parts[len(folder.parts)] not in without]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in names}


KERNELS = [(3, 3), (1, 3), (3, 1), (2, 2), (5, 5), (7, 7)]


def check(db: Database, names: str = "abc") -> None:
    """Compare everything with the weights that the models were made of."""
    assert set(db.kernels) == {(3, 3), *(w.shape[2:] for name in names for w in layers(name))} - {(1, 1), (17, 17)}
    for kernel in db.kernels:
        bank = db.bank(kernel)
        np.testing.assert_array_equal(bank.dataset["filters"].values, expected(kernel, names))
        sizes = [w.shape[0] * w.shape[1] for name in names for w in layers(name) if w.shape[2:] == kernel]
        assert bank.layers["row_size"].values.tolist() == sizes
        assert bank.counts["filters"] == sum(sizes)
    others = [w for name in names for w in layers(name) if w.shape[2:] in {(1, 1), (17, 17)}]
    assert db.other_columns["peak"].values.tolist() == [float(np.abs(w).max()) for w in others]
    assert fdb.verify(db, deep=True).problems == []


@pytest.mark.parametrize("chunk_rows", [20, 1_000_000])
def test_every_shape_is_stored(tmp_path: Path, chunk_rows: int) -> None:
    done = fdb.ingest(tmp_path / "db", files(tmp_path), chunk_rows=chunk_rows, kernels="all")
    check(done.database)
    check(fdb.open(tmp_path / "db"))
    assert done.database.skipped_columns.sizes["skipped"] == 0
    segment = tmp_path / f"db/segments/{done.segment}.zarr"
    with xr.open_zarr(segment, group="5x5") as group:  # any warning is an error
        np.testing.assert_array_equal(group["filters"].values, expected((5, 5)))
        assert group["row_size"].values.sum() == len(group["filters"])
    assert {"/", "/5x5", "/7x7"} <= set(xr.open_groups(segment, engine="zarr"))


def test_chosen_shapes(tmp_path: Path) -> None:
    db = fdb.ingest(tmp_path / "db", files(tmp_path), kernels="3x3,7x7").database
    assert db.kernels == ((3, 3), (7, 7))
    np.testing.assert_array_equal(db.bank("7x7").dataset["filters"].values, expected((7, 7)))
    assert db.other_columns.sizes["layer"] == 0
    assert set(db.skipped_columns["skipped_code"].values) == {"kernel"}
    assert db.skipped_columns.sizes["skipped"] == 8


def test_only_3x3_is_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The id is that of the version before there were banks, for the same model and name."""
    monkeypatch.chdir(tmp_path)
    shapes = [(8, 3, (3, 3)), (16, 8, (5, 5)), (16, 16, (1, 1)), (16, 16, (3, 3)), (4, 16, (1, 3))]
    chain(Path("a.onnx"), *(weights(out, into, i, kernel) for i, (out, into, kernel) in enumerate(shapes)))
    done = fdb.ingest("db", ["a.onnx"], kernels="3x3")
    assert done.segment == "540978b5b719a1e3033d"
    state = done.database.state
    assert (state.format, state.has_banks) == (schema.FORMAT, False)
    assert b"banks" not in Path("db/snapshots/00000000.json").read_bytes()


def test_same_bytes_on_every_scheduler(tmp_path: Path) -> None:
    found = []
    sources = files(tmp_path)
    for scheduler in ("synchronous", "threads", "processes"):
        with dask.config.set(scheduler=scheduler):
            fdb.ingest(tmp_path / scheduler, sources, chunk_rows=20, kernels="all")
        found.append(contents(tmp_path / scheduler, "snapshots"))
    assert found[0] == found[1] == found[2]
    assert len([name for name in found[0] if "5x5/moments" in name or "5x5/sketch" in name]) == 2


def test_shapes_are_added_to_an_older_segment(tmp_path: Path) -> None:
    """Nothing that is stored changes, and the result is that of a new ingest."""
    sources = files(tmp_path)
    old = fdb.ingest(tmp_path / "db", sources, chunk_rows=20, kernels="3x3")
    before = contents(tmp_path / "db")
    done = fdb.ingest(tmp_path / "db", sources, chunk_rows=20, kernels="all")
    assert (done.segment, done.added, done.widened, done.left) == (None, [], sources, [])
    assert {name: sha256 for name, sha256 in contents(tmp_path / "db").items() if name in before} == before
    db = fdb.open(tmp_path / "db")
    assert [entry.id for entry in db.state.segments] == [old.segment]
    check(db)
    whole = fdb.ingest(tmp_path / "whole", sources, chunk_rows=20, kernels="all").database
    for kernel in db.kernels:
        assert db.bank(kernel).layers.equals(whole.bank(kernel).layers)
    assert db.skipped.equals(whole.skipped)
    assert fdb.open(tmp_path / "db", snapshot=0).kernels == ((3, 3),)
    again = fdb.ingest(tmp_path / "db", sources, kernels="all")
    assert (again.widened, again.left, again.database.snapshot) == ([], [], db.snapshot)


def test_shapes_are_added_twice(tmp_path: Path) -> None:
    sources = files(tmp_path)
    for kernels in ("3x3", "5x5", "3x3,7x7", "all"):
        fdb.ingest(tmp_path / "db", sources, chunk_rows=20, kernels=kernels)
    check(fdb.open(tmp_path / "db"))
    assert fdb.open(tmp_path / "db", snapshot=2).kernels == ((3, 3), (5, 5), (7, 7))
    assert fdb.open(tmp_path / "db").state.segments[0].kernels == "all"


def test_shapes_are_added_when_all_models_of_the_segment_are_given(tmp_path: Path) -> None:
    sources = files(tmp_path)
    fdb.ingest(tmp_path / "db", sources[:2], kernels="3x3")
    fdb.ingest(tmp_path / "db", sources[2:], kernels="3x3")
    done = fdb.ingest(tmp_path / "db", sources[1:], kernels="all")
    assert (done.widened, done.left) == ([sources[2]], [sources[1]])
    assert done.database.kernels == ((3, 3), (2, 2), (5, 5))
    np.testing.assert_array_equal(done.database.bank("5x5").dataset["filters"].values, expected((5, 5), "c"))
    fdb.ingest(tmp_path / "db", sources, kernels="all")
    check(fdb.open(tmp_path / "db"))


def test_removed_models_need_not_be_given(tmp_path: Path) -> None:
    sources = files(tmp_path)
    fdb.ingest(tmp_path / "db", sources, kernels="3x3")
    fdb.remove(tmp_path / "db", sources[1])
    fdb.ingest(tmp_path / "db", [sources[0], sources[2]], kernels="all")
    check(fdb.open(tmp_path / "db"), "ac")


def test_another_writer_changes_the_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = files(tmp_path)
    fdb.ingest(tmp_path / "db", sources, kernels="3x3")
    real = segment_writer.write_banks

    def meanwhile(*args: Any) -> None:
        real(*args)
        monkeypatch.setattr(more_kernels, "write_banks", real)
        fdb.ingest(tmp_path / "db", sources, kernels="5x5")

    monkeypatch.setattr(more_kernels, "write_banks", meanwhile)
    with pytest.raises(ConflictError, match="another writer changed it; run again"):
        fdb.ingest(tmp_path / "db", sources, kernels="all")
    fdb.ingest(tmp_path / "db", sources, kernels="all")
    check(fdb.open(tmp_path / "db"))


def test_compaction_joins_banks(tmp_path: Path) -> None:
    sources = files(tmp_path)
    for source in sources:
        fdb.ingest(tmp_path / "db", source, chunk_rows=20, kernels="all", compact=False)
    db = fdb.compact(tmp_path / "db", chunk_rows=1000)
    assert len(db.state.segments) == 1
    check(db)
    check(fdb.open(tmp_path / "db", snapshot=2))


def test_segments_that_were_read_for_other_shapes_are_not_joined(tmp_path: Path) -> None:
    sources = files(tmp_path)
    for source, kernels in zip(sources, ("3x3", "3x3", "all"), strict=True):
        fdb.ingest(tmp_path / "db", source, kernels=kernels, compact=False)
    db = fdb.compact(tmp_path / "db")
    assert [entry.kernels for entry in db.state.segments] == ["3x3", "all"]


def test_purge_forgets_the_filters_of_every_shape(tmp_path: Path) -> None:
    sources = files(tmp_path)
    fdb.ingest(tmp_path / "db", sources, kernels="3x3")
    fdb.ingest(tmp_path / "db", sources, kernels="all")
    copy = str(chain(tmp_path / "copy.onnx", layers("b")[1]))  # shares a 5×5 layer
    fdb.ingest(tmp_path / "db", copy, kernels="all", compact=False)
    old = fdb.open(tmp_path / "db").state.segments[0].ids
    assert len(old) == 2
    assert fdb.purge(tmp_path / "db", sources[1]).shared_with == [copy]
    assert not [path for path in tmp_path.joinpath("db").rglob("*") if any(id_ in str(path) for id_ in old)]
    fdb.remove(tmp_path / "db", copy)
    check(fdb.open(tmp_path / "db"), "ac")


def test_purge_forgets_shapes_whose_addition_was_not_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = files(tmp_path)
    fdb.ingest(tmp_path / "db", sources, kernels="3x3")
    with monkeypatch.context() as patch, pytest.raises(StoreError, match="died"):
        patch.setattr(more_kernels, "check_complete", lambda *_: (_ for _ in ()).throw(StoreError("died")))
        fdb.ingest(tmp_path / "db", sources, kernels="all")
    (left,) = tmp_path.glob("db/segments/*/5x5/filters/c/0/0")
    fdb.purge(tmp_path / "db", sources[1])
    assert not left.exists()
    assert fdb.gc(tmp_path / "db", grace=-1) == []
    fdb.ingest(tmp_path / "db", [sources[0], sources[2]], kernels="all")
    check(fdb.open(tmp_path / "db"), "ac")


def test_an_addition_opens_in_xarray(tmp_path: Path) -> None:
    sources = files(tmp_path)
    for kernels in ("3x3", "5x5", "all"):
        fdb.ingest(tmp_path / "db", sources, kernels=kernels)
    (five,) = tmp_path.glob("db/segments/*/5x5")
    (seven,) = tmp_path.glob("db/segments/*/7x7")
    assert five.parent != seven.parent
    for bank in (five, seven):
        kernel = schema.parse_kernel(bank.name)
        with xr.open_zarr(bank.parent, group=bank.name) as group:
            np.testing.assert_array_equal(group["filters"].values, expected(kernel))
            (segment,) = fdb.open(tmp_path / "db").state.segments
            assert group.attrs["models"] == f"variables of segments/{segment.id}.zarr, along `model`"


def test_collection_keeps_what_was_added(tmp_path: Path) -> None:
    sources = files(tmp_path)
    for kernels in ("3x3", "5x5", "all"):
        fdb.ingest(tmp_path / "db", sources, kernels=kernels)
    fdb.gc(tmp_path / "db", delete=True, grace=-1)
    check(fdb.open(tmp_path / "db"))
    check_5x5 = fdb.open(tmp_path / "db", snapshot=1).bank("5x5").dataset["filters"].values
    np.testing.assert_array_equal(check_5x5, expected((5, 5)))


@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("name", ["5x5/filters/c/0/0", "5x5/zarr.json", "7x7/filters/zarr.json", "pack"])
def test_verify_finds_damage_of_a_bank(tmp_path: Path, name: str, added: bool) -> None:
    sources = files(tmp_path)
    for kernels in ("3x3", "all") if added else ("all",):
        fdb.ingest(tmp_path / "db", sources, kernels=kernels)
    (place,) = (tmp_path / "db/segments").glob("*.zarr/5x5")
    place = place.parent.with_suffix(".safetensors") if name == "pack" else place.parent / name
    assert fdb.verify(tmp_path / "db").problems == []
    data = bytearray(place.read_bytes())
    data[len(data) // 2] ^= 1
    place.write_bytes(data)
    assert len(fdb.verify(tmp_path / "db", deep=True).problems) >= 1
    place.unlink()
    assert len(fdb.verify(tmp_path / "db").problems) >= 1


def test_views_and_snapshots_keep_the_bank(tmp_path: Path) -> None:
    db = fdb.ingest(tmp_path / "db", files(tmp_path), kernels="all").database.bank("5x5")
    view = db.where("model", [db.models["model"].values[1]])
    np.testing.assert_array_equal(view.dataset["filters"].values, expected((5, 5), "b"))
    assert (view.kernel, view.whole.kernel, view.root.kernel, view.bank((5, 5))) == ((5, 5), (5, 5), (3, 3), view)
    following: Snapshot = fdb.tag(db, "t").state
    moved = view.at(following)
    assert (moved.kernel, moved.snapshot, moved.counts) == ((5, 5), 1, view.counts)
    assert db.bank("7x3").counts == {"filters": 0, "layers": 0, "models": 0}
    assert "5x5" in repr(db)


@pytest.mark.parametrize("kernel", ["5", "0x3", "1x1", "17x17", "x", "5x5x5", "-1x3"])
def test_no_kernel_shape(tmp_path: Path, kernel: str) -> None:
    db = fdb.ingest(tmp_path / "db", files(tmp_path, "c"), kernels="all").database
    with pytest.raises(UsageError, match="kernel: expected"):
        db.bank(kernel)


def test_same_bytes_on_s3(tmp_path: Path, s3: Callable[[], str]) -> None:
    sources = files(tmp_path)
    url = f"{s3()}/db"
    for place in (tmp_path / "db", url):
        fdb.ingest(place, sources[:2], chunk_rows=20, kernels="3x3")
        fdb.ingest(place, sources, chunk_rows=20, kernels="all")
    check(fdb.open(url))
    stored = Files.at(url)
    names = [name for name in stored.list("") if name.startswith(("segments/", "summaries/"))]
    remote = {name: hashlib.sha256(data).hexdigest() for name, data in stored.read_many(names).items()}
    local = contents(tmp_path / "db")
    assert remote == {name: sha256 for name, sha256 in local.items() if name.startswith(("segments/", "summaries/"))}
    assert any("/5x5/filters/c/" in name for name in remote)


def test_info_and_layers_of_every_shape(tmp_path: Path) -> None:
    fdb.ingest(tmp_path / "db", files(tmp_path), kernels="all")
    info = answer("info", tmp_path / "db")
    expected = Counter[str]()
    for name in "abc":
        for layer in layers(name):
            expected[schema.kernel_name(layer.shape[2:])] += layer.size
    assert {shape["kernel"]: shape["weights"] for shape in info["kernels"]} == expected
    assert (info["weights"], info["coverage"], info["format"]) == (expected.total(), 1.0, 6)
    for kernel, number in (("5x5", 3), ("1x1", 1), ("17x17", 1), ("1x7", 0)):
        rows = answer("layers", tmp_path / "db", "--kernel", kernel)["rows"]
        assert [row["kernel"] for row in rows] == [kernel] * number
    only = answer("layers", tmp_path / "db", "--kernel", "1x1", "--where", f"model={files(tmp_path)[0]}")
    assert len(only["rows"]) == 1
    assert "1x1" in run("layers", tmp_path / "db", "--kernel", "1x1").stdout
