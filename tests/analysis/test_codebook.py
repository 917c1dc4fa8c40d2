"""Codebooks of databases against SciPy on all filters; groups, stores, schedulers, chunks; noise in every output."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from distributed import Client
from scipy.spatial.distance import cdist

import filterdb as fdb
from filterdb import schema
from filterdb.choices import NORMALISATION_NAMES, Normalisation
from filterdb.commands.codebook import to_answer
from filterdb.engine.graph import build
from filterdb.engine.partition import GROUP_OF_LAYER
from filterdb.errors import StoreError, UsageError
from filterdb.numerics.codebook import THRESHOLDS
from filterdb.reduce import codebook as fits
from filterdb.reduce.codebook import CodeHistograms, CodeSumsReduction, FixedCodes
from filterdb.store.files import Files
from filterdb.store.segment import Segment
from tests.commands.running import answer, run
from tests.engine.test_banks import SIZES, bank
from tests.filters import trained
from tests.models import chain, weights

SAMPLE = 2_000


@pytest.fixture
def small_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Codes are fitted to a sample that is a small part of the filters."""
    monkeypatch.setattr(fits, "sample_size", lambda k, weights: SAMPLE)


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> fdb.Database:
    """Two models in chunks that cut layers; one has filters without a direction."""
    folder = tmp_path_factory.mktemp("codebook")
    dead, flat = trained(16, 8, 3), trained(8, 16, 4)
    dead[::3] = 0
    flat[:, ::2] = flat[:, ::2].mean(axis=(2, 3), keepdims=True)
    chain(folder / "a.onnx", trained(32, 32, 1), trained(64, 32, 2))
    chain(folder / "b.onnx", dead, flat, trained(24, 8, 5, family=1))
    return fdb.ingest(folder / "db", [folder / "a.onnx", folder / "b.onnx"], chunk_rows=700).database


def unit(filters: np.ndarray, normalise: str) -> tuple[np.ndarray, np.ndarray]:
    """Normalised filters, and which have a direction."""
    x = filters.astype(np.float64)
    x = x - x.mean(axis=1, keepdims=True) if normalise == "ax+b" else x
    norm = np.linalg.norm(x, axis=1)
    has_direction = norm > 1e-6 * np.linalg.norm(filters.astype(np.float64), axis=1)
    return x / np.where(has_direction, norm, 1)[:, None], has_direction


def same(result: xr.Dataset, other: xr.Dataset) -> bool:
    return all(result[name].values.tobytes() == other[name].values.tobytes() for name in result.data_vars)


def fresh(db: fdb.Database) -> fdb.Database:
    """The database without the summaries of codebooks."""
    db.files.remove([name for name in db.files.list("summaries") if "/code" in name])
    db.files.remove([name for name in db.files.list("tables") if "/code" in name])
    return fdb.open(db.url)


@pytest.mark.usefixtures("small_sample")
@pytest.mark.parametrize("normalise", NORMALISATION_NAMES)
def test_figures_are_those_of_all_filters(db: fdb.Database, normalise: Normalisation) -> None:
    result = fdb.codebook(db, "layer", k=12, normalise=normalise)
    assert result.attrs["sample"] == SAMPLE and result.attrs["passes"] == 1
    x, has_direction = unit(db.dataset.filters.values, normalise)
    codes = result["codes"].values
    distances = cdist(x, codes, "sqeuclidean")
    index = distances.argmin(axis=1)
    correlation = (x * codes[index]).sum(axis=1) / np.linalg.norm(codes[index], axis=1)
    mean = x[has_direction].mean(axis=0)
    layer = np.repeat(np.arange(db.counts["layers"]), db.layers["row_size"].values)
    for i in range(db.counts["layers"]):
        own = has_direction & (layer == i)
        np.testing.assert_array_equal(result["counts"][i], np.bincount(index[own], minlength=12))
        inertia, total = distances.min(axis=1)[own].sum(), ((x[own] - mean) ** 2).sum()
        assert float(result["inertia"][i]) == pytest.approx(inertia, rel=1e-11)
        assert float(result["total"][i]) == pytest.approx(total, rel=1e-11)
        assert float(result["explained_variance"][i]) == pytest.approx(1 - inertia / total, rel=1e-10)
        np.testing.assert_allclose(result["coverage"][i], [(correlation[own] >= t).mean() for t in THRESHOLDS])
        assert int(result["flat"][i]) == (layer == i).sum() - own.sum()
    assert int(result["flat"].sum()) == (~has_direction).sum() > 0
    # The codes are the means of the filters of the codes before, so that they are close to those of their own.
    moved = np.array([x[has_direction & (index == c)].mean(axis=0) for c in range(12)])
    assert np.abs(moved - codes).max() < 0.1
    assert (np.diff(result["counts"].sum("group").values) <= 0).all()


