"""Every usual xarray idiom on `db.dataset` has the rows and labels that NumPy has for it, or fails with the remedy."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from distributed import Client

import filterdb as fdb
from filterdb.errors import UsageError
from filterdb.store import run_length
from filterdb.store.run_length import RunLengthArray
from tests.models import chain, weights
from tests.store.labelled import MODELS, Act, Expected, Truth

pytestmark = pytest.mark.slow

DET = "detection"


def detection(truth: Truth) -> np.ndarray:
    return truth.where(task=DET)


def everything(truth: Truth) -> np.ndarray:
    return truth.filters


def masked(truth: Truth) -> np.ndarray:
    return np.where((truth.labels["task"] == DET)[:, None], truth.filters, np.float32(np.nan))


def stable(truth: Truth, *names: str) -> np.ndarray:
    return truth.filters[np.lexsort([truth.labels[name] for name in reversed(names)])]


def mean(filters: np.ndarray) -> np.ndarray:
    return filters.mean(axis=0, dtype=np.float64)


def freed(ds: xr.Dataset) -> xr.Dataset:
    return ds.drop_indexes(list(ds.xindexes))


NOT_ALIGNED = r"Cannot align two selections of filters by labels.*xr\.concat"
CORRUPTS = r"would corrupt the following index[\s\S]*first ds\.drop_indexes\(list\(ds\.xindexes\)\)"
NO_PANDAS = r"Filters have no pandas index.*first ds\.drop_indexes\(list\(ds\.xindexes\)\)"
NO_DIMENSION = "Dimensions {'(layer|model)'} do not exist"

IDIOMS: dict[str, tuple[Act, Expected]] = {
    # Selecting by label.
    "sel": (lambda ds: ds.sel(task=DET), detection),
    "sel of one range": (lambda ds: ds.sel(model="B"), lambda t: t.where(model="B")),
    "sel layer": (lambda ds: ds.sel(layer="C/conv1"), lambda t: t.where(layer="C/conv1")),
    "sel layers": (
        lambda ds: ds.sel(layer=["C/conv1", "B/conv0"]),
        lambda t: np.concatenate([t.where(layer="C/conv1"), t.where(layer="B/conv0")]),
    ),
    "sel two labels": (lambda ds: ds.sel(task=DET, conv_depth=1), lambda t: t.where(task=DET, conv_depth=1)),
    "sel twice": (lambda ds: ds.sel(task=DET).sel(conv_depth=1), lambda t: t.where(task=DET, conv_depth=1)),
    "sel list": (
        lambda ds: ds.sel(model=["C", "B"]),
        lambda t: np.concatenate([t.where(model="C"), t.where(model="B")]),
    ),
    "sel nothing": (lambda ds: ds.sel(model=[]), lambda t: t.filters[:0]),
    "sel slice": (lambda ds: ds.sel(conv_depth=slice(1, None)), lambda t: t.where(conv_depth=1)),
    "sel float slice": (lambda ds: ds.sel(conv_depth_norm=slice(0.5, 1)), lambda t: t.where(conv_depth=1)),
    "sel array": (lambda ds: ds.sel(task=xr.DataArray(DET)), detection),
    "sel filter": (lambda ds: ds.sel(filter=slice(2, 9)), lambda t: t.filters[2:9]),
    "sel drop": (lambda ds: ds.sel(task=DET, drop=True), detection),
    "sel missing": (lambda ds: ds.sel(task="x"), "expected filters with task = 'x', found none; task has"),
    "sel missing in list": (lambda ds: ds.sel(model=["B", "x"]), "expected filters with model = 'x', found none"),
    "sel both missing": (lambda ds: ds.sel(model="B", conv_depth=9), "conv_depth = 9, found none; conv_depth has 0"),
    "sel nearest": (lambda ds: ds.sel(conv_depth=3, method="nearest"), "labels of filters match exactly"),
    "sel slice of text": (lambda ds: ds.sel(task=slice("a", "d")), "slices are for numbers"),
    "sel pointwise": (lambda ds: ds.sel(task=xr.DataArray([DET], dims="p")), "got an array along p"),
    "sel by unknown": (lambda ds: ds.sel(tusk=DET), "tusk"),
    "loc": (lambda ds: ds.loc[{"task": DET}], detection),
    "DataArray.sel": (lambda ds: ds.filters.sel(task=DET), detection),
    "DataArray.loc": (lambda ds: ds.filters.loc[{"task": DET}], detection),
    "drop_sel": (lambda ds: ds.drop_sel(task=DET), "dimension 'task' does not have coordinate labels"),
    # Selecting by position: labels follow.
    "isel": (lambda ds: ds.isel(filter=slice(20, 40)), lambda t: t.filters[20:40]),
    "isel then sel": (
        lambda ds: ds.isel(filter=slice(1, -1)).sel(model="B"),
        lambda t: t.filters[1:-1][t.labels["model"][1:-1] == "B"],
    ),
    "isel list": (lambda ds: ds.isel(filter=[3, -1, 20, 3]), lambda t: t.filters[[3, -1, 20, 3]]),
    "isel step": (lambda ds: ds.isel(filter=slice(None, None, -7)), lambda t: t.filters[::-7]),
    "isel one": (lambda ds: ds.isel(filter=-1), lambda t: t.filters[-1]),
    "isel empty": (lambda ds: ds.isel(filter=[]), lambda t: t.filters[:0]),
    "isel shuffled": (
        lambda ds: ds.isel(filter=np.random.default_rng(1).permutation(ds.sizes["filter"])),
        lambda t: t.filters[np.random.default_rng(1).permutation(len(t.filters))],
    ),
    "isel pointwise": (
        lambda ds: ds.isel(filter=xr.DataArray([[1, 2], [20, 0]], dims=("a", "b"))),
        lambda t: t.filters[[[1, 2], [20, 0]]],
    ),
    "isel along p": (lambda ds: ds.isel(filter=xr.DataArray([1, 20], dims="p")), lambda t: t.filters[[1, 20]]),
    "isel beyond": (lambda ds: ds.isel(filter=[1_000]), "out of bounds"),
    "isel layer": (lambda ds: ds.isel(layer=0), NO_DIMENSION),
    "isel model": (lambda ds: ds.isel(model=[0]), NO_DIMENSION),
    "DataArray[]": (lambda ds: ds.filters[5:30, 2:4], lambda t: t.filters[5:30, 2:4]),
    "head": (lambda ds: ds.head(filter=18), lambda t: t.filters[:18]),
    "tail": (lambda ds: ds.tail(filter=18), lambda t: t.filters[-18:]),
    "thin": (lambda ds: ds.thin(filter=7), lambda t: t.filters[::7]),
    "drop_isel": (lambda ds: ds.drop_isel(filter=[0, 1, 20]), lambda t: np.delete(t.filters, [0, 1, 20], axis=0)),
    "squeeze": (lambda ds: ds.isel(filter=[3]).squeeze(), lambda t: t.filters[3]),
    # Masks.
    "where": (lambda ds: ds.where(ds.task == DET), masked),
    "where drop": (lambda ds: ds.where(ds.task == DET, drop=True), detection),
    "where function": (lambda ds: ds.where(lambda d: d.task == DET, drop=True), detection),
    "where other": (
        lambda ds: ds.filters.where(ds.task == DET, 0),
        lambda t: np.where((t.labels["task"] == DET)[:, None], t.filters, np.float32(0)),
    ),
    "xr.where": (lambda ds: xr.where(ds.task == DET, ds.filters, np.float32(np.nan)), masked),
    "mask": (lambda ds: ds.filters[ds.task == DET], detection),
    "mask of two": (
        lambda ds: ds.filters[(ds.task == DET) & (ds.conv_depth >= 1)],
        lambda t: t.where(task=DET, conv_depth=1),
    ),
    "mask negated": (lambda ds: ds.filters[~(ds.task == DET)], lambda t: t.filters[t.labels["task"] != DET]),
    "mask of parts": (
        lambda ds: ds.filters[1:][(ds.task[1:] == DET) & (ds.conv_depth[1:] == 0)],
        lambda t: t.filters[1:][(t.labels["task"][1:] == DET) & (t.labels["conv_depth"][1:] == 0)],
    ),
    "mask isel": (lambda ds: ds.isel(filter=ds.task == DET), detection),
    "mask of values": (lambda ds: ds.isel(filter=(ds.task == DET).values), detection),
    "isin": (lambda ds: ds.filters[ds.task.isin([DET])], detection),
    "flatnonzero": (lambda ds: ds.isel(filter=np.flatnonzero(ds.task == DET)), detection),
    "dropna": (lambda ds: ds.where(ds.task == DET).dropna("filter"), detection),
    "query": (lambda ds: ds.query(filter="task == 'detection'"), CORRUPTS),
    "query without index": (lambda ds: freed(ds).query(filter="task == 'detection'"), detection),
    # Groups.
    "groupby mean": (lambda ds: ds.groupby("task").mean(), lambda t: t.by("task", mean)),
    "groupby mean filter": (lambda ds: ds.groupby("layer").mean("filter"), lambda t: t.by("layer", mean)),
    "groupby DataArray": (lambda ds: ds.filters.groupby(ds.task).mean("filter"), lambda t: t.by("task", mean)),
    "groupby count": (lambda ds: ds.groupby("model").count(), lambda t: t.by("model", lambda f: np.full(9, len(f)))),
    "groupby map": (
        lambda ds: ds.groupby("task").map(lambda g: g - g.mean("filter")),
        lambda t: t.each("task", lambda f: f - mean(f)),
    ),
    "groupby arithmetic": (
        lambda ds: ds.groupby("task") - ds.groupby("task").mean("filter"),
        lambda t: t.each("task", lambda f: f - mean(f)),
    ),
    "groupby reduce": (
        lambda ds: ds.groupby("layer").map(lambda g: g.max("filter")),
        lambda t: t.by("layer", lambda f: f.max(axis=0)),
    ),
    "groupby first": (lambda ds: ds.groupby("model").first(), lambda t: t.by("model", lambda f: f[0])),
    "groupby quantile": (
        lambda ds: ds.load().groupby("task").quantile(0.25, "filter"),
        lambda t: t.by("task", lambda f: np.quantile(f, 0.25, axis=0)),
    ),
    "groupby two": (
        lambda ds: ds.groupby(["task", "model"]).mean("filter").sel(task=DET, model="C"),
        lambda t: mean(t.where(model="C")),
    ),
    "groupby_bins": (
        lambda ds: ds.groupby_bins("conv_depth", [-1, 0, 1]).mean("filter"),
        lambda t: t.by("conv_depth", mean),
    ),
    "groupby one": (lambda ds: ds.groupby("model")["B"], lambda t: t.where(model="B")),
    "groupby each": (
        lambda ds: xr.concat([group for _, group in ds.groupby("model")], "filter"),
        lambda t: stable(t, "model"),
    ),
    "groupby cumsum": (
        lambda ds: ds.groupby("task").cumsum("filter"),
        lambda t: t.each("task", lambda f: np.cumsum(f, axis=0)),
    ),
    "groupby shuffled": (lambda ds: ds.groupby("task").shuffle_to_chunks(), lambda t: stable(t, "task")),
    "groupby chunked": (lambda ds: ds.chunk(filter=7).groupby("task"), "Please pass `labels`"),
    "weighted": (
        lambda ds: ds.filters.weighted(ds.conv_depth + 1).mean("filter"),
        lambda t: np.average(t.filters, axis=0, weights=t.labels["conv_depth"] + 1),
    ),
    "mean": (lambda ds: ds.mean("filter"), lambda t: mean(t.filters)),
    "count a label": (lambda ds: (ds.task == DET).sum(), lambda t: np.array((t.labels["task"] == DET).sum())),
    "unique": (lambda ds: ds.sel(task=np.unique(ds.task)), lambda t: stable(t, "task")),
    "max of a label": (lambda ds: ds.conv_depth.max(), lambda t: t.labels["conv_depth"].max()),
    "times a label": (lambda ds: ds.filters * ds.conv_depth, lambda t: t.filters * t.labels["conv_depth"][:, None]),
    # Order.
    "sortby": (lambda ds: ds.sortby("task"), lambda t: stable(t, "task")),
    "sortby two": (lambda ds: ds.sortby(["conv_depth", "task"]), lambda t: stable(t, "conv_depth", "task")),
    "sortby descending": (
        lambda ds: ds.sortby("conv_depth", ascending=False),
        lambda t: stable(t, "conv_depth")[::-1],
    ),
    "argsort": (
        lambda ds: ds.isel(filter=np.argsort(ds.task.values, kind="stable")),
        lambda t: stable(t, "task"),
    ),
    "roll": (lambda ds: ds.roll(filter=30, roll_coords=True), lambda t: np.roll(t.filters, 30, axis=0)),
    "diff": (lambda ds: ds.filters.diff("filter"), lambda t: np.diff(t.filters, axis=0)),
    "shift": (lambda ds: ds.shift(filter=1)["filters"][1:].data, lambda t: t.filters[:-1]),
    "pad": (
        lambda ds: ds.pad(filter=(1, 2)),
        lambda t: np.pad(t.filters, ((1, 2), (0, 0)), constant_values=np.float32(np.nan)),
    ),
    "coarsen": (lambda ds: ds.coarsen(filter=2, boundary="trim").mean(), "could not convert string to float"),
    "rolling": (
        lambda ds: ds.rolling(filter=2).mean()["filters"][1:].data,
        lambda t: (t.filters[1:] + t.filters[:-1]) / 2,
    ),
    # Two datasets.
    "concat": (
        lambda ds: xr.concat([ds.sel(model="B"), ds.sel(model="C")], "filter"),
        lambda t: np.concatenate([t.where(model="B"), t.where(model="C")]),
    ),
    "concat then sel": (
        lambda ds: xr.concat([ds, ds], "filter").sel(task=DET),
        lambda t: np.concatenate([detection(t)] * 2),
    ),
    "concat along another": (lambda ds: xr.concat([ds, ds], "run"), lambda t: np.stack([t.filters] * 2)),
    "combine_nested": (
        lambda ds: xr.combine_nested([ds.sel(model="C"), ds.sel(model="B")], "filter"),
        lambda t: np.concatenate([t.where(model="C"), t.where(model="B")]),
    ),
    "combine_by_coords": (
        lambda ds: xr.combine_by_coords([ds.sel(model="C"), ds.sel(model="B")]),
        "Could not find any dimension coordinates",
    ),
    "add": (lambda ds: ds + ds.copy(deep=True), lambda t: 2 * t.filters),
    "add other": (lambda ds: ds + ds.sel(task=DET), NOT_ALIGNED),
    "subtract others of the same number": (lambda ds: ds.filters[:9] - ds.filters[-9:], NOT_ALIGNED),
    "subtract by position": (
        lambda ds: ds.filters[:9].drop_vars(list(ds.coords)) - ds.filters[-9:].drop_vars(list(ds.coords)),
        lambda t: t.filters[:9] - t.filters[-9:],
    ),
    "merge same": (lambda ds: xr.merge([ds, ds.rename(filters="more")])["more"], everything),
    "merge others": (lambda ds: xr.merge([ds.sel(model="B"), ds.sel(model="C")], join="outer"), NOT_ALIGNED),
    "align": (lambda ds: xr.align(ds, ds.sel(task=DET)), NOT_ALIGNED),
    "align outer": (lambda ds: xr.align(ds, ds.sel(task=DET), join="outer"), NOT_ALIGNED),
    "align left": (lambda ds: xr.align(ds, ds.sel(task=DET), join="left"), NOT_ALIGNED),
    "align exact": (lambda ds: xr.align(ds, ds.sel(task=DET), join="exact"), "cannot align objects with join='exact'"),
    "align override": (lambda ds: xr.align(ds, ds.sel(task=DET), join="override"), "don't have the same size"),
    "combine_first": (lambda ds: ds.combine_first(ds.sel(task=DET)), NOT_ALIGNED),
    "update": (lambda ds: ds.copy().update(ds.sel(task=DET)), NOT_ALIGNED),
    "assign": (lambda ds: ds.assign(more=ds.sel(task=DET).filters), "cannot reindex or align|Cannot align"),
    "reindex": (lambda ds: ds.reindex(filter=[1, 2]), "conflicting sizes for dimension 'filter'"),
    "reindex label": (lambda ds: ds.reindex(task=[DET]), "conflicting indexes"),
    "reindex_like": (lambda ds: ds.reindex_like(ds.sel(task=DET)), NOT_ALIGNED),
    "interp": (lambda ds: ds.interp(filter=[1.5]), "conflicting sizes for dimension 'filter'"),
    # The same dataset in another form.
    "copy": (lambda ds: ds.copy(deep=True).sel(task=DET), detection),
    "deepcopy": (lambda ds: copy.deepcopy(ds).sel(task=DET), detection),
    "pickle": (lambda ds: pickle.loads(pickle.dumps(ds)).sel(task=DET), detection),
    "load": (lambda ds: ds.load().sel(task=DET), detection),
    "compute": (lambda ds: ds.compute().where(ds.task == DET, drop=True), detection),
    "chunk": (lambda ds: ds.chunk(filter=7).sel(task=DET), detection),
    "persist": (lambda ds: ds.persist().sel(task=DET), detection),
    "map_blocks": (lambda ds: ds.map_blocks(lambda d: d, template=ds), NO_PANDAS),
    "map_blocks without index": (
        lambda ds: freed(ds).map_blocks(lambda d: d.where(d.task == DET), template=freed(ds)),
        masked,
    ),
    "apply_ufunc": (lambda ds: xr.apply_ufunc(np.abs, ds.sel(task=DET), dask="allowed"), lambda t: abs(detection(t))),
    "transpose": (lambda ds: ds.transpose("weight", "filter").sel(task=DET), lambda t: detection(t).T),
    "expand_dims": (lambda ds: ds.expand_dims("run").sel(task=DET), lambda t: detection(t)[None]),
    "stack": (lambda ds: ds.stack(z=("filter", "weight")).sel(task=DET), lambda t: detection(t).ravel()),
    "rename": (lambda ds: ds.rename(task="kind", filter="row").sel(kind=DET), detection),
    "rename_dims": (lambda ds: ds.rename_dims(filter="row").isel(row=slice(9, 30)), lambda t: t.filters[9:30]),
    "to_dataarray": (lambda ds: ds.to_dataarray().sel(task=DET), lambda t: detection(t)[None]),
    "DataTree.sel": (lambda ds: xr.DataTree(ds).sel(task=DET), "Dimensions {'task'} do not exist"),
    "DataTree.isel": (lambda ds: xr.DataTree(ds).isel(filter=slice(9, 30)).to_dataset(), lambda t: t.filters[9:30]),
    "to_dataframe": (lambda ds: ds.to_dataframe().query("task == 'detection'"), "name 'task' is not defined"),
    "to_dataframe without index": (
        lambda ds: freed(ds).to_dataframe().query("task == 'detection'")["filters"].to_numpy().reshape(-1, 9),
        detection,
    ),
    "to_index": (lambda ds: ds.filters[np.flatnonzero(ds.task.to_index() == DET)], detection),
    # Other indexes and labels.
    "swap_dims": (lambda ds: ds.swap_dims(filter="task").isel(task=[0]), r"use ds\.set_index\(filter=name\)"),
    "set_index": (lambda ds: ds.set_index(filter="task").sel(filter=DET), detection),
    "reset_index": (lambda ds: ds.reset_index("task").isel(filter=slice(9, 30)), lambda t: t.filters[9:30]),
    "set_xindex": (lambda ds: ds.set_xindex("task").sel(task=DET), detection),
    "drop_indexes": (lambda ds: freed(ds).where(freed(ds).task == DET, drop=True), detection),
    "drop a label": (lambda ds: ds.drop_vars("paper"), CORRUPTS),
    "drop a label without index": (lambda ds: freed(ds).drop_vars("paper").isel(filter=[1]), lambda t: t.filters[[1]]),
    "drop labels": (lambda ds: ds.drop_vars(list(ds.coords)), everything),
    "reset_coords": (lambda ds: ds.reset_coords("task"), "cannot remove index coordinates"),
    "replace a label": (lambda ds: ds.assign_coords(task=("filter", ds.conv_depth.data)), CORRUPTS),
    "add a label": (lambda ds: ds.assign_coords(det=ds.task == DET).sel(task=DET), detection),
    "add a filter index": (
        lambda ds: ds.assign_coords(filter=np.arange(ds.sizes["filter"])).sel(filter=[3, 20]),
        lambda t: t.filters[[3, 20]],
    ),
    "set a label": (lambda ds: ds.task.__setitem__(0, "x"), "read-only: change them in the database with fdb.relabel"),
    "indexes": (lambda ds: ds.indexes, NO_PANDAS),
}  # fmt: skip


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> fdb.Database:
    """Models A and B in one segment, C in another; chunks of 10 rows, layers across up to five of them."""
    folder = tmp_path_factory.mktemp("labels")
    for models in ("AB", "C"):
        rows = ["path,name,task"]
        for name in models:
            task, layers = MODELS[name]
            chain(folder / f"{name}.onnx", *layers)
            rows.append(f"{name}.onnx,{name},{task}")
        (folder / "list.csv").write_text("\n".join(rows))
        db = fdb.ingest(folder / "db", catalog=folder / "list.csv", chunk_rows=10).database
    return db


@pytest.fixture(scope="module")
def removed(database: fdb.Database) -> fdb.Database:
    """The same without A, in the middle of whose segment its rows stay."""
    whole = fdb.open(database.url)
    return fdb.remove(whole, ["A"])


@pytest.fixture(params=["whole", "view", "removed"])
def case(request: pytest.FixtureRequest, database: fdb.Database, removed: fdb.Database) -> tuple[xr.Dataset, Truth]:
    """A dataset, and what is in it."""
    if request.param == "whole":
        return database.dataset.copy(), Truth.of("ABC")
    if request.param == "removed":
        return removed.dataset.copy(), Truth.of("BC")
    view = database.select(model=["A", "B", "C"], layer=["A/conv0", "B/conv0", "C/conv0", "C/conv1"])
    whole = Truth.of("ABC")
    kept = whole.labels["layer"] != "A/conv1"
    return view.dataset.copy(), Truth(whole.filters[kept], {name: label[kept] for name, label in whole.labels.items()})


@pytest.mark.parametrize("idiom", IDIOMS)
def test_idiom_is_right_or_fails(case: tuple[xr.Dataset, Truth], idiom: str) -> None:
    dataset, truth = case
    act, expected = IDIOMS[idiom]
    if isinstance(expected, str):
        with pytest.raises(Exception, match=expected):
            act(dataset)
        return
    result = act(dataset)
    result = result["filters"] if isinstance(result, xr.Dataset) else result
    np.testing.assert_allclose(np.asarray(result), expected(truth), rtol=1e-5, atol=1e-5)
    if isinstance(result, xr.DataArray):
        check_labels(result, truth)


def check_labels(filters: xr.DataArray, truth: Truth) -> None:
    """Compare the labels of every row that is one of the database's with those that NumPy has for it."""
    if filters.ndim != 2 or filters.dims[1] != "weight":
        return
    rows = {row.tobytes(): i for i, row in enumerate(truth.filters)}
    of_row = [rows.get(row.tobytes()) for row in filters.values]
    for name, label in truth.labels.items():
        if name in filters.coords and filters[name].dims == filters.dims[:1]:
            for value, row in zip(filters[name].values, of_row, strict=True):
                assert row is None or value == label[row]


