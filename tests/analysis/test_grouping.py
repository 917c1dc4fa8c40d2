"""Views, groupings, products, strata; what they keep of the snapshot and how they refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import filterdb as fdb
from filterdb.analysis.drift import drift_strata
from filterdb.errors import InputError, UsageError
from filterdb.numerics.depth import DECILES, depth_decile
from tests.models import chain, weights

pytestmark = pytest.mark.slow


def test_deciles_at_every_edge() -> None:
    """Edges such as 0.3 are not exact in binary: the same rounding as pandas.cut."""
    x = np.concatenate([np.arange(0, 1.1, 0.1).clip(0, 1), np.arange(11) / 10, np.arange(58) / 57])
    expected = pd.cut(x, np.arange(0, 1.1, 0.1).tolist(), include_lowest=True, labels=DECILES)
    assert [DECILES[code] for code in depth_decile(x)] == list(expected)
    assert DECILES[0] == "[0.0, 0.1]" and DECILES[1] == "(0.1, 0.2]" and DECILES[9] == "(0.9, 1.0]"


def test_a_view_keeps_basis_range_and_weights(real_db: fdb.Database) -> None:
    whole = fdb.drift(real_db, by="task")
    view = fdb.drift(real_db.select(task=["face detection", "text detection"]), by="task")
    for name in ("range", "basis"):
        assert view.attrs[name] == whole.attrs[name]
    np.testing.assert_array_equal(view["weights"], whole["weights"])
    pair = ["face detection", "text detection"]
    np.testing.assert_allclose(
        view["drift"].sel(group=pair, other=pair), whole["drift"].sel(group=pair, other=pair), rtol=1e-12
    )
    assert view.attrs["selection"] == "task = face detection, text detection"
    assert (view.attrs["models"], view.attrs["filters"]) == (4, 702 + 1_428 + 6_240 + 11_904)


def test_pca_fits_what_it_is_asked_about(real_db: fdb.Database) -> None:
    view = real_db.select(model="mtcnn-onet")
    by_model = fdb.pca(real_db, by="model").sel(group="mtcnn-onet")
    np.testing.assert_array_equal(fdb.pca(view)["components"][0], by_model["components"])


def test_dataset_of_a_view_has_its_rows(real_db: fdb.Database) -> None:
    layers = real_db.layers
    everything = real_db.dataset.filters.values
    owner = np.repeat(layers["model"].values, layers["row_size"].values)
    view = real_db.select(model=["mtcnn-onet", "ppocr-v2-cls"]).dataset
    expected = np.isin(owner, ["mtcnn-onet", "ppocr-v2-cls"])
    np.testing.assert_array_equal(view.filters.values, everything[expected])
    np.testing.assert_array_equal(view["model"].values, owner[expected])


def test_layers_of_a_view_count_along_its_models(real_db: fdb.Database) -> None:
    view = real_db.select(model=["mtcnn-onet", "ppocr-v2-cls"])
    assert set(view.layers["model_index"].values) == {0, 1}
    np.testing.assert_array_equal(view.models["model"].values[view.layers["model_index"].values], view.layers["model"])
    again = view.select(model="ppocr-v2-cls")
    assert set(again.layers["model_index"].values) == {0}
    assert again.models["filters"].values.tolist() == [again.counts["filters"]]


def test_parts_of_a_product_are_coordinates(real_db: fdb.Database) -> None:
    found = fdb.drift(real_db, by="task,depth_decile")
    for group, task, decile in zip(*(found[name].values for name in ("group", "task", "depth_decile")), strict=True):
        assert group == f"{task} × {decile}"
    by_parts = fdb.pca(real_db, by=["family", "task"]).set_index(group=["family", "task"])
    assert int(by_parts["count"].sel(family="ResNet", task="classification").sum()) == 314_368


def test_where_and_not_where(real_db: fdb.Database) -> None:
    without = real_db.where("task", ["classification"], negate=True)
    assert without.counts["filters"] == real_db.counts["filters"] - 314_368
    shallow = real_db.select(conv_depth=0)
    assert set(shallow.layers["conv_depth"].values) == {0}
    extra = real_db.select(package="basic-pitch 0.4.0")  # a catalog column that the schema does not know
    assert extra.counts == {"filters": 33, "layers": 1, "models": 1}


def test_strata(real_db: fdb.Database) -> None:
    strata = drift_strata(real_db, "model", "depth_decile")
    assert list(strata) == [label for label in DECILES if label in strata]
    together = fdb.drift(real_db, by="model", within="depth_decile")
    for label, one in strata.items():
        labels = list(one["group"].values)
        same = together["drift"].sel(stratum=label, group=labels, other=labels)
        np.testing.assert_array_equal(same, one["drift"])
        by_hand = real_db.layers["row_size"].values[
            (real_db.layers["model"].values == labels[0])
            & (np.array(DECILES)[depth_decile(real_db.layers["conv_depth_norm"].values)] == label)
        ]
        assert one["count"].values[0] == by_hand.sum()


def test_strata_keep_the_order_and_say_where_they_come_from(real_db: fdb.Database) -> None:
    found = fdb.drift(real_db, by="depth_decile", within="model")
    assert list(found["group"].values) == [label for label in DECILES if label in found["group"].values]
    assert found.attrs["selection"] == "all"
    assert (found.attrs["filters"], found.attrs["models"], found.attrs["within"]) == (335_243, 23, "model")


def test_layers_that_read_the_same_stay_apart(tmp_path: Path) -> None:
    """Model m with layer x/conv0, and model m/x with layer conv0."""
    chain(tmp_path / "a.onnx", weights(2, 2, seed=1), prefix="x/conv")
    chain(tmp_path / "b.onnx", weights(3, 3, seed=2))
    (tmp_path / "list.csv").write_text("path,name\na.onnx,m\nb.onnx,m/x\n")
    db = fdb.ingest(tmp_path / "db", catalog=tmp_path / "list.csv").database
    found = fdb.drift(db, by="layer")
    assert dict(zip(found["group"].values, found["count"].values, strict=True)) == {"m/x/conv0": 4, "m/x/conv0#2": 9}


def test_untrained_is_a_matter_of_the_whole_model(tmp_path: Path) -> None:
    line = np.outer(np.arange(1, 101), np.arange(1, 10)).reshape(10, 10, 3, 3).astype(np.float32)
    chain(tmp_path / "m.onnx", weights(10, 10), line)
    db = fdb.ingest(tmp_path / "db", [tmp_path / "m.onnx"]).database
    for view in (db, db.select(conv_depth=0)):
        assert not fdb.degeneration(view)["untrained"].values.any()
    assert bool(fdb.degeneration(db)["random"][0])


def test_paper_mode_joins_the_segmentations(tmp_path: Path) -> None:
    folder = tmp_path
    rows = ["path,task"]
    for i, task in enumerate(["Semantic Segmentation", "Instance Segmentation", "Detection"]):
        chain(folder / f"{i}.onnx", weights(8, 8, seed=i))
        rows.append(f"{i}.onnx,{task}")
    (folder / "list.csv").write_text("\n".join(rows))
    db = fdb.ingest(folder / "db", catalog=folder / "list.csv").database
    paper = fdb.drift(db, by="task", mode="paper")
    assert dict(zip(paper["group"].values, paper["count"].values, strict=True)) == {
        "Segmentation": 128,
        "Detection": 64,
    }
    assert fdb.drift(db, by="task").sizes["group"] == 3


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda db: fdb.drift(db, by="colour"), UsageError, "colour: expected a label"),
        (lambda db: fdb.drift(db, by="task", mode="loud"), UsageError, "mode: expected one of sound, paper"),  # type: ignore[arg-type]
        (lambda db: fdb.drift(db, by="task", metric="l2"), UsageError, "metric: expected one of kl"),  # type: ignore[arg-type]
        (lambda db: fdb.drift(db, by="task,"), UsageError, "labels joined with commas"),
        (lambda db: db.select(task="poetry"), InputError, "expected layers with task = poetry, found none"),
        (lambda db: fdb.exclude_verdict(db, ["ugly"]), UsageError, "verdict: expected one of dead"),
    ],
)
def test_refusals_are_one_line(real_db: fdb.Database, call: object, error: type, message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        call(real_db)  # type: ignore[operator]
    assert "\n" not in str(caught.value)


def test_every_result_says_where_it_comes_from(real_db: fdb.Database) -> None:
    results = [
        fdb.pca(real_db, by="task"),
        fdb.drift(real_db, by="task"),
        fdb.drift(real_db, by="task", mode="paper"),
        fdb.degeneration(real_db),
    ]
    for result in results:
        for name in ("snapshot", "database", "selection", "filterdb_version", "filters", "layers", "models", "formula"):
            assert name in result.attrs, name
        assert result.attrs["filters"] == 335_243
    moved = results[1].attrs["basis_moved"]
    assert '"angle"' in moved and '"ratio_change"' in moved
