"""Filter scale by depth and counts by label, against pandas on the filters themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import filterdb as fdb
from filterdb.errors import UsageError
from tests.models import chain, conv, model, save, tensor, weights


def filters_with_labels(db: fdb.Database) -> pd.DataFrame:
    """A row for each filter of a view: its span, and its layer's labels."""
    values = db.dataset.filters.values.astype(np.float64)
    layers = db.layers
    table = pd.DataFrame({name: layers[name].values for name in ("conv_depth_norm", "row_size")})
    for name in ("model", "task", "family", "training_dataset", "layer_name"):
        table[name] = layers[name].values.astype(str)
    table = table.loc[table.index.repeat(table["row_size"])]
    table["span"] = values.max(axis=1) - values.min(axis=1)
    table["decile"] = pd.cut(
        table["conv_depth_norm"], np.arange(0, 1.1, 0.1).tolist(), include_lowest=True, labels=False
    )
    return table


@pytest.mark.parametrize("by", ["model", "family", None])
def test_filter_scale_is_pandas(real_db: fdb.Database, by: str | None) -> None:
    """Layers across up to 66 chunks."""
    found = fdb.filter_scale(real_db, by)
    table = filters_with_labels(real_db).assign(all="all")
    key = by or "all"
    expected = table.groupby(key)["span"].agg(["mean", "size"]).loc[found["group"].values]
    np.testing.assert_allclose(found["scale"], expected["mean"], rtol=1e-12)
    np.testing.assert_array_equal(found["count"], expected["size"])
    cells = table.pivot_table(index=key, columns="decile", values="span", aggfunc=["mean", "size"], observed=False)
    for decile in range(10):
        for name, what in (("decile_scale", "mean"), ("decile_count", "size")):
            got = found[name].values[:, decile]
            if decile in cells[what]:
                wanted = cells[what][decile].loc[found["group"].values].to_numpy()
                wanted = np.nan_to_num(wanted) if what == "size" else wanted
                np.testing.assert_allclose(got, wanted, rtol=1e-12)
            else:
                assert np.isnan(got).all() if what == "mean" else not got.any()


def test_filter_scale_of_a_view_and_unknown_scale(tmp_path: Path) -> None:
    """A layer of integers whose scale cannot be found has no size: it is left out, its model stays."""
    nodes = [
        conv("x", "w", "h", "plain"),
        __import__("onnx").helper.make_node("ConvInteger", ["q", "v"], ["y"], name="integers"),
    ]
    integers = np.random.default_rng(0).integers(-100, 100, (4, 4, 3, 3)).astype(np.int8)
    kinds = [tensor("w", weights(4, 3)), tensor("v", integers)]
    save(tmp_path / "m.onnx", model(nodes, kinds, inputs=("x", "q"), outputs=("h", "y")))
    chain(tmp_path / "n.onnx", weights(5, 5, seed=1))
    db = fdb.ingest(tmp_path / "db", [tmp_path / "m.onnx", tmp_path / "n.onnx"]).database
    assert db.layers["scale_known"].values.tolist() == [True, False, True]
    found = fdb.filter_scale(db)
    assert found["count"].values.tolist() == [12, 25]
    known = weights(4, 3).reshape(-1, 9).astype(np.float64)
    assert float(found["scale"][0]) == pytest.approx((known.max(axis=1) - known.min(axis=1)).mean(), rel=1e-12)
    only = fdb.filter_scale(db.select(layer_name="integers"))
    assert np.isnan(only["scale"]).all() and only["count"].values.tolist() == [0]


def test_statistics_are_pandas(real_db: fdb.Database) -> None:
    found = fdb.statistics(real_db, ["task", "family", "training_dataset"]).to_dataframe()
    table = filters_with_labels(real_db)
    for column in ("task", "family", "training_dataset"):
        rows = found[found["column"] == column].set_index("label")
        groups = table.groupby(column)
        expected = pd.DataFrame(
            {
                "models": groups["model"].nunique(),
                "layers": groups.apply(lambda of: of[["model", "layer_name"]].drop_duplicates().shape[0]),
                "filters": groups.size(),
            }
        )
        pd.testing.assert_frame_equal(
            rows[["models", "layers", "filters"]].sort_index(), expected.sort_index(), check_names=False,
            check_index_type=False, check_dtype=False,
        )  # fmt: skip
        assert rows["filters"].is_monotonic_decreasing
        assert rows["share"].sum() == pytest.approx(1)
    assert found["column"].drop_duplicates().tolist() == ["task", "family", "training_dataset"]


def test_statistics_of_a_view_and_refusal(real_db: fdb.Database) -> None:
    found = fdb.statistics(real_db.select(task="face detection"))
    task = found.to_dataframe().query("column == 'task'")
    assert task["label"].tolist() == ["face detection"]
    assert task[["models", "layers", "filters"]].to_numpy().tolist() == [
        [3, real_db.select(task="face detection").counts["layers"], 8_370]
    ]
    assert found.attrs["selection"] == "task = face detection"
    with pytest.raises(UsageError, match="colour: expected a label"):
        fdb.statistics(real_db, ["colour"])
