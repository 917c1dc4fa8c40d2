"""Checkpoints and retrainings by catalog columns: the series are pandas', drift and floors those of `drift`."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import filterdb as fdb
from filterdb.errors import InputError, UsageError
from tests.models import chain

pytestmark = pytest.mark.slow

COLUMNS = ["path", "name", "architecture", "training_dataset", "epoch", "seed"]


def trained(start: np.ndarray, end: np.ndarray, progress: float) -> np.ndarray:
    weights: np.ndarray = ((1 - progress) * start + progress * end).astype(np.float32)
    return weights


def catalog(folder: Path, rows: list[dict[str, str]], weights: dict[str, list[np.ndarray]]) -> Path:
    for name, layers in weights.items():
        chain(folder / f"{name}.onnx", *layers)
    with (folder / "models.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows({"path": f"{row['name']}.onnx", **row} for row in rows)
    return folder / "models.csv"


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> fdb.Database:
    """One architecture on one set: seed 0 with five checkpoints (out of order), seeds 1 and 2 with two each; another
    architecture with one seed and checkpoints; a model with neither, and one whose training set is unknown.
    """
    folder = tmp_path_factory.mktemp("trainings")
    rng = np.random.default_rng(0)
    common = rng.standard_normal((40, 40, 3, 3)) * np.linspace(0.2, 2, 9).reshape(3, 3)
    rows, weights = [], {}

    def add(name: str, layers: list[np.ndarray], **labels: str) -> None:
        rows.append({"name": name, **labels})
        weights[name] = layers

    for seed in range(3):
        noise = rng.standard_normal((2, 40, 40, 3, 3))
        for epoch in [90, 0, 10, 100, 30] if seed == 0 else [0, 100]:
            layers = [trained(noise[i], common + 0.3 * noise[i], epoch / 100) for i in range(2)]
            labels = {"architecture": "net", "training_dataset": "digits", "seed": str(seed), "epoch": str(epoch)}
            add(f"net-{seed}-{epoch}", layers, **labels)
    start, end = rng.standard_normal((2, 30, 30, 3, 3))
    for step in ("1", "2.5"):
        labels = {"architecture": "other", "training_dataset": "digits", "epoch": step}
        add(f"other-{step}", [trained(start, end + np.eye(3), float(step) / 2.5)], **labels)
    add("alone", [rng.uniform(-1, 1, (30, 30, 3, 3))])
    add("nameless", [rng.uniform(0, 1, (30, 30, 3, 3))], architecture="net", seed="0", epoch="3")
    source = catalog(folder, rows, {name: [one.astype(np.float32) for one in of] for name, of in weights.items()})
    return fdb.ingest(folder / "db", catalog=source, chunk_rows=500).database


def test_checkpoints_by_epoch(trainings: fdb.Database) -> None:
    found = fdb.series(trainings)
    table = found[["training", "model", "epoch", "last", "drift", "count"]].to_dataframe().reset_index(drop=True)
    models = trainings.models
    labels = pd.DataFrame({name: models[name].values.astype(str) for name in [*COLUMNS[2:], "model"]})
    labels = labels[(labels["training_dataset"] != "unknown") & (labels["epoch"] != "unknown")]
    labels["epoch"] = labels["epoch"].astype(float)
    labels["training"] = labels["architecture"] + " × " + labels["training_dataset"] + " × " + labels["seed"]
    labels = labels.sort_values(["training", "epoch"])
    labels["last"] = labels.groupby("training")["model"].transform("last")
    for name in ("training", "model", "epoch", "last"):
        assert table[name].tolist() == labels[name].tolist()
    assert table["training"].nunique() == 4 and len(table) == 11
    assert table["count"].tolist() == [3_200] * 9 + [900] * 2
    drift = fdb.drift(trainings, "model")
    for row in table.itertuples():
        assert row.drift == float(drift["drift"].sel(group=row.model, other=row.last))
    first = table[table["training"] == "net × digits × 0"]["drift"].to_numpy()
    assert (np.diff(first) < 0).all() and first[-1] == 0  # it comes nearer with each epoch


def test_floors_and_verdicts_are_those_of_drift(trainings: fdb.Database) -> None:
    found, drift = fdb.series(trainings), fdb.drift(trainings, "model")
    for name in ("floor", "floor_q95", "verdict"):
        expected = [
            drift[name].sel(group=one, other=last).item()
            for one, last in zip(found["model"].values, found["last"].values, strict=True)
        ]
        np.testing.assert_array_equal(found[name].values, expected)
    assert found["verdict"].values[0] == "different_by_filters"
    paper = fdb.series(trainings, mode="paper")
    assert np.isnan(paper["floor"]).all() and set(paper["verdict"].values) == {""}
    assert paper["model"].values.tolist() == found["model"].values.tolist()


def test_retrainings(trainings: fdb.Database) -> None:
    """The last epochs of the three seeds, against the last ones of everything else."""
    found = fdb.series(trainings)
    ends = ["net-0-100", "net-1-100", "net-2-100"]
    pairs = list(zip(found["one"].values, found["other"].values, strict=True))
    assert pairs == list(combinations(ends, 2))
    drift = fdb.drift(trainings, "model")["drift"]
    among = [float(drift.sel(group=a, other=b)) for a, b in pairs]
    assert found["pair_drift"].values.tolist() == among
    assert found["retraining"].values.tolist() == ["net × digits"] == [*set(found["pair_training"].values)]
    assert found["seeds"].values.tolist() == [3]
    assert float(found["mean_drift"][0]) == pytest.approx(np.mean(among))
    assert float(found["largest_drift"][0]) == max(among)
    away = drift.sel(group=ends, other=["other-2.5", "alone", "nameless"]).values
    assert float(found["to_others"][0]) == np.median(away)
    assert float(found["to_nearest"][0]) == away.min()
    assert found["nearest"].values[0] == ["other-2.5", "alone", "nameless"][int(away.min(axis=0).argmin())]
    assert max(among) < away.min()


def test_a_view_has_its_own_series(trainings: fdb.Database) -> None:
    found = fdb.series(trainings.select(seed="1"))
    assert found["model"].values.tolist() == ["net-1-0", "net-1-100"]
    assert (found.sizes["pair"], found.sizes["retraining"]) == (0, 0)
    only = fdb.series(trainings.select(architecture="net", training_dataset="digits", epoch="100"))
    assert (only.sizes["checkpoint"], only.sizes["pair"]) == (0, 3)
    assert np.isnan(only["to_others"]).all() and only["nearest"].values.tolist() == [""]


def test_a_database_that_tells_of_no_series(real_db: fdb.Database) -> None:
    found = fdb.series(real_db)
    assert dict(found.sizes) == {"checkpoint": 0, "pair": 0, "retraining": 0}
    assert found["drift"].dtype == np.float64 and found["seeds"].dtype == np.int64


def test_seeds_without_epochs(tmp_path: Path) -> None:
    """One model a seed; two models of one seed without an epoch are no series, and neither is the last one."""
    rng = np.random.default_rng(0)
    names = {"a": "1", "b": "2", "c": "3", "d": "3"}
    rows = [{"name": name, "architecture": "n", "training_dataset": "t", "seed": s} for name, s in names.items()]
    weights = {name: [rng.standard_normal((8, 8, 3, 3)).astype(np.float32)] for name in names}
    db = fdb.ingest(tmp_path / "db", catalog=catalog(tmp_path, rows, weights)).database
    found = fdb.series(db)
    assert list(zip(found["one"].values, found["other"].values, strict=True)) == [("a", "b")]
    assert found.sizes["checkpoint"] == 0 and found["pair_verdict"].values.tolist() == ["few"]


RECIPES = [
    # name, epoch, seed, decay, accuracy
    ("p0-1", "1", "0", "0.001", "0.51"),
    ("p0-9", "9", "0", "0.001", "0.97"),
    ("p1-9", "9", "1", "0.001", "0.96"),
    ("q0-1", "1", "0", "0.1", "0.52"),
    ("q0-9", "9", "0", "0.1", "0.95"),
]


def recipes(folder: Path, rows: Sequence[tuple[str, ...]]) -> fdb.Database:
    rng = np.random.default_rng(1)
    names = ("name", "epoch", "seed", "decay", "acc")
    with (folder / "models.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "architecture", "training_dataset", *names])
        for row in rows:
            chain(folder / f"{row[0]}.onnx", rng.standard_normal((12, 12, 3, 3)).astype(np.float32))
            writer.writerow([f"{row[0]}.onnx", "net", "digits", *row])
    return fdb.ingest(folder / "db", catalog=folder / "models.csv").database


def test_recipes_that_differ_in_another_column_are_other_trainings(tmp_path: Path) -> None:
    db = recipes(tmp_path, RECIPES)
    result = fdb.series(db)
    runs = list(zip(result["training"].values, result["model"].values, strict=True))
    assert runs == [
        ("net × digits × 0 × 0.001", "p0-1"),
        ("net × digits × 0 × 0.001", "p0-9"),
        ("net × digits × 0 × 0.1", "q0-1"),
        ("net × digits × 0 × 0.1", "q0-9"),
    ]
    assert list(zip(result["one"].values, result["other"].values, strict=True)) == [("p0-9", "p1-9")]
    assert result["retraining"].values.tolist() == ["net × digits × 0.001"]
    given = fdb.series(db, training=["decay", "seed"])
    assert given["training"].values.tolist()[:1] == ["0.001 × 0"] and given.attrs["training"] == "decay,seed"
    assert given["retraining"].values.tolist() == ["0.001"]
    np.testing.assert_array_equal(given["drift"], result["drift"])
    with pytest.raises(UsageError, match="training: expected columns of the catalog, got 'decoy'"):
        fdb.series(db, training="decoy")


def test_two_models_of_one_training_and_epoch(tmp_path: Path) -> None:
    db = recipes(tmp_path, [*RECIPES, ("again", "9", "0", "0.1", "0.94")])
    with pytest.raises(InputError, match="got 'again' and 'q0-9' at epoch 9") as error:
        fdb.series(db)
    assert "--training" in str(error.value) and len(str(error.value).removeprefix(db.url)) < 200
    assert fdb.series(db.where("model", ["again"], negate=True)).sizes["checkpoint"] == 4
    with pytest.raises(InputError, match="'p0-1' and 'q0-1' at epoch 1"):
        fdb.series(db, training="seed")


@pytest.mark.parametrize("epoch", ["last", "inf", "1e999"])
def test_an_epoch_that_is_no_number(tmp_path: Path, epoch: str) -> None:
    rows = [{"name": "a", "architecture": "n", "training_dataset": "t", "epoch": epoch}]
    source = catalog(tmp_path, rows, {"a": [np.ones((2, 2, 3, 3), np.float32)]})
    db = fdb.ingest(tmp_path / "db", catalog=source).database
    with pytest.raises(
        InputError, match=f"model 'a': expected a number in the catalog's column `epoch`, got '{epoch}'"
    ):
        fdb.series(db)
