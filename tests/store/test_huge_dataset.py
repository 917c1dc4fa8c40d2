"""`db.dataset` of no filters, and of the published size, where no idiom takes memory in proportion to the filters."""

from __future__ import annotations

import pickle
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

import filterdb as fdb
from benchmarks import synthetic
from filterdb.errors import LabelError, UsageError
from filterdb.store import snapshot as snapshots
from filterdb.store.database import Database
from filterdb.store.files import Files
from filterdb.store.pages import Entry
from filterdb.store.stored_tables import StoredTables
from tests.models import chain, weights

pytestmark = pytest.mark.slow


def huge(folder: Path) -> Database:
    """The published data set's size: 1,464,797,156 filters, 21,436 layers, 647 models; tables only, no filter."""
    filters, layers, models = 1_464_797_156, 21_436, 647
    tables = synthetic.tables(synthetic.layers(filters, layers), models, [1.0] * layers)
    entry = Entry("0" * 16, filters, layers, models, 0, 1_048_576, {})
    db = Database(Files.at(folder), snapshots.new("ingest", segments=(entry,)))
    db.__dict__["tables"] = StoredTables(tables, [entry])
    return db


TOO_MANY = r"filters are too many to hold .* of each.*db\.select\(task=…\)\.dataset"

HUGE: dict[str, tuple[Callable[[Database], Any], int | str]] = {
    "open": (lambda db: db.dataset, 1_464_797_156),
    "repr": (lambda db: len(repr(db.dataset)) > 100 and len(db.dataset._repr_html_()) > 100, 1),
    "copy": (lambda db: db.dataset.copy(deep=True), 1_464_797_156),
    "pickle": (lambda db: pickle.loads(pickle.dumps(db.dataset)), 1_464_797_156),
    "select": (lambda db: db.select(model=["model5", "model7"]).dataset, 4_980_493),
    "sel one range": (lambda db: db.dataset.sel(model="model5"), 1_762_206),
    "sel": (lambda db: db.dataset.sel(task="ocr"), TOO_MANY),
    "isel": (lambda db: db.dataset.isel(filter=slice(10**9, 10**9 + 10**6)), 10**6),
    "isel two": (lambda db: db.dataset.isel(filter=[1, 10**9]), 2),
    "compare": (lambda db: db.dataset.task == "ocr", 1_464_797_156),
    "compare two": (lambda db: (db.dataset.task == "ocr") & db.dataset.bn_folded, 1_464_797_156),
    "add": (lambda db: db.dataset + db.dataset, 1_464_797_156),
    "roll": (lambda db: db.dataset.roll(filter=5, roll_coords=True), 1_464_797_156),
    "concat": (lambda db: xr.concat([db.dataset.sel(model=f"model{i}") for i in (5, 7)], "filter"), 4_980_493),
    "where drop": (lambda db: db.dataset.where(db.dataset.task == "ocr", drop=True), TOO_MANY),
    "where": (lambda db: db.dataset.where(db.dataset.task == "ocr"), TOO_MANY),
    "mask": (lambda db: db.dataset.filters[db.dataset.task == "ocr"], TOO_MANY),
    "groupby": (lambda db: db.dataset.groupby("task").mean(), TOO_MANY),
    "groupby DataArray": (lambda db: db.dataset.filters.groupby(db.dataset.task).mean(), TOO_MANY),
    "sortby": (lambda db: db.dataset.sortby("task"), TOO_MANY),
    "values": (lambda db: db.dataset.task.values, TOO_MANY),
    "thin": (lambda db: db.dataset.thin(filter=2), TOO_MANY),
    "times a label": (lambda db: db.dataset.filters * db.dataset.conv_depth, TOO_MANY),
    "to_zarr": (lambda db: db.dataset.to_zarr("memory://huge.zarr", compute=False), TOO_MANY),
}


@pytest.fixture(scope="module")
def huge_db(tmp_path_factory: pytest.TempPathFactory) -> Database:
    db = huge(tmp_path_factory.mktemp("huge"))
    assert db.layers.sizes["layer"] == 21_436
    return db


@pytest.mark.parametrize("idiom", HUGE)
def test_nothing_of_the_size_of_all_filters(huge_db: Database, idiom: str) -> None:
    """One byte for each filter would be 1.46 GB."""
    act, expected = HUGE[idiom]
    huge_db.__dict__.pop("dataset", None)
    tracemalloc.start()
    try:
        if isinstance(expected, str):
            with pytest.raises(UsageError, match=expected) as caught:
                act(huge_db)
            assert len(str(caught.value)) < 200
        else:
            result = act(huge_db)
            assert (result if isinstance(result, int) else result.sizes["filter"]) == expected
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()


def test_of_no_layers(tmp_path: Path) -> None:
    chain(tmp_path / "m.onnx", weights(2, 2, kernel=(1, 1)))
    dataset = fdb.ingest(tmp_path / "db", [tmp_path / "m.onnx"]).database.dataset
    assert dataset["task"].values.tolist() == []
    assert dataset.where(dataset.task == "detection", drop=True).sizes["filter"] == 0
    assert "filter: 0" in repr(dataset)
    with pytest.raises(LabelError, match="found none"):
        dataset.sel(task="detection")
