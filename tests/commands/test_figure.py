"""--figure writes what `fdb.plot` draws, and answers about groups agree with the functions."""

from __future__ import annotations

from pathlib import Path

import dask
import numpy as np
import pandas as pd
import pytest

import filterdb as fdb
from filterdb.plotting import figures
from filterdb.plotting.drawing import encode
from tests.commands.running import answer, run
from tests.filters import network

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four models of two tasks and families."""
    folder = tmp_path_factory.mktemp("figures")
    rows = []
    for number in range(4):
        network(folder / f"{number}.onnx", seed=number, family=number % 2)
        kind = "ab"[number % 2]
        rows.append({"path": f"{number}.onnx", "name": f"m{number}", "task": kind, "family": kind.upper()})
    pd.DataFrame(rows).to_csv(folder / "catalog.csv", index=False)
    with dask.config.set(scheduler="threads"):
        fdb.drift(fdb.ingest(folder / "db", catalog=folder / "catalog.csv").database, "task", noise=False)
    return folder / "db"


@pytest.mark.parametrize(
    ("suffix", "start"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF"), ("PNG", b"\x89PNG")]
)
def test_a_file_is_written_in_the_format_of_its_suffix(db: Path, tmp_path: Path, suffix: str, start: bytes) -> None:
    file = tmp_path / "new folder" / f"basis.{suffix}"
    done = run("pca", db, "--figure", file)
    assert done.stderr.endswith(f"figure: {file}\n") and "figure" not in done.stdout
    assert file.read_bytes().startswith(start)
    assert file.read_bytes() == encode(figures.basis(fdb.pca(db)), "basis", f".{suffix.lower()}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("pca", "--figure", "x.bmp"), "expected a file that ends in .svg, .png, .pdf, got 'x.bmp'"),
        (("pca", "--figure", ".svg"), "expected a file that ends in"),
        (("drift", "--by", "task", "-o", "m.zarr", "--figure", "x.svg"), "--figure cannot be combined with -o"),
        (("drift", "--by", "task", "--draw", "families"), "expected with --by model, got --by task"),
        (
            ("drift", "--by", "task", "--metric", "frechet", "--draw", "components", "--figure", "x.svg"),
            "expected a sum over components and at most 1,000 groups, got frechet and 2",
        ),
        (("drift", "--by", "task", "--range", "compared"), "expected with --mode paper"),
        (("degeneration", "--drift"), "expected with --by"),
        (("degeneration", "--by", "task", "--drift"), "expected at least 3 groups by task to correlate, got 2"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(db: Path, tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    command, *rest = words
    code = 65 if "correlate" in message else 2
    done = run(command, db, *rest, code=code, cwd=tmp_path)
    assert message in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("*.*"))


def test_degeneration_by_group_as_json(db: Path) -> None:
    result = fdb.degeneration(db, by="model")
    reply = answer("degeneration", db, "--by", "model", "--drift")
    assert [row["group"] for row in reply["groups"]] == result["group"].values.tolist()
    for i, row in enumerate(reply["groups"]):
        assert row["mean_entropy"] == result["mean_entropy"].values[i]
        assert list(row["entropy_box"].values()) == result["entropy_box"].values[i].tolist()
        assert list(row["verdict_share"].values()) == result["verdict_share"].values[i].tolist()
    assert {row["group"] for row in reply["rows"]} == {"m0", "m1", "m2", "m3"}
    correlation = fdb.degeneration_drift(db)
    assert [row["pearson"] for row in reply["correlation"]] == [
        None if np.isnan(value) else value for value in correlation["pearson"].values
    ]
    table = run("degeneration", db, "--by", "model").stdout
    assert "H median" in table and "m3" in table
    whole = answer("degeneration", db)
    (group,) = whole["groups"]
    assert group["group"] == "all" and group["layer_count"] == 12 and whole["correlation"] is None
    summary = run("degeneration", db).stdout
    assert f"mean H {group['mean_entropy']:.2f}" in summary


def test_drift_has_models_means_and_boxes(db: Path) -> None:
    result = fdb.drift(db, "task")
    reply = answer("drift", db, "--by", "task")
    assert reply["group_models"] == [2, 2]
    assert reply["row_mean"] == result["row_mean"].values.tolist()
    assert list(reply["drift_box"].values()) == result["drift_box"].values.tolist()
    boxes = [list(box.values()) for box in reply["component_box"]]
    assert boxes == result["component_box"].values.tolist()


def test_distributions_as_json(db: Path) -> None:
    result = fdb.distributions(db, "task", mode="paper")
    reply = answer("distributions", db, "--by", "task", "--mode", "paper")
    assert reply["points"] == result["at"].values.tolist()
    for i, group in enumerate(reply["groups"]):
        for name in ("std", "mean", "counts", "kde"):
            assert group[name] == result[name].values[i].tolist()