def test_wrong_labels_are_noticed(database: fdb.Database) -> None:
    result = database.dataset.isel(filter=[90, 3]).filters
    assert result["layer"].values.tolist() == ["C/conv0", "A/conv0"]
    check_labels(result, Truth.of("ABC"))
    with pytest.raises(AssertionError):
        check_labels(result.copy(data=result.values[::-1]), Truth.of("ABC"))


def test_the_real_models(real_db: fdb.Database) -> None:
    """The numbers that the dataset had wrong: rows of a task, means of tasks."""
    dataset, sizes = real_db.dataset, real_db.layers["row_size"].values
    task = np.repeat(real_db.layers["task"].values, sizes)
    filters = dataset.filters.values.astype(np.float64)
    assert dataset.sel(task="classification").filters.shape == (314_368, 9)
    assert dataset.where(dataset.task == "classification", drop=True).sizes["filter"] == 314_368
    means = dataset.astype(np.float64).groupby("task").mean()
    for name in np.unique(task):
        expected = filters[task == name]
        np.testing.assert_array_equal(dataset.sel(task=name).filters.values, expected)
        np.testing.assert_allclose(means.filters.sel(task=name), expected.mean(axis=0), rtol=1e-9, atol=1e-12)
    for label in ("layer", "conv_depth_norm", "groups", "hash"):
        np.testing.assert_array_equal(dataset[label].values, np.repeat(real_db.layers[label].values, sizes))


