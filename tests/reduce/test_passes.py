"""Passes: any chunking gives the same answers, graphs stay small and lazy, only what is missing is computed."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import filterdb as fdb
from filterdb import cluster
from filterdb.engine import graph
from filterdb.engine.moments import MomentsReduction
from filterdb.engine.partition import Partition, partitions
from filterdb.engine.parts import Part, fold, join, reduce_partition
from filterdb.engine.reduction import LayerReduction
from filterdb.engine.sketches import SketchReduction
from filterdb.plan import offsets, runs
from filterdb.reduce import basis
from filterdb.reduce.reductions import Axes, ExtremesReduction, HistogramsReduction
from filterdb.store.database import Database
from filterdb.store.files import Files
from filterdb.store.segment import Segment
from tests.models import chain, weights

AXES = Axes.of(
    np.linspace(-0.1, 0.1, 9), np.linalg.qr(np.random.default_rng(0).standard_normal((9, 9)))[0], scaled=True
)
REDUCTIONS: list[LayerReduction] = [
    MomentsReduction(),
    ExtremesReduction(AXES),
    HistogramsReduction(AXES, -3.2, 3.2),
    SketchReduction(),
]


def in_chunks(filters: np.ndarray, sizes: list[int], chunk: int, fan_in: int) -> list[Part]:
    """A pass over filters in memory, cut and merged as the graph does it."""
    bounds = offsets(np.array(sizes))
    peaks = np.array([np.abs(part).max() for part in np.split(filters, bounds[1:-1])], np.float64)
    parts = []
    for start in range(0, len(filters), chunk):
        part = filters[start : start + chunk]
        overlap = runs(bounds, start, start + len(part))
        of_layers = bounds[overlap.first : overlap.last + 1], peaks[overlap.first : overlap.last]
        segment = Segment(Files(""), "", len(filters), chunk)
        partition = Partition(segment, range(start // chunk, start // chunk + 1), overlap.first, *of_layers)
        parts.append(fold(partition, [np.ascontiguousarray(part.T)], REDUCTIONS))
    while len(parts) > 1:
        parts = [join(parts[i : i + fan_in], REDUCTIONS) for i in range(0, len(parts), fan_in)]
    return parts[0]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=10), st.integers(1, 80), st.integers(2, 5), st.integers(0, 99))
def test_any_chunking_and_any_tree_give_the_same(sizes: list[int], chunk: int, fan_in: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    filters = rng.standard_normal((sum(sizes), 9)).astype(np.float32) * np.float32(10.0 ** rng.integers(-20, 20))
    filters[rng.random(len(filters)) < 0.2] *= np.float32(1e-3)
    whole = in_chunks(filters, sizes, len(filters), 2)
    cut = in_chunks(filters, sizes, chunk, fan_in)
    for reduction, one, many in zip(REDUCTIONS, whole, cut, strict=True):
        assert one.index.tolist() == many.index.tolist() == list(range(len(sizes)))
        for name, expected in one.arrays.items():
            found = many.arrays[name]
            assert found.shape == expected.shape == (len(sizes), *expected.shape[1:])
            if expected.dtype.kind == "i" or isinstance(reduction, ExtremesReduction) or name == "peak":
                np.testing.assert_array_equal(found, expected)
            else:
                size = np.abs(expected).reshape(len(sizes), -1).max(axis=1).reshape(-1, *[1] * (expected.ndim - 1))
                assert (np.abs(found - expected) <= 1e-12 * np.maximum(size, 1e-300) * 50).all()
        np.testing.assert_array_equal(reduction.count(many.arrays), sizes)


class NoReading:
    """Counts readings of chunks, or refuses them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, allowed: bool = True) -> None:
        self.read: list[tuple[str, int]] = []
        real = Segment.read_columns

        def counted(segment: Segment, chunk: int) -> np.ndarray:
            assert allowed, "a chunk was read"
            self.read.append((segment.id, chunk))
            return real(segment, chunk)

        monkeypatch.setattr(Segment, "read_columns", counted)


