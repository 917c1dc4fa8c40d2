"""Bivariate densities: numpy's counts, marginals that are the histograms, any chunking and scheduler, kept."""

from __future__ import annotations

import os
from pathlib import Path

import dask
import numpy as np
import pytest
from distributed import Client

import filterdb as fdb
from filterdb.errors import DamageError, UsageError
from filterdb.numerics.modes import ModeName
from filterdb.reduce import basis
from filterdb.reduce import joint_densities as module
from filterdb.store import summary
from filterdb.store.segment import Segment
from tests.models import chain, weights
from tests.numerics import oracles

pytestmark = pytest.mark.slow


def coefficients(db: fdb.Database, *, scaled: bool, mode: ModeName) -> np.ndarray:
    """Of every filter of a view, (n, 9), by NumPy alone from the dataset."""
    at, found = basis.projection(db, mode, scaled=scaled)
    mean, components = found.axes.arrays
    rows = at.dataset.filters.values
    values = oracles.scaled(rows) if scaled else rows.astype(np.float64)
    # In this order, as the projection is defined; BLAS would add in another.
    total = np.zeros((len(values), 9))
    for j in range(9):
        total += (values[:, j, None] - mean[j]) * components[:, j]
    return total


def owners(db: fdb.Database, label: str) -> np.ndarray:
    return np.repeat(db.layers[label].values.astype(str), db.layers["row_size"].values)


@pytest.mark.parametrize(("scaled", "mode"), [(True, "sound"), (True, "paper"), (False, "sound")])
def test_counts_are_numpys(real_db: fdb.Database, scaled: bool, mode: ModeName) -> None:
    """336 chunks, layers across up to 66 of them; groups whose layers lie far apart."""
    found = fdb.density(real_db, "family", components=(2, 5), scaled=scaled, mode=mode)
    values, family = coefficients(real_db, scaled=scaled, mode=mode), owners(real_db, "family")
    edges = found["bin_edges"].values
    low, high = found.attrs["range"]
    np.testing.assert_array_equal(edges, np.linspace(low, high, 71))
    assert found.sizes["group"] == 4
    for label in found["group"].values:
        own = values[family == label]
        expected, _, _ = np.histogram2d(own[:, 2], own[:, 5], bins=(edges, edges))
        got = found["counts"].sel(group=label).values
        assert got.dtype == np.int64
        np.testing.assert_array_equal(got, expected)
        outside = ((own[:, [2, 5]] < edges[0]) | (own[:, [2, 5]] > edges[-1])).any(axis=1).sum()
        assert int(found["outside"].sel(group=label)) == outside
        assert int(found["count"].sel(group=label)) == len(own)
        area = np.diff(edges)[0] ** 2
        assert float(found["density"].sel(group=label).sum()) * area == pytest.approx(1 - outside / len(own), rel=1e-9)


@pytest.mark.parametrize("by", [None, "model", "task,depth_decile", "layer"])
@pytest.mark.parametrize("mode", ["sound", "paper"])
def test_marginals_are_the_histograms(real_db: fdb.Database, by: str | None, mode: ModeName) -> None:
    found = fdb.density(real_db, by, components=(0, 8), mode=mode)
    db, projection = basis.projection(real_db, mode)
    counts = basis.layer_histograms(db, projection)["counts"]
    if by is None:
        one, eight = counts[:, 0].sum(axis=0)[None], counts[:, 8].sum(axis=0)[None]
    else:
        histograms = fdb.drift(real_db, by, mode=mode).sel(group=found["group"].values)["counts"]
        one, eight = histograms[:, 0].values, histograms[:, 8].values
    assert not found["outside"].values.any()
    np.testing.assert_array_equal(found["counts"].sum("other_bin"), one)
    np.testing.assert_array_equal(found["counts"].sum("bin"), eight)


def test_a_swapped_pair_is_transposed(real_db: fdb.Database) -> None:
    one, other = fdb.density(real_db, "task", components=(1, 3)), fdb.density(real_db, "task", components=(3, 1))
    np.testing.assert_array_equal(one["counts"], other["counts"].transpose("group", "other_bin", "bin").values)


def test_other_bins(real_db: fdb.Database) -> None:
    """Halves of a coarse bin are two fine ones, up to what lies on the edge between them."""
    coarse, fine = fdb.density(real_db, "task", bins=20), fdb.density(real_db, "task", bins=40)
    assert coarse["counts"].shape[1:] == (20, 20)
    folded = fine["counts"].values.reshape(-1, 20, 2, 20, 2).sum(axis=(2, 4))
    np.testing.assert_array_equal(coarse["counts"], folded)


