"""Results with layers, models or groups along a dimension are selected by their labels, the same in every result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import filterdb as fdb
from filterdb.page.first_filters import first_filters
from tests.models import chain, weights


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> fdb.Database:
    """Three models; layers of the same name, and names with slashes."""
    folder = tmp_path_factory.mktemp("layers")
    chain(folder / "a.onnx", weights(40, 30, seed=1), weights(36, 40, seed=2))
    chain(folder / "b.onnx", weights(42, 30, seed=3), weights(33, 40, seed=4))
    chain(folder / "c.onnx", weights(45, 30, seed=5), prefix="b/conv")
    (folder / "list.csv").write_text("path,name,task\na.onnx,a,x\nb.onnx,a/b,y\nc.onnx,c,y\n")
    return fdb.ingest(folder / "db", catalog=folder / "list.csv", chunk_rows=100).database


RESULTS: dict[str, Callable[[fdb.Database], xr.Dataset | None]] = {
    "layers": lambda db: db.layers,
    "degeneration": fdb.degeneration,
    "explain": lambda db: fdb.explain(db, "task", "x", "y"),
    "first filters": first_filters,
    "drift": lambda db: fdb.drift(db, by="layer").rename(group="layer"),
    "pca": lambda db: fdb.pca(db, by="layer").rename(group="layer"),
    "filter_scale": lambda db: fdb.filter_scale(db, by="layer").rename(group="layer"),
    "spectrum": lambda db: fdb.spectrum(db, by="layer").rename(group="layer"),
    "density": lambda db: fdb.density(db, by="layer").rename(group="layer"),
    "codebook": lambda db: fdb.codebook(db, by="layer", k=8).rename(group="layer"),
    "phenotypes": lambda db: fdb.phenotypes(db, by="layer", pairs=[]).rename(group="layer"),
}


@pytest.mark.parametrize("name", RESULTS)
@pytest.mark.parametrize("view", [False, True])
def test_layer_is_an_index(db: fdb.Database, name: str, view: bool) -> None:
    result = RESULTS[name](db.select(layer=["a/conv1", "a/b/conv0", "c/b/conv0"]) if view else db)
    assert result is not None
    labels = ["a/conv1", "a/b/conv0", "c/b/conv0"]
    labels = labels if view else ["a/conv0", "a/conv1", "a/b/conv0", "a/b/conv1", "c/b/conv0"]
    assert sorted(result["layer"].values.tolist()) == sorted(labels)
    for label in labels:
        position = result["layer"].values.tolist().index(label)
        xr.testing.assert_identical(result.sel(layer=label), result.isel(layer=position))
        if "layer_name" in result and "layer_model" in result:
            one = result.sel(layer=label)
            assert f"{one['layer_model'].item()}/{one['layer_name'].item()}" == label


def test_one_label_for_a_layer_everywhere(db: fdb.Database) -> None:
    """What one result says of a layer is looked up in another by the same label, and so are its filters."""
    degenerated, drifted = fdb.degeneration(db), fdb.drift(db, by="layer")
    for label in degenerated["layer"].values:
        number = degenerated["filters"].sel(layer=label).item()
        assert number == drifted["count"].sel(group=label).item() == db.layers["row_size"].sel(layer=label).item()
        rows = db.dataset.sel(layer=label).filters.values
        np.testing.assert_array_equal(rows, db.select(layer=label).dataset.filters.values)
        assert len(rows) == number


@pytest.mark.parametrize("name", ["degeneration", "explain", "nearest"])
def test_model_is_an_index(db: fdb.Database, name: str, tmp_path: Path) -> None:
    path = chain(tmp_path / "q.onnx", weights(40, 30, seed=9))
    result = {
        "degeneration": lambda: fdb.degeneration(db.select(task="y")),
        "explain": lambda: fdb.explain(db, "task", "x", "y"),
        "nearest": lambda: fdb.nearest(db, path),
    }[name]()
    for i, model in enumerate(result["model"].values):
        xr.testing.assert_identical(result.sel(model=model), result.isel(model=i))
    assert db.models.sel(model="a/b")["layers"].item() == 2


def test_layers_of_files(tmp_path: Path) -> None:
    """FILE:LAYER, as a duplicate is called; distinct where two read the same."""
    one = chain(tmp_path / "a.onnx", weights(8, 8, seed=1), weights(8, 8, seed=2))
    other = chain(tmp_path / "b.onnx", weights(8, 8, seed=1))
    result = fdb.check([one, other])
    assert result["layer"].values.tolist() == [f"{one}:conv0", f"{one}:conv1", f"{other}:conv0"]
    duplicate = result.sel(layer=f"{other}:conv0")
    assert duplicate["layer_name"].item() == "conv0"
    assert result.sel(layer=duplicate["duplicate_of"].item())["layer_file"].item() == str(one)


@pytest.mark.parametrize("view", [False, True])
def test_untrained_models_of_a_view(db: fdb.Database, view: bool) -> None:
    """Models are matched by name: a view counts its own."""
    whole = fdb.degeneration(db)["untrained"]
    part = fdb.degeneration(db.select(model=["a/b", "c"]) if view else db)["untrained"]
    assert part.equals(whole.sel(model=["a/b", "c"]) if view else whole)


def test_saved_and_opened(db: fdb.Database, tmp_path: Path) -> None:
    result = fdb.degeneration(db)
    result.to_zarr(tmp_path / "result.zarr", consolidated=False)
    opened = xr.open_zarr(tmp_path / "result.zarr", consolidated=False).load()
    assert opened["sparsity"].sel(layer="a/conv1").item() == result["sparsity"].sel(layer="a/conv1").item()
