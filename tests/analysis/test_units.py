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
from filterdb.analysis.kinship import kinship
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


def sets(db: fdb.Database, unit: str | None = None) -> set[frozenset[str]]:
    """Return the names of the models of each unit."""
    names, units = db.layers["model"].values.astype(str), find_units(db, unit).of_layer
    return {frozenset(names[units == unit].tolist()) for unit in np.unique(units)}


ALONE = {frozenset({name}) for name in ("alone", "other", "last")}


def test_copies_shared_layers_and_checkpoints_are_one_unit(db: fdb.Database) -> None:
    expected = {frozenset({"a-1", "a-9"}), frozenset({"b-1", "b-9", "copy", "tuned"})} | ALONE
    assert sets(db) == expected
    without = db.select(model=["a-1", "b-9", "copy", "alone"])
    assert sets(without) == {frozenset({"a-1"}), frozenset({"b-9", "copy"}), frozenset({"alone"})}


def test_a_column_joins_units(db: fdb.Database) -> None:
    by_lab = sets(db, "lab")
    assert frozenset({"alone", "other"}) in by_lab and frozenset({"last"}) in by_lab
    with pytest.raises(UsageError, match="labb: expected a label"):
        find_units(db, "labb")


def noisy(layers: list[np.ndarray], share: float, seed: int) -> list[np.ndarray]:
    """Layers of which every weight moved, as if fine-tuned, so that no layer is shared."""
    rng = np.random.default_rng(seed)
    moved = [layer + share * layer.std() * rng.standard_normal(layer.shape) for layer in layers]
    return [layer.astype(np.float32) for layer in moved]