@pytest.mark.parametrize("reductions", [[REDUCTIONS[0]], REDUCTIONS[1:], REDUCTIONS])
def test_graphs_are_small_and_lazy(
    real_db: fdb.Database, reductions: list[LayerReduction], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One reading task per chunk and a merge tree of FAN_IN; nothing is read or computed while it is built."""
    NoReading(monkeypatch, allowed=False)
    (segment,) = real_db.segments

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something was computed")

    monkeypatch.setattr(cluster, "run", refuse)
    with dask.config.set(scheduler=refuse):
        task = graph.build(segment, real_db.tables[0], reductions)
    keys = list(task.__dask_graph__())
    reading = [key for key in keys if "-merge-" not in str(key)]
    assert segment.chunks == 336
    assert len(reading) == segment.chunks
    merging = len(keys) - len(reading)
    assert merging <= segment.chunks / (graph.FAN_IN - 1) + np.log(segment.chunks)
    assert len(keys) <= 2 * segment.chunks


def test_tasks_return_kilobytes(real_db: fdb.Database) -> None:
    (segment,) = real_db.segments
    partition = partitions(segment, real_db.tables[0])[100]
    parts = reduce_partition(partition, REDUCTIONS)
    size = sum(array.nbytes for part in parts for array in part.arrays.values())
    assert size < 20_000 < segment.chunk_rows * 36
    need = graph.projected(segment, real_db.tables[0], REDUCTIONS)
    assert size < need.per_thread < 2**20


@pytest.fixture
def small(tmp_path: Path) -> Database:
    chain(tmp_path / "a.onnx", weights(6, 5, seed=1), weights(7, 6, seed=2))
    return fdb.ingest(tmp_path / "db", [tmp_path / "a.onnx"], chunk_rows=10).database


def test_a_pass_runs_once(small: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Moments at ingest, then histograms, reading each chunk once; then never again, from any process or view."""
    counter = NoReading(monkeypatch)
    fdb.pca(small)
    assert not counter.read
    for path in Path(small.url).glob("summaries/*/*"):
        path.unlink()
    small.kept.clear()
    fdb.pca(small)
    assert len(counter.read) == 8
    fdb.degeneration(small)
    fdb.pca(fdb.open(small.url), by="layer", scaled=False)
    assert len(counter.read) == 8
    fdb.drift(small, by="layer")
    assert len(counter.read) == 16
    for db in (small, fdb.open(small.url), fdb.open(small.url).select(conv_depth=0)):
        fdb.drift(db, by="model", metric="js", within="layer")
    assert len(counter.read) == 16
    fdb.drift(small, by="layer", mode="paper")  # extremes, then histograms in their range
    assert len(counter.read) == 32


def test_a_new_model_costs_its_own_filters(small: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fdb.drift(small, by="layer")
    chain(tmp_path / "b.onnx", weights(3, 5, seed=3))
    db = fdb.ingest(small.url, [tmp_path / "b.onnx"], chunk_rows=10).database
    counter = NoReading(monkeypatch)
    found = fdb.drift(db, by="model")
    assert {segment for segment, _ in counter.read} == {db.segments[1].id}
    assert len(counter.read) == 2  # its histograms; the moments were taken while it was written
    assert found.attrs["basis"] == fdb.open(db.url, 1).state.basis
    assert found.attrs["basis_fitted_on"] == 0
    assert max(basis.moved(db, db.basis)["angle"]) > 0  # type: ignore[arg-type]


def test_the_first_reduce_commits_the_basis_and_later_snapshots_inherit_it(small: Database, tmp_path: Path) -> None:
    assert small.state.basis is None
    first = fdb.drift(small, by="layer")
    assert first.attrs["snapshot"] == 1
    assert fdb.open(small.url).state.action == "reduce"
    assert fdb.drift(small, by="layer").attrs["snapshot"] == 1  # found, not committed again
    assert fdb.open(small.url).snapshot == 1
    chain(tmp_path / "b.onnx", weights(30, 30, seed=3))
    grown = fdb.ingest(small.url, [tmp_path / "b.onnx"], chunk_rows=10).database
    assert (grown.snapshot, grown.state.basis) == (2, first.attrs["basis"])
    refitted = fdb.refit(grown)
    assert refitted.snapshot == 3
    assert refitted.state.basis != first.attrs["basis"]
    assert fdb.drift(refitted, by="layer").attrs["basis_fitted_on"] == 2
    assert fdb.drift(grown, by="layer").attrs["basis"] == first.attrs["basis"]  # pinned to its snapshot


def test_a_basis_that_another_commits_meanwhile_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two first reductions at the same time: both results are of the snapshot with the basis.

    The other one commits before each access to the store that the first one makes, in turn.
    """
    chain(tmp_path / "a.onnx", weights(6, 12, seed=1))
    fitted = fdb.ingest(tmp_path / "db", [tmp_path / "a.onnx"], chunk_rows=10).database
    basis.layer_moments(fitted, scaled=True)  # what is left to do is to fit and to commit
    accesses = ["read", "read_many", "list", "create", "put"]
    originals = {name: getattr(Files, name) for name in accesses}
    left, turn, others = -2, 0, list[int | None]()

    def counting(name: str) -> Callable[..., Any]:
        def access(self: Files, *arguments: Any) -> Any:
            nonlocal left
            left -= 1
            if left == -1 and not others:
                others.append(None)
                others[0] = basis.with_basis(fdb.open(self.root)).snapshot
            return originals[name](self, *arguments)

        return access

    for name in accesses:
        monkeypatch.setattr(Files, name, counting(name))
    while True:
        db = fdb.open(shutil.copytree(fitted.url, tmp_path / f"db{turn}"))
        left = turn
        others.clear()
        alone = basis.with_basis(db)
        if not others:
            break
        assert (alone.snapshot, others, fdb.open(db.url).snapshot) == (1, [1], 1), turn
        turn += 1
    assert turn >= 5


def test_refit_takes_the_newest_snapshot(small: Database, tmp_path: Path) -> None:
    """From an old handle too: the basis is that of what is there now, and the result opens."""
    fdb.drift(small, by="layer")
    chain(tmp_path / "b.onnx", weights(30, 30, seed=3))
    fdb.ingest(small.url, [tmp_path / "b.onnx"], chunk_rows=10)
    refitted = fdb.refit(small)
    assert refitted.basis is not None
    assert (refitted.snapshot, refitted.basis.snapshot, refitted.basis.filters) == (3, 2, 972)
    assert fdb.drift(refitted, by="model").sizes["group"] == 2


def test_a_basis_without_variance_is_not_frozen(tmp_path: Path) -> None:
    chain(tmp_path / "flat.onnx", np.full((8, 8, 3, 3), 0.5, np.float32))
    db = fdb.ingest(tmp_path / "db", [tmp_path / "flat.onnx"]).database
    assert fdb.drift(db, by="model").attrs["basis"]
    assert fdb.open(db.url).snapshot == 0
    for i in range(2):
        chain(tmp_path / f"{i}.onnx", weights(20, 20, seed=i) + np.float32(3 * i))
    grown = fdb.ingest(db.url, [tmp_path / "0.onnx", tmp_path / "1.onnx"]).database
    found = fdb.drift(grown, by="model")
    assert float(found["drift"].max()) > 0.1
    assert fdb.open(db.url).state.basis == found.attrs["basis"]


def test_nothing_lies_outside_the_sound_range(tmp_path: Path) -> None:
    """Filters of nine equal weights have norm 3, the very bound: rounding must not push them over it."""
    for share in range(1, 8):
        box = np.where(np.arange(800) % 8 < share, 1, -1).astype(np.float32).reshape(-1, 1, 1, 1)
        w = np.concatenate([box, -box]) * np.ones((1, 1, 3, 3), np.float32)
        chain(tmp_path / f"{share}.onnx", w)
        db = fdb.ingest(tmp_path / f"db{share}", [tmp_path / f"{share}.onnx"]).database
        assert not fdb.drift(db, by="layer")["outside"].values.any()


def test_history_without_a_basis_gets_one_in_memory(small: Database, tmp_path: Path) -> None:
    chain(tmp_path / "b.onnx", weights(3, 5, seed=3))
    fdb.ingest(small.url, [tmp_path / "b.onnx"], chunk_rows=10)
    old = fdb.drift(fdb.open(small.url, 0), by="layer")
    assert old.attrs["snapshot"] == 0
    assert old.attrs["filters"] == 72
    assert fdb.open(small.url).snapshot == 1


def test_a_read_only_store_keeps_results_in_memory(
    small: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = fdb.drift(small, by="layer")
    import filterdb.store.local as module

    for path in (Path(small.url) / "summaries", Path(small.url) / "bases"):
        shutil.rmtree(path)
    for suffix in ("json", "committed"):
        (Path(small.url) / f"snapshots/00000001.{suffix}").unlink()

    def refuse(path: Path, data: bytes) -> None:
        raise PermissionError(13, "read-only", str(path))

    monkeypatch.setattr(module, "create", refuse)
    db = fdb.open(small.url)
    with caplog.at_level(logging.WARNING):
        found = fdb.drift(db, by="layer")
    np.testing.assert_array_equal(found["drift"], expected["drift"])
    assert "kept in memory only" in caplog.text
    counter = NoReading(monkeypatch, allowed=False)
    fdb.drift(db, by="layer", metric="js")
    assert not counter.read


def test_a_summary_of_other_code_is_not_used(small: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    fdb.pca(small)
    counter = NoReading(monkeypatch)
    from filterdb.store.summary import Key

    monkeypatch.setattr(MomentsReduction, "key", property(lambda _: Key("moments", 2)))
    fdb.pca(fdb.open(small.url))
    assert len(counter.read) == 8


def test_a_database_without_filters(tmp_path: Path) -> None:
    from tests.models import model, save

    save(tmp_path / "m.onnx", model([]))
    with pytest.raises(fdb.errors.InputError, match=r"not an ONNX model|at least one"):
        fdb.pca(fdb.ingest(tmp_path / "db", [tmp_path / "m.onnx"]).database)