@pytest.mark.usefixtures("small_sample")
def test_groups_are_parts_of_the_whole(db: fdb.Database) -> None:
    whole = fdb.codebook(db, k=12)
    for by in ("model", "layer", "depth_decile", "model,depth_decile"):
        groups = fdb.codebook(db, by, k=12)
        for name in ("count", "flat", "counts"):
            np.testing.assert_array_equal(groups[name].sum("group"), whole[name][0])
        for name in ("inertia", "total"):
            assert float(groups[name].sum()) == pytest.approx(float(whole[name][0]), rel=1e-12)
        for name in ("codes", "share"):
            np.testing.assert_array_equal(groups[name], whole[name])
        assert groups.attrs["explained_variance"] == pytest.approx(float(whole["explained_variance"][0]), rel=1e-12)
    assert int(whole["counts"].sum() + whole["flat"].sum()) == db.counts["filters"]


@pytest.mark.usefixtures("small_sample")
def test_a_view_has_codes_of_its_own(db: fdb.Database) -> None:
    view = db.select(model=str(db.models["model"].values[1]))
    result = fdb.codebook(view, k=5)
    filters = np.split(db.dataset.filters.values, np.cumsum(db.layers["row_size"].values)[:-1])
    x, has_direction = unit(np.concatenate(filters[2:]), "scale")
    distances = cdist(x[has_direction], result["codes"].values, "sqeuclidean")
    assert float(result["inertia"].sum()) == pytest.approx(distances.min(axis=1).sum(), rel=1e-12)
    assert result.attrs["filters"] == len(x)
    assert not np.array_equal(result["codes"], fdb.codebook(db, k=5)["codes"])


