"""density, phenotypes, randomness-threshold, series, filter-scale, statistics as a user and a program meet them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import filterdb as fdb
from tests.commands.running import answer, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def db(demo_catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "db"
    fdb.ingest(folder, catalog=demo_catalog, chunk_rows=20_000)
    return folder


def test_density(db: Path) -> None:
    found = answer("density", db, "--by", "task", "--components", "2,3", "--bins", 30, "--threads", 2)
    expected = fdb.density(fdb.open(db), "task", components=(2, 3), bins=30)
    assert found["counts"] == expected["counts"].values.tolist()
    assert (found["components"], found["bins"], found["groups"]) == ([2, 3], 30, expected["group"].values.tolist())
    assert found["range"] == expected.attrs["range"]
    table = run("density", db, "--by", "task", "--threads", 2, "--where", "task=face detection").stdout
    assert "densest at c0" in table and "face detection" in table and "8,370" in table


def test_phenotypes(db: Path) -> None:
    found = answer("phenotypes", db, "--by", "task", "--components", "0,1", "--threads", 2)
    expected = fdb.phenotypes(fdb.open(db), "task", pairs=[(0, 1)])
    assert [one["group"] for one in found["groups"]] == expected["group"].values.tolist()
    for i, one in enumerate(found["groups"]):
        assert [component["phenotype"] for component in one["components"]] == expected["phenotype"][i].values.tolist()
        assert one["pairs"][0]["components"] == [0, 1]
        assert one["pairs"][0]["departure"] == float(expected["pair_departure"][i, 0])
    assert found["bounds"]["fewest"] == 1_000
    assert "c6×c7" in run("phenotypes", db, "--threads", 2).stdout
    assert "×" not in run("phenotypes", db, "--no-pairs", "--threads", 2).stdout


def test_randomness_threshold() -> None:
    arguments = ("--sizes", "4,16,64,256", "--draws", 50, "--repeats", 2, "--seed", 3)
    found = answer("randomness-threshold", *arguments, "--init", "uniform")
    expected = fdb.randomness_threshold("uniform", sizes=[4, 16, 64, 256], draws=50, repeats=2, seed=3)
    assert list(found["constants"].values()) == expected["value"].values.tolist()
    assert found["paper"] == {"span": 1.2618047, "rate": 0.88767525, "centre": 2.30436435, "offset": -0.31050834}
    assert [row["filters"] for row in found["rows"]] == [4, 16, 64, 256]
    left = np.array([row["smallest_entropy"] - row["threshold"] for row in found["rows"]])
    assert found["rms"] == pytest.approx(np.sqrt((left**2).mean()))
    assert found["snapshot"] is None
    table = run("randomness-threshold", *arguments).stdout
    assert "L (span)" in table and "1.262" in table


def test_surveys(db: Path) -> None:
    opened = fdb.open(db)
    scale = answer("filter-scale", db, "--threads", 2)
    expected = fdb.filter_scale(opened)
    assert [row["scale"] for row in scale["rows"]] == expected["scale"].values.tolist()
    assert scale["rows"][0]["deciles"][0]["decile"] == "[0.0, 0.1]"
    statistics = answer("statistics", db, "--by", "family", "--threads", 2)
    assert statistics["rows"][0]["filters"] == 314_368 and statistics["rows"][0]["column"] == "family"
    series = answer("series", db, "--threads", 2)
    assert series["checkpoints"] == series["pairs"] == series["retrainings"] == []
    for command, says in (("series", "no checkpoints"), ("filter-scale", "0.0–0.1"), ("statistics", "visual_category")):
        assert says in run(command, db, "--threads", 2).stdout


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["density", "DB", "--components", "0"], "expected two numbers joined with a comma, such as 0,1, got '0'"),
        (["density", "DB", "--components", "4,4"], "expected two different ones of 0 … 8, got 4, 4"),
        (["phenotypes", "DB", "--no-pairs", "--components", "0,1"], "--no-pairs cannot be combined with --components"),
        (["randomness-threshold", "--sizes", "4,x"], "--sizes: expected numbers joined with commas"),
        (["randomness-threshold", "--sizes", "4,8"], "sizes: expected at least four different ones"),
        (
            ["randomness-threshold", "--init", "zeros"],
            "expected one of normal, uniform, kaiming, orthogonal, got 'zeros'",
        ),
    ],
)
def test_refusals(db: Path, args: list[str], says: str) -> None:
    done = run(*(str(db) if arg == "DB" else arg for arg in args), code=2)
    assert says in done.stderr and done.stderr.count("\n") == 1