@pytest.fixture
def two(tmp_path: Path) -> fdb.Database:
    """Two segments in chunks of 10 rows, a layer of which is across four; three models."""
    for i, shape in enumerate([(6, 5), (7, 6), (4, 4)]):
        chain(tmp_path / f"{i}.onnx", weights(*shape, seed=i), weights(3, shape[0], seed=9 + i))
    fdb.ingest(tmp_path / "db", [tmp_path / "0.onnx", tmp_path / "1.onnx"], chunk_rows=10)
    return fdb.ingest(tmp_path / "db", [tmp_path / "2.onnx"], chunk_rows=10).database


class Reading:
    """Chunks that were read, by segment."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read: list[tuple[str, int]] = []
        real = Segment.read_columns

        def counted(segment: Segment, chunk: int) -> np.ndarray:
            self.read.append((segment.id, chunk))
            return real(segment, chunk)

        monkeypatch.setattr(Segment, "read_columns", counted)


def test_only_what_is_needed_is_read_and_only_once(two: fdb.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    two = fdb.open(two.url, fdb.drift(two, "model").attrs["snapshot"])
    counter = Reading(monkeypatch)
    whole = fdb.density(two, "model")
    assert len(counter.read) == sum(segment.chunks for segment in two.segments)
    counter.read.clear()
    again = fdb.density(fdb.open(two.url), "model")
    assert not counter.read
    assert again.identical(whole)
    view = two.select(conv_depth=1, model=[str(two.models["model"].values[0])])
    fdb.density(view, "model")
    first = two.segments[0].id
    assert sorted(counter.read) == [(first, 3), (first, 4)]  # rows 30 … 47 of 0.onnx
    assert int(fdb.density(view)["counts"].sum()) == 18


def test_a_new_model_costs_its_own_filters(two: fdb.Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where its name comes first: groups are numbered within a segment."""
    fdb.density(two, "model")
    chain(tmp_path / "aaa.onnx", weights(3, 5, seed=3))
    db = fdb.ingest(two.url, [tmp_path / "aaa.onnx"], chunk_rows=10).database
    fdb.drift(db, "model")
    counter = Reading(monkeypatch)
    found = fdb.density(db, "model")
    assert {segment for segment, _ in counter.read} == {db.segments[2].id}
    assert found["counts"].sum(["bin", "other_bin"]).values.tolist() == found["count"].values.tolist()


def test_groups_over_segments_and_removed_models(two: fdb.Database) -> None:
    """A group may have layers of several segments; a removed model's are in none."""
    fdb.density(two, "conv_depth")
    db = fdb.remove(fdb.open(two.url), [str(two.models["model"].values[0])])
    found = fdb.density(db, "conv_depth")
    values, depth = coefficients(db, scaled=True, mode="sound"), owners(db, "conv_depth")
    edges = found["bin_edges"].values
    for label in ("0", "1"):
        own = values[depth == label]
        expected, _, _ = np.histogram2d(own[:, 0], own[:, 1], bins=(edges, edges))
        np.testing.assert_array_equal(found["counts"].sel(group=label), expected)