@pytest.mark.usefixtures("small_sample")
def test_a_second_call_reads_no_filter(db: fdb.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fdb.codebook(fresh(db), k=6, seed=3)
    kept = {name for name in db.files.list("summaries") if "/code" in name}
    assert sorted(Path(name).name.rsplit("-v1", 1)[0] for name in kept) == [
        "code-histograms",
        "codebook",
        "codebook-noise",
    ]

    def read(*_: object) -> None:
        raise AssertionError("a chunk was read")

    monkeypatch.setattr(Segment, "_read_columns", read)
    monkeypatch.setattr(fits, "noise_figures", read)
    assert same(fdb.codebook(fdb.open(db.url), k=6, seed=3), first)
    fdb.codebook(fdb.open(db.url), "layer", k=6, seed=3)
    with pytest.raises(AssertionError, match="was read"):
        fdb.codebook(fdb.open(db.url), k=6, seed=4)


@pytest.mark.usefixtures("small_sample")
def test_a_store_that_cannot_be_written(db: fdb.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same answer, kept in memory."""
    first = fdb.codebook(fresh(db), "layer", k=5)
    opened = fresh(db)

    def refuse(*_: object) -> None:
        raise StoreError("read only")

    for name in ("create", "remove"):
        monkeypatch.setattr(Files, name, refuse)
    assert same(fdb.codebook(opened, "layer", k=5), first)
    monkeypatch.setattr(Segment, "_read_columns", None)
    assert same(fdb.codebook(opened, "layer", k=5), first)
    monkeypatch.undo()
    assert not [name for name in db.files.list("summaries") if "/code" in name]


@pytest.mark.usefixtures("small_sample")
def test_chunks_and_schedulers_do_not_matter(db: fdb.Database, tmp_path: Path) -> None:
    results = []
    for scheduler in ("synchronous", "threads"):
        with dask.config.set(scheduler=scheduler, num_workers=2):
            results.append(fdb.codebook(fresh(db), "layer", k=7, passes=2))
    assert same(*results)
    folder = Path(db.url).parent
    one = fdb.ingest(tmp_path / "db", [folder / "a.onnx", folder / "b.onnx"]).database
    other = fdb.codebook(one, "layer", k=7, passes=2)
    np.testing.assert_array_equal(other["counts"], results[0]["counts"])
    np.testing.assert_allclose(other["codes"], results[0]["codes"], rtol=0, atol=1e-13)
    np.testing.assert_allclose(other["inertia"], results[0]["inertia"], rtol=1e-12)


@pytest.mark.slow
@pytest.mark.usefixtures("small_sample")
def test_two_workers_and_s3(db: fdb.Database, two_workers: Client, s3: Callable[[], str]) -> None:
    """The same bytes of every object in a folder and on S3, by threads and by processes."""
    first = fdb.codebook(fresh(db), "layer", k=7)
    objects = {name: db.files.read(name) for name in db.files.list("summaries") if "/code" in name}
    with two_workers.as_current():
        assert same(fdb.codebook(fresh(db), "layer", k=7), first)
    folder = Path(db.url).parent
    remote = fdb.ingest(f"{s3()}/db", [folder / "a.onnx", folder / "b.onnx"], chunk_rows=700).database
    assert same(fdb.codebook(remote, "layer", k=7), first)
    for name, data in objects.items():
        assert db.files.read(name) == data == remote.files.read(name)


@pytest.mark.parametrize("kernel", [(5, 5), (1, 3), (7, 7)], ids=schema.kernel_name)
def test_banks_of_other_shapes(tmp_path: Path, kernel: schema.Kernel) -> None:
    """Passes over chunks that cut layers, one bank on each scheduler."""
    segment, tables, filters = bank(tmp_path, kernel)
    codes = FixedCodes.of(unit(filters, "ax+b")[0][:9] * 0.7, affine=True)
    groups = np.array([0, -1, 0, 0, -1])
    x = unit(filters, "ax+b")[0]
    distances = cdist(x, codes.array, "sqeuclidean")
    index = distances.argmin(axis=1)
    layer = np.repeat(np.arange(len(SIZES)), SIZES)
    by_scheduler = []
    for scheduler in ("synchronous", "threads", "processes") if kernel == (5, 5) else ("threads",):
        tasks = (
            build(segment, tables, [CodeHistograms(codes)]),
            build(segment, {**tables, GROUP_OF_LAYER: groups}, [CodeSumsReduction(codes, "test")]),
        )
        parts = dask.compute(*(task.delayed for task in tasks), scheduler=scheduler)
        by_scheduler.append([part.arrays for (part,) in parts])
    histograms, sums = by_scheduler[0]
    for others in by_scheduler:
        for one, other in zip(by_scheduler[0], others, strict=True):
            assert all(one[name].tobytes() == other[name].tobytes() for name in one)
    for i in range(len(SIZES)):
        np.testing.assert_array_equal(histograms["counts"][i], np.bincount(index[layer == i], minlength=9))
        np.testing.assert_allclose(histograms["inertia"][i], distances.min(axis=1)[layer == i].sum(), rtol=1e-12)
    used = groups[layer] == 0
    np.testing.assert_allclose(sums["sums"][0], [x[used & (index == c)].sum(axis=0) for c in range(9)], atol=1e-11)
    assert sums["counts"].sum() == used.sum()


@pytest.mark.usefixtures("small_sample")
def test_the_bank_of_a_database(tmp_path: Path) -> None:
    """5×5 filters in two of three segments, and a joint density of the same bank."""
    layers = [(weights(40, 40, 1, (5, 5)), weights(8, 40, 2)), (weights(9, 9, 3),), (weights(30, 30, 4, (5, 5)),)]
    for i, layer in enumerate(layers):
        path = chain(tmp_path / f"{i}.onnx", *layer)
        db = fdb.ingest(tmp_path / "db", path, kernels="all", chunk_rows=300, compact=False).database
    bank = db.bank("5x5")
    result = fdb.codebook(bank, "layer", k=6)
    assert result.attrs["kernel"] == "5x5" and result.attrs["filters"] == 2_500 and result.attrs["passes"] == 1
    x, _ = unit(np.concatenate([layers[0][0].reshape(-1, 25), layers[2][0].reshape(-1, 25)]), "scale")
    distances = cdist(x, result["codes"].values, "sqeuclidean")
    index = np.split(distances.argmin(axis=1), [1_600])
    np.testing.assert_array_equal(result["counts"], [np.bincount(part, minlength=6) for part in index])
    assert float(result["inertia"].sum()) == pytest.approx(distances.min(axis=1).sum(), rel=1e-12)
    for name in ("explained_variance", "noise_explained_variance"):
        assert 0 < result.attrs[name] < 0.2
    assert answer("codebook", db.url, "--kernel", "5x5", "-k", 6)["kernel"] == "5x5"
    assert fdb.density(bank, "layer")["counts"].sum(["bin", "other_bin"]).values.tolist() == [1_600, 900]


def test_noise_stands_beside_every_figure(db: fdb.Database, tmp_path: Path) -> None:
    """As many filters of noise as have a direction; real filters are described better, and noise as noise is."""
    result = fdb.codebook(db, "model", k=8)
    assert result.attrs["noise_filters"] == int(result["counts"].sum()) < result.attrs["filters"]
    assert (result["explained_variance"] > result["noise_explained_variance_q95"] + 0.1).all()
    assert (result["noise_explained_variance_q95"] > result["noise_explained_variance"]).all()
    noise = np.random.default_rng(5).standard_normal((64, 128, 3, 3)).astype(np.float32)
    chain(tmp_path / "noise.onnx", noise)
    random = fdb.codebook(fdb.ingest(tmp_path / "db", tmp_path / "noise.onnx").database, k=8)
    assert float(random["explained_variance"][0]) == pytest.approx(
        float(random["noise_explained_variance"][0]), abs=0.01
    )
    np.testing.assert_allclose(random["coverage"], random["noise_coverage"], atol=0.03)
    values = answer("codebook", db.url, "-k", 8, "--by", "model")
    assert values == json.loads(json.dumps(to_answer(result), default=lambda array: array.tolist()))
    for row in values["rows"]:
        assert row["noise_explained_variance"] < row["noise_explained_variance_q95"] < row["explained_variance"]
        assert len(row["noise_coverage"]) == len(row["coverage"]) == len(values["thresholds"])
        assert sum(row["counts"]) + row["flat"] == row["count"]
    assert len(values["codes"]) == 8 and len(values["codes"][0]["weights"]) == 9
    table = run("codebook", db.url, "-k", 8, "--figure", tmp_path / "codes.png").stdout
    header, *_ = (line for line in table.splitlines() if "explained" in line)
    assert header.split() == [
        "group", "filters", "flat", "explained", "noise", "r", "≥", "0.8", "noise", "r", "≥", "0.9", "noise", "r", "≥",
        "0.95", "noise",
    ]  # fmt: skip
    assert (tmp_path / "codes.png").stat().st_size > 1_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k: expected a whole number from 1 to 4,096, got 0"),
        ({"k": 2.0}, "k: expected a whole number from 1 to 4,096, got 2.0"),
        ({"seed": -1}, "seed: expected a whole number"),
        ({"passes": 101}, "passes: expected a whole number from 0 to 100, got 101"),
        ({"normalise": "max"}, "normalise: expected scale or ax\\+b, got 'max'"),
        ({"k": 4_096}, "at least k = 4,096 directions, got 3,"),
    ],
)
def test_wrong_arguments(db: fdb.Database, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fdb.codebook(db, **arguments)
