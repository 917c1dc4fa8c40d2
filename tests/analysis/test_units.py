"""Models that are not independent are one unit: copies, shared layers, checkpoints, and what the catalog says."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import entropy

import filterdb as fdb
from filterdb.analysis.trainings import training_columns, training_keys
from filterdb.analysis.units import RELATED, effective_number, find_units
from filterdb.errors import UsageError
from tests.filters import trained
from tests.models import chain

ROWS: dict[str, dict[str, str]] = {
    # One training with two checkpoints and another with one; accuracies differ between all of them.
    "a-1": {"task": "one", "architecture": "net", "training_dataset": "d", "epoch": "1", "lr": "0.1", "acc": "0.51"},
    "a-9": {"task": "one", "architecture": "net", "training_dataset": "d", "epoch": "9", "lr": "0.1", "acc": "0.93"},
    "b-9": {"task": "one", "architecture": "net", "training_dataset": "d", "epoch": "9", "lr": "0.2", "acc": "0.92"},
    "b-1": {"task": "one", "architecture": "net", "training_dataset": "d", "epoch": "1", "lr": "0.2", "acc": "0.5"},
    "copy": {"task": "one", "lab": "x"},
    "tuned": {"task": "two"},
    "alone": {"task": "two", "lab": "y"},
    "other": {"task": "two", "lab": "y"},
    "last": {"task": "two"},
}


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> fdb.Database:
    """`copy` has the bytes of `b-9`, and `tuned` its first layer."""
    folder = tmp_path_factory.mktemp("units")
    weights = {name: [trained(30, 20, 10 * i, i), trained(20, 30, 10 * i + 1, i)] for i, name in enumerate(ROWS)}
    weights["tuned"][0] = weights["b-9"][0]
    for name, layers in weights.items():
        chain(folder / f"{name}.onnx", *layers)
    shutil.copy(folder / "b-9.onnx", folder / "copy.onnx")
    columns = ["path", "name", "task", "architecture", "training_dataset", "epoch", "lr", "acc", "lab"]
    with (folder / "models.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows({"path": f"{name}.onnx", "name": name, **row} for name, row in ROWS.items())
    return fdb.ingest(folder / "db", catalog=folder / "models.csv").database


def sets(db: fdb.Database, units: np.ndarray) -> set[frozenset[str]]:
    """Return the names of the models of each unit."""
    names = db.layers["model"].values.astype(str)
    return {frozenset(names[units == unit].tolist()) for unit in np.unique(units)}


ALONE = {frozenset({name}) for name in ("alone", "other", "last")}


def test_copies_shared_layers_and_checkpoints_are_one_unit(db: fdb.Database) -> None:
    expected = {frozenset({"a-1", "a-9"}), frozenset({"b-1", "b-9", "copy", "tuned"})} | ALONE
    assert sets(db, find_units(db)) == expected
    without = db.select(model=["a-1", "b-9", "copy", "alone"])
    assert sets(without, find_units(without)) == {frozenset({"a-1"}), frozenset({"b-9", "copy"}), frozenset({"alone"})}


def test_a_column_and_related_pairs_join_units(db: fdb.Database) -> None:
    by_lab = sets(db, find_units(db, "lab"))
    assert frozenset({"alone", "other"}) in by_lab and frozenset({"last"}) in by_lab
    joined = sets(db, find_units(db, related=[("last", "a-1"), ("last", "missing"), ("other", "last")]))
    assert frozenset({"a-1", "a-9", "last", "other"}) in joined and frozenset({"alone"}) in joined
    with pytest.raises(UsageError, match="labb: expected a label"):
        find_units(db, "labb")


def test_models_that_lineage_relates_join_where_asked(tmp_path: Path) -> None:
    """A fine-tuned copy shares no layer with its parent, so that only its weights tell."""
    rng = np.random.default_rng(0)
    parent = [trained(40, 40, 1), trained(40, 40, 2)]
    tuned = [layer + 0.1 * layer.std() * rng.standard_normal(layer.shape).astype(np.float32) for layer in parent]
    nets = {"parent": parent, "tuned": tuned, "stranger": [trained(40, 40, 3), trained(40, 40, 4)]}
    for name, layers in nets.items():
        chain(tmp_path / f"{name}.onnx", *layers)
    db = fdb.ingest(tmp_path / "db", [tmp_path / f"{name}.onnx" for name in nets]).database
    assert len(sets(db, find_units(db))) == 3
    assert sorted(map(len, sets(db, find_units(db, RELATED)))) == [1, 2]
    assert fdb.drift(db, "model", unit=RELATED, noise=False)["units"].values.tolist() == [1, 1, 1]


def test_fixed_filters_are_no_sign_of_kinship(tmp_path: Path) -> None:
    """All channels of one blur, and layers of few filters, are equal in strangers too."""
    blur = np.tile(np.full((3, 3), 1 / 9, np.float32), (80, 1, 1, 1))
    small = trained(3, 20, 9)
    for i, name in enumerate(("p", "q")):
        chain(tmp_path / f"{name}.onnx", trained(1, 80, i), np.ascontiguousarray(blur), trained(20, 80, 50 + i), small)
    db = fdb.ingest(tmp_path / "db", [tmp_path / "p.onnx", tmp_path / "q.onnx"]).database
    assert len(sets(db, find_units(db))) == 2


def test_a_measurement_is_no_label_of_a_training(db: fdb.Database) -> None:
    columns = training_columns(db.models)
    assert {"task", "architecture", "training_dataset", "lr"} <= set(columns)
    assert not {"acc", "epoch", "url"} & set(columns)
    keys = dict(zip(db.models["model"].values.astype(str), training_keys(db), strict=True))
    assert keys["a-1"] == keys["a-9"] != keys["b-9"] == keys["b-1"] and keys["alone"] is None
    given = training_keys(db, "lab, task")
    assert given[4] == ("x", "one") and given[6] == ("y", "two")
    for wrong in ("labb", "lab,epoch"):
        with pytest.raises(UsageError, match="training: expected columns"):
            training_keys(db, wrong)


def test_drift_counts_units(db: fdb.Database) -> None:
    result = fdb.drift(db, "task")
    one, two = (result.sel(group=task) for task in ("one", "two"))
    assert (int(one["models"]), int(one["units"])) == (5, 2) and (int(two["models"]), int(two["units"])) == (4, 4)
    # In group one the units have 2 and 3 models of 1,200 filters.
    assert float(one["effective_units"]) == pytest.approx(25 / 13)
    # One unit is only in group one, three are only in group two, one is in both: C(4, 1)·2 ways.
    assert float(result["permutations"].sel(group="one", other="two")) == 8
    by_lab = fdb.drift(db, "task", unit="lab")
    assert int(by_lab["units"].sel(group="two")) == 3
    paper: Any = fdb.drift(db, "task", mode="paper")
    assert "units" not in paper


def test_copies_do_not_make_many_filters(db: fdb.Database) -> None:
    """Three checkpoints and copies of 600 filters have 1,800 filters, but only 600 independent ones."""
    first = db.keep(db.layers["conv_depth"].values == 0, "first layers")
    result = fdb.drift(first.select(model=["a-1", "a-9", "alone", "other"]), "task")
    assert result["count"].values.tolist() == [1_200, 1_200]
    few = dict(zip(result["group"].values.tolist(), result["few"].values.tolist(), strict=True))
    assert few == {"one": True, "two": False}


def test_a_copy_is_related(db: fdb.Database) -> None:
    result = fdb.drift(db, "model")
    assert result["verdict"].sel(group="b-9", other="copy").item() == "related"
    assert result["verdict"].sel(group="b-9", other="a-9").item() == "different_by_filters"
    assert (result["verdict"].values == "related").sum() == 2


def test_equal_models_average_over_models(db: fdb.Database) -> None:
    """D of the means of the models' distributions, by scipy; one model has two layers and the others have one."""
    first = db.keep((db.layers["conv_depth"].values == 0) | (db.column("model") == "tuned"), "unequal")
    result = fdb.drift(first, "task", equal_models=True)
    counts = fdb.drift(first, "model")["counts"]
    sizes = counts.isel(component=0).sum("bin")
    harmonic = 1 / np.mean(1 / sizes.values)
    shares = counts / sizes
    task = dict(zip(db.models["model"].values.tolist(), db.models["task"].values.tolist(), strict=True))
    of_group = np.array([task[name] for name in shares["group"].values.tolist()])
    whole = fdb.drift(db, "model")["counts"].sum("group").values
    prior = (whole + 0.5) / (whole.sum(axis=1, keepdims=True) + 35)
    probabilities = []
    for label in ("one", "two"):
        total = harmonic * shares.values[of_group == label].sum(axis=0)
        probabilities.append((total + 35 * prior) / (total.sum(axis=1, keepdims=True) + 35))
    p, q = probabilities
    expected = result["weights"].values @ (entropy(p, q, axis=1) + entropy(q, p, axis=1))
    assert float(result["drift"].sel(group="one", other="two")) == pytest.approx(expected, rel=1e-9)
    assert result["counts"].dtype == np.int64 and result.attrs["equal_models"] == 1
    assert float(result["effective_units"].sel(group="one")) == pytest.approx(25 / 13)  # 2 and 3 models
    assert abs(expected - float(fdb.drift(first, "task")["drift"].sel(group="one", other="two"))) > 1e-4
    for wrong in ({"mode": "paper"}, {"metric": "frechet"}):
        with pytest.raises(UsageError, match="equal_models: expected mode sound and a metric of histograms"):
            fdb.drift(first, "task", equal_models=True, **wrong)  # type: ignore[arg-type]


def test_effective_number() -> None:
    assert effective_number(np.full(7, 3.0)) == pytest.approx(7)
    assert effective_number(np.array([1000.0, 1, 1])) == pytest.approx(1, abs=0.01)
    assert effective_number(np.zeros(0)) == 0