def test_several_pairs_in_one_reading(two: fdb.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    db, projection = basis.projection(two, "sound")
    member = db.layers["model_index"].values
    single = [module.densities(db, projection, member, 3, [pair], 70)[0][0] for pair in [(0, 1), (4, 2)]]
    db.files.remove(db.files.list("summaries"))
    module.densities(db, projection, member, 3, [(4, 2)], 70)
    counter = Reading(monkeypatch)
    counts, outside = module.densities(db, projection, member, 3, [(0, 1), (4, 2), (7, 8)], 70)
    assert len(counter.read) == sum(segment.chunks for segment in db.segments)
    np.testing.assert_array_equal(counts[0], single[0])
    np.testing.assert_array_equal(counts[1], single[1])
    assert counts.sum() + outside.sum() == 3 * db.counts["filters"]
    twice, _ = module.densities(db, projection, member, 3, [(0, 1), (4, 2), (0, 1)], 70)
    np.testing.assert_array_equal(twice, counts[[0, 1, 0]])


def stored(db: fdb.Database) -> dict[str, bytes]:
    return {name: db.files.read(name) for name in db.files.list("summaries") if "density" in name}


@pytest.mark.slow
def test_the_same_bytes_on_threads_and_processes(real_db: fdb.Database, two_workers: Client) -> None:
    found = {}
    for place in ("synchronous", "threads", "processes"):
        real_db.files.remove(list(stored(real_db)))
        db = fdb.open(real_db.url)
        if place == "processes":
            with two_workers.as_current():
                fdb.density(db, "depth_decile", components=(0, 3))
            assert len(set(two_workers.run(os.getpid).values()) - {os.getpid()}) == 2
            story = two_workers.cluster.scheduler.task_prefixes
            assert any(name.startswith("density") for name in story)
        else:
            with dask.config.set(scheduler=place, num_workers=4):
                fdb.density(db, "depth_decile", components=(0, 3))
        found[place] = stored(db)
        assert len(found[place]) == 1
    assert found["synchronous"] == found["threads"] == found["processes"]


def test_a_stopped_pass_resumes(real_db: fdb.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in its last partitions: what 16 of them together gave is not read again, and nothing is left behind."""
    fdb.drift(real_db, "task")
    db = fdb.open(real_db.url)
    real = Segment.read_columns

    def fails(segment: Segment, chunk: int) -> np.ndarray:
        if chunk == 330:
            raise KeyboardInterrupt
        return real(segment, chunk)

    monkeypatch.setattr(Segment, "read_columns", fails)
    with dask.config.set(scheduler="synchronous"), pytest.raises(KeyboardInterrupt):
        fdb.density(db, "task", components=(6, 7))
    parts = [name for name in stored(db) if "/parts/" in name]
    assert parts
    monkeypatch.setattr(Segment, "read_columns", real)
    damaged = Path(db.files.url(parts[0]))
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    counter = Reading(monkeypatch)
    found = fdb.density(db, "task", components=(6, 7))
    assert len(counter.read) == 336 - 16 * (len(parts) - 1)
    assert not [name for name in stored(db) if "/parts/" in name]
    np.testing.assert_array_equal(found["counts"].sum(["bin", "other_bin"]), found["count"])


def test_a_read_only_store_keeps_counts_in_memory(
    two: fdb.Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fdb.drift(two, "model")
    from filterdb.store import local

    def refuse(path: Path, data: bytes) -> None:
        raise PermissionError(13, "read-only", str(path))

    db = fdb.open(two.url)
    monkeypatch.setattr(local, "create", refuse)
    first = fdb.density(db, "model")
    assert "kept in memory only" in caplog.text
    assert not stored(db)
    counter = Reading(monkeypatch)
    # The basis is found again at the same snapshot, and with it what is in memory.
    assert fdb.density(db, "model").equals(first)
    assert not counter.read


def test_a_summary_that_contradicts_the_tables_is_refused(two: fdb.Database) -> None:
    fdb.density(two, "model")
    db, projection = basis.projection(fdb.open(two.url), "sound")
    name = next(name for name in stored(db) if db.segments[1].id in name)
    joint_bins = module.JointBins(projection.axes, projection.low, projection.high, 70)
    key = joint_bins.key((0, 1), module.digest_of_groups(np.zeros(2, np.int64)))
    assert name == summary.name_of(db.segments[1].id, key)
    arrays = summary.load(db.files, db.segments[1].id, key)
    assert arrays is not None
    arrays["counts"][0, 35, 35] += 1
    db.files.remove([name])
    summary.save(db.files, db.segments[1].id, key, arrays)
    with pytest.raises(DamageError, match="expected 28 filters in group 0, got 29; delete it"):
        fdb.density(db, "model")


@pytest.mark.parametrize("pair", [(0, 0), (0, 9), (-1, 2), (1, 2, 3)])
def test_components_that_do_not_exist(two: fdb.Database, pair: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="expected two different ones of 0 … 8"):
        fdb.density(two, components=pair)


def test_too_much_is_refused_before_anything_is_read(two: fdb.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="expected 1 to 1,024"):
        fdb.density(two, bins=0)
    fdb.drift(two, "model")
    counter = Reading(monkeypatch)
    monkeypatch.setattr(module, "MAX_COUNTS", 3 * 70**2 - 1)
    with pytest.raises(UsageError, match=r"got 3 groups × 1 pairs × 70² bins; group by something coarser"):
        fdb.density(two, "model")
    assert not counter.read
    assert fdb.density(two).sizes["group"] == 1