def test_on_worker_processes(database: fdb.Database, two_workers: Client) -> None:
    truth = Truth.of("ABC")
    with two_workers.as_current():
        selected = database.dataset.sel(task=DET).filters
        means = database.dataset.groupby("task").mean()
        kept = database.dataset.where(database.dataset.conv_depth == 1).filters.max("filter")
        np.testing.assert_array_equal(selected.values, detection(truth))
        np.testing.assert_allclose(means.filters.values, truth.by("task", mean), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(kept.values, truth.where(conv_depth=1).max(axis=0))


def test_on_an_object_store(tmp_path: Path, s3: Callable[[], str]) -> None:
    chain(tmp_path / "A.onnx", *MODELS["A"][1])
    chain(tmp_path / "B.onnx", *MODELS["B"][1])
    db = fdb.ingest(f"{s3()}/db", [tmp_path / "A.onnx", tmp_path / "B.onnx"], chunk_rows=10).database
    rows = db.dataset.sel(layer=f"{tmp_path}/B.onnx/conv0").filters
    np.testing.assert_array_equal(rows.values, Truth.of("B").filters)


def test_two_databases(database: fdb.Database, tmp_path: Path) -> None:
    """One after another they are one dataset; with labels of their own they are told so."""
    other = chain(tmp_path / "D.onnx", weights(5, 5, seed=9))
    more = fdb.ingest(tmp_path / "db", [other], chunk_rows=10).database
    both = xr.concat([database.dataset, more.dataset], "filter", combine_attrs="drop")
    np.testing.assert_array_equal(both.sel(model=str(other)).filters.values, weights(5, 5, seed=9).reshape(-1, 9))
    np.testing.assert_array_equal(both.sel(task=DET).filters.values, detection(Truth.of("ABC")))
    (tmp_path / "list.csv").write_text("path,year\nD.onnx,2020\n")
    labelled = fdb.ingest(tmp_path / "labelled", catalog=tmp_path / "list.csv").database
    with pytest.raises(UsageError, match="expected datasets with the same labels, got year in some only"):
        xr.concat([database.dataset, labelled.dataset], "filter")


def test_saved_and_opened(database: fdb.Database, tmp_path: Path) -> None:
    """A copy as plain Zarr has every label of every filter, and needs no filterdb to select by them."""
    dataset = database.dataset
    dataset.chunk(filter=20).to_zarr(tmp_path / "copy.zarr", consolidated=False)
    opened = xr.open_zarr(tmp_path / "copy.zarr", consolidated=False).load()
    for name in dataset.coords:
        np.testing.assert_array_equal(opened[name].values, dataset[name].values)
    kept = opened.where(opened["task"] == DET, drop=True)
    np.testing.assert_array_equal(kept.filters.values, detection(Truth.of("ABC")))
    with pytest.raises(ValueError, match=r"Consider rechunking using `chunk\(\)`"):
        dataset.to_zarr(tmp_path / "uneven.zarr")
    dataset.sel(model="B").load().to_zarr(tmp_path / "part.zarr", consolidated=False)
    part = xr.open_zarr(tmp_path / "part.zarr", consolidated=False)
    np.testing.assert_array_equal(part.filters.values, Truth.of("B").filters)


def test_blocks_stay_those_of_the_store(database: fdb.Database) -> None:
    dataset = database.dataset
    chunks = (10,) * 8 + (8, 10, 10, 1)
    assert dataset.filters.chunks == (chunks, (9,))
    assert dataset.where(dataset.task == DET).filters.chunks == (chunks, (9,))
    assert (dataset.filters * dataset.conv_depth).chunks == (chunks, (9,))
    assert len(dict(dataset.filters.data.dask)) == 2 * len(chunks)
    one = dataset.sel(model="B").filters  # rows 72 to 88
    assert one.chunks == ((8, 8), (9,))
    assert max(dataset.sel(task=DET).filters.chunks[0]) <= 10
    assert isinstance(dataset["task"].variable._data, RunLengthArray)
    assert isinstance(dataset.sel(task=DET).load()["task"].variable._data, RunLengthArray)


def test_as_many_as_may_be_written_out(database: fdb.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = database.dataset
    monkeypatch.setattr(run_length, "MAX_EXPANDED", 109)
    assert len(dataset.task.values) == 109
    assert dataset.sel(task=DET).sizes["filter"] == 93
    monkeypatch.setattr(run_length, "MAX_EXPANDED", 92)
    with pytest.raises(UsageError, match="109 filters are too many to hold a label of each"):
        _ = dataset.task.values
    with pytest.raises(UsageError, match="93 filters are too many to hold the position of each"):
        dataset.sel(task=DET)
    assert dataset.sel(model="A").sizes["filter"] == 72  # lies together