def ingested(folder: Path, nets: dict[str, list[np.ndarray]], rows: dict[str, dict[str, str]]) -> fdb.Database:
    for name, layers in nets.items():
        chain(folder / f"{name}.onnx", *layers)
    columns = ["path", "name", *dict.fromkeys(key for row in rows.values() for key in row)]
    with (folder / "models.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows({"path": f"{name}.onnx", "name": name, **rows.get(name, {})} for name in nets)
    return fdb.ingest(folder / "db", catalog=folder / "models.csv").database


def test_models_that_share_trained_weights_join(tmp_path: Path) -> None:
    """A fine-tuned copy shares no layer with its parent, so that only its weights tell."""
    parent = [trained(40, 40, 1), trained(40, 40, 2)]
    nets = {"parent": parent, "tuned": noisy(parent, 0.1, 0), "stranger": [trained(40, 40, 3), trained(40, 40, 4)]}
    db = ingested(tmp_path, nets, {})
    joined = {frozenset({"parent", "tuned"}), frozenset({"stranger"})}
    assert sets(db) == joined
    result = fdb.drift(db, "model", noise=False)
    assert result["units"].values.tolist() == [1, 1, 1]
    assert result.attrs["units_by"] == "labels, copies, layers, relatives"
    for sketch in Path(db.url).glob("summaries/*/sketch-*"):
        sketch.unlink()
    earlier = fdb.open(db.url)
    assert len(sets(earlier)) == 3
    assert fdb.drift(earlier, "model", noise=False).attrs["units_by"] == "labels, copies, layers"
    assert not list(Path(db.url).glob("summaries/*/sketch-*"))  # nothing is read for a default
    assert sets(earlier, RELATED) == joined
    assert sets(fdb.open(db.url)) == joined


def test_unknown_copies_are_no_independent_models(tmp_path: Path) -> None:
    """Two groups of one population: five backbones each, with three fine-tuned copies that no catalog knows.

    Copies that count as independent make chance look like a difference.
    """
    nets, rows = {}, {}
    for number in range(10):
        original = [trained(24, 30, 2 * number), trained(30, 24, 2 * number + 1)]
        for copy in range(4):
            name = f"{number}-{copy}"
            nets[name] = noisy(original, 0.04, 10 * number + copy) if copy else original
            rows[name] = {"task": "one" if number % 2 else "two"}
    db = ingested(tmp_path, nets, rows)
    assert sets(db) == {frozenset(f"{number}-{copy}" for copy in range(4)) for number in range(10)}
    known = fdb.drift(db, "task", noise=200)
    assert known["units"].values.tolist() == [5, 5]
    assert known["judged_by"].values[0, 1] == "model" and known["verdict"].values[0, 1] == "indistinguishable"
    for sketch in Path(db.url).glob("summaries/*/sketch-*"):
        sketch.unlink()
    unknown = fdb.drift(fdb.open(db.url), "task", noise=200)
    assert unknown["units"].values.tolist() == [20, 20]
    assert unknown["verdict"].values[0, 1] == "different"


def test_a_model_without_sketch_keeps_only_its_views_from_joining(tmp_path: Path) -> None:
    """As after an update by an earlier version: the segments that have sketches are used."""
    parent = [trained(40, 40, 1), trained(40, 40, 2)]
    db = ingested(tmp_path, {"parent": parent, "tuned": noisy(parent, 0.1, 0)}, {})
    chain(tmp_path / "later.onnx", trained(40, 40, 5))
    grown = fdb.ingest(db.url, [tmp_path / "later.onnx"]).database
    (Path(db.url) / "summaries" / grown.segments[1].id).joinpath(*_sketches(grown)).unlink()
    whole = fdb.open(db.url)
    assert find_units(whole).evidence == ("labels", "copies", "layers")
    view = whole.select(model=["parent", "tuned"])
    assert find_units(view).evidence == ("labels", "copies", "layers", "relatives")
    assert sets(view) == {frozenset({"parent", "tuned"})}
    assert sets(view.select(conv_depth=0)) == {frozenset({"parent", "tuned"})}


def _sketches(db: fdb.Database) -> list[str]:
    return [path.name for path in Path(db.url).glob(f"summaries/{db.segments[1].id}/sketch-*")]


def test_one_initialisation_is_no_kinship(tmp_path: Path) -> None:
    """Two trainings of one seed keep most of their initialisation, in different directions from it."""
    rng = np.random.default_rng(5)
    start = [rng.normal(0, 0.05, (40, 40, 3, 3)).astype(np.float32) for _ in range(3)]
    nets: dict[str, list[np.ndarray]] = {"start": start, "again": start}
    for name, first in (("digits", 10), ("letters", 20)):
        nets[name] = [layer + np.float32(0.8) * trained(40, 40, first + i) for i, layer in enumerate(start)]
    nets["tuned"] = noisy(nets["digits"], 0.05, 1)
    unlabelled = ingested(tmp_path, nets, {})
    pairs = kinship(unlabelled)
    assert pairs.related[:4, :4].sum() == 12 and pairs.similarity[2, 3] > 0.5
    assert sets(unlabelled) == {frozenset(unit) for unit in (["start", "again"], ["digits", "tuned"], ["letters"])}
    (tmp_path / "labelled").mkdir()
    base = {"architecture": "net", "seed": "0"}
    rows = {
        "start": {**base, "training_dataset": "digits", "epoch": "0"},
        "again": {**base, "training_dataset": "letters", "epoch": "0"},
        "digits": {**base, "training_dataset": "digits", "epoch": "9"},
        "letters": {**base, "training_dataset": "letters", "epoch": "9"},
        "tuned": {**base, "training_dataset": "birds", "pretraining_dataset": "digits", "epoch": "9"},
        "recipe": {**base, "training_dataset": "digits", "epoch": "9", "decay": "0.1 later"},
    }
    labelled = ingested(tmp_path / "labelled", {**nets, "recipe": noisy(nets["letters"], 0.03, 2)}, rows)
    expected = (["start", "digits", "tuned"], ["again", "letters"], ["recipe"])
    assert sets(labelled) == {frozenset(unit) for unit in expected}


def test_fixed_filters_are_no_sign_of_kinship(tmp_path: Path) -> None:
    """All channels of one blur, and layers of few filters, are equal in strangers too."""
    blur = np.tile(np.full((3, 3), 1 / 9, np.float32), (80, 1, 1, 1))
    small = trained(3, 20, 9)
    for i, name in enumerate(("p", "q")):
        chain(tmp_path / f"{name}.onnx", trained(1, 80, i), np.ascontiguousarray(blur), trained(20, 80, 50 + i), small)
    db = fdb.ingest(tmp_path / "db", [tmp_path / "p.onnx", tmp_path / "q.onnx"]).database
    assert len(sets(db)) == 2


def test_a_measurement_is_no_label_of_a_training(db: fdb.Database) -> None:
    columns = training_columns(db.model_columns)
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
