"""`Columns` against xarray, which does the same with a Dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import filterdb as fdb
from filterdb.columns import Columns
from tests.commands.running import run
from tests.models import chain, weights

DATA: dict[str, Any] = {
    "drift": (("component", "model"), np.arange(6.0).reshape(2, 3), {"long_name": "drift"}),
    "count": ("model", np.array([1, 2, 3])),
}
COORDS: dict[str, Any] = {
    "model": np.array(["a", "b", "c"], object),
    "decile": ["low", "high"],
    "task": ("model", ["x", "y", "x"]),
}


@pytest.mark.parametrize("index", [1, np.array([2, 0]), np.array([True, False, True])])
def test_positions_are_selected_as_in_a_dataset(index: Any) -> None:
    columns, dataset = Columns.of(DATA, COORDS, {"by": "all"}), xr.Dataset(DATA, COORDS, {"by": "all"})
    assert columns.to_dataset().identical(dataset)
    assert list(columns.variables) == list(dataset.variables)
    assert columns.isel(model=index).to_dataset().identical(dataset.isel(model=index))
    assert columns.sizes == dict(dataset.sizes)


def test_assigned_columns_replace_those_of_the_same_name() -> None:
    columns, dataset = Columns.of(DATA, COORDS, {}), xr.Dataset(DATA, COORDS)
    new = {"count": ("model", np.array([4, 5, 6]), {"units": "1"}), "rank": ("model", np.array([0, 1, 2]))}
    assert columns.assign(**new).to_dataset().identical(dataset.assign(new))
    assert columns.to_dataset().identical(dataset)


def test_tables_of_a_view_are_those_that_xarray_selects(tmp_path: Path) -> None:
    """Three segments, of whose models one is removed, one relabelled, and one without layers."""
    for name in "abc":
        chain(tmp_path / f"{name}.onnx", weights(6, 5, ord(name)), weights(4, 6, 1))
    chain(tmp_path / "none.onnx", weights(6, 5, 1, (1, 1)))
    (tmp_path / "labels.csv").write_text("path,name,task,licence\nb.onnx,b.onnx,detection,MIT\n")
    for name in ("a", "b", "none", "c"):
        run("ingest", "db", f"{name}.onnx", "--no-compact", cwd=tmp_path)
    run("relabel", "db", "--catalog", "labels.csv", cwd=tmp_path)
    run("remove", "db", "a.onnx", cwd=tmp_path)
    db = fdb.open(tmp_path / "db")
    assert db.models["model"].values.tolist() == ["b.onnx", "none.onnx", "c.onnx"]
    assert db.models["layers"].values.tolist() == [2, 0, 2]
    assert db.models["licence"].values.tolist() == ["MIT", "unknown", "unknown"]
    of_layer = db.models.isel(model=xr.DataArray(db.layers["model_index"].values, dims="layer"))
    for name in ("model", "task", "licence", "source_format"):
        assert db.layers[name].variable.identical(of_layer[name].variable.to_base_variable()), name
    view = db.select(task="unknown")
    expected = db.layers.isel(layer=db.layers["task"].values == "unknown")
    assert view.layers.drop_vars("model_index").identical(expected.drop_vars("model_index"))
    assert view.models["model"].values[view.layers["model_index"].values].tolist() == ["c.onnx"] * 2
    for columns, table in (
        (view.layer_columns, view.layers), (view.model_columns, view.models), (db.all_layer_columns, db.all_layers),
        (db.skipped_columns, db.skipped), (db.unread_columns, db.unread),
    ):  # fmt: skip
        assert list(columns.variables) == list(table.variables)
        for name, column in columns.variables.items():
            assert (
                table[name].variable.to_base_variable().identical(xr.Variable(column.dims, column.values, column.attrs))
            )
