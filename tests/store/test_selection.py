"""Views of a database by values, ranges and functions: which layers they have, and what answers say of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import filterdb as fdb
from filterdb.errors import InputError, UsageError
from tests.models import chain, weights


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> fdb.Database:
    """Four models of three layers each, with labels and a number of their own."""
    folder = tmp_path_factory.mktemp("selection")
    lines = ["path,name,task,epoch"]
    for seed, task in enumerate(("a", "b", "c", "unknown")):
        layers = [weights(8 + 4 * seed, 4, seed), weights(12, 8 + 4 * seed, seed), weights(6, 12, seed)]
        chain(folder / f"m{seed}.onnx", *layers)
        lines.append(f"m{seed}.onnx,m{seed},{task},{10 * seed}")
    (folder / "models.csv").write_text("\n".join(lines))
    return fdb.ingest(folder / "db", catalog=folder / "models.csv").database


def wide(layers: Any) -> Any:
    return layers["out_channels"] > layers["in_channels"]


CASES: list[tuple[str, dict[str, Any], Any, str]] = [
    ("list", {"task": ["a", "b"]}, lambda t: t["task"].isin(["a", "b"]), "task = a, b"),
    ("tuple", {"depth": (0, 2)}, lambda t: t["conv_depth"].isin([0, 2]), "depth = 0, 2"),
    ("array", {"conv_depth": np.array([1])}, lambda t: t["conv_depth"] == 1, "conv_depth = 1"),
    ("slice", {"depth": slice(0, 1)}, lambda t: t["conv_depth"] <= 1, "0 ≤ depth ≤ 1"),
    ("from", {"filters": slice(96, None)}, lambda t: t["row_size"] >= 96, "96 ≤ filters"),
    ("up to", {"conv_depth_norm": slice(None, 0.5)}, lambda t: t["conv_depth_norm"] <= 0.5, "conv_depth_norm ≤ 0.5"),
    ("all", {"filters": slice(None)}, lambda t: t["row_size"] > 0, "filters known"),
    (
        "function",
        {"row_size": lambda n: n % 32 == 0},
        lambda t: t["row_size"] % 32 == 0,
        "row_size chosen by a function",
    ),
]


@pytest.mark.parametrize(("name", "labels", "expected", "words"), CASES, ids=[case[0] for case in CASES])
def test_the_view_has_what_pandas_finds(
    db: fdb.Database, name: str, labels: dict[str, Any], expected: Any, words: str
) -> None:
    table = db.layers.to_dataframe().reset_index()
    chosen = expected(table)
    assert 0 < chosen.sum() <= len(table)
    view = db.select(**labels)
    assert view.layers["layer"].values.tolist() == table["layer"][chosen].tolist()
    assert view.conditions[0].startswith(words) and len(view.conditions) == 1
    (name, values), *_ = labels.items()
    if chosen.sum() < len(table):
        rest = db.where(name, values, negate=True)
        assert rest.counts["layers"] == len(table) - chosen.sum()
        assert "!=" in rest.conditions[0] or rest.conditions[0].startswith("not (")


@pytest.mark.parametrize("form", ["xarray", "numpy", "pandas"])
def test_functions_of_the_table(db: fdb.Database, form: str) -> None:
    """Any mask will do; the answer counts the layers, and names a function that has a name."""
    forms = {
        "xarray": wide,
        "numpy": lambda layers: wide(layers).values,
        "pandas": lambda layers: wide(layers).to_series(),
    }
    view = db.select(forms[form], task=["a", "b", "c"])
    named = "the function wide" if form == "xarray" else "a function"
    number = int(wide(db.layers).sum())
    assert view.conditions == (f"layers chosen by {named} ({number} of 12 layers)", "task = a, b, c")
    assert wide(view.layers).all() and view.counts["layers"] < 9
    assert fdb.degeneration(view).attrs["selection"] == " and ".join(view.conditions)
    assert view.dataset.attrs["selection"] == " and ".join(view.conditions)


def test_views_of_views_and_lazy_filters(db: fdb.Database) -> None:
    view = db.select(depth=slice(1, None)).select(lambda layers: layers["task"] != "unknown").select(epoch=["0", "10"])
    assert view.counts == {"filters": 12 * 8 + 6 * 12 + 12 * 12 + 6 * 12, "layers": 4, "models": 2}
    assert type(view.dataset["filters"].data).__module__.startswith("dask")
    assert view.dataset.sizes["filter"] == view.counts["filters"]


def test_a_bank_keeps_conditions_of_every_kind(tmp_path: Path) -> None:
    chain(tmp_path / "one.onnx", weights(8, 4, 0), weights(12, 8, 1))
    chain(tmp_path / "two.onnx", weights(8, 4, 2))
    db = fdb.ingest(tmp_path / "db", [tmp_path / "one.onnx", tmp_path / "two.onnx"]).database
    view = db.select(lambda layers: layers["model_index"] == 0, filters=slice(50, None))
    assert view.counts["layers"] == 1
    with pytest.raises(InputError):
        view.bank("5x5")  # there are none: the conditions are applied to no layer
    assert view.bank("3x3") is view


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"tusk": "a"}, UsageError, "tusk: expected a label of layers or models; did you mean task?"),
    ({"conv_dept": 1}, UsageError, "conv_dept: .*did you mean conv_depth"),
    ({"task": slice("a", "b")}, UsageError, "task: expected values or a function, because the column is not numeric"),
    ({"depth": slice(0, 4, 2)}, UsageError, "depth: expected a slice without a step, got the step 2"),
    ({"depth": slice("0", 4)}, UsageError, "depth: expected numbers as the ends of a slice, got '0'"),
    ({"depth": slice(False, 4)}, UsageError, "depth: expected numbers"),
    ({"depth": slice(7, None)}, InputError, "expected layers with 7 ≤ depth, found none; `depth` has 0, 1, 2"),
    (
        {"task": lambda values: values == "d"},
        InputError,
        "expected layers with task chosen by a function .*has a, b, c",
    ),
    ({"task": len}, UsageError, "task: the function len: expected a mask, bool of shape"),
    ({"task": lambda values: values == "a" or None}, ValueError, "ambiguous"),
    ({"task": lambda values: np.ones(3, bool)}, UsageError, r"bool of shape \(12,\), got bool of shape \(3,\)"),
    ({"task": lambda values: np.ones(len(values))}, UsageError, "got float64"),
]


@pytest.mark.parametrize(("labels", "kind", "message"), WRONG)
def test_wrong_conditions_are_one_line(db: fdb.Database, labels: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        db.select(**labels)
    assert "\n" not in str(caught.value)


def test_wrong_functions(db: fdb.Database) -> None:
    with pytest.raises(UsageError, match="select: expected a function of the table of layers"):
        db.select("task=a")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="expected layers chosen by a function, found none"):
        db.select(lambda layers: layers["out_channels"] < 0)
    with pytest.raises(KeyError):
        db.select(lambda layers: layers["nothing"] > 0)


def test_unknown_depths_are_in_no_range(tmp_path: Path) -> None:
    """A safetensors file has no order of execution; the number that stands for an unknown depth is in no range."""
    from safetensors.numpy import save_file

    save_file({"a.weight": weights(8, 4, 0), "b.weight": weights(6, 8, 1)}, tmp_path / "one.safetensors")
    chain(tmp_path / "two.onnx", weights(12, 4, 2))
    db = fdb.ingest(tmp_path / "db", [tmp_path / "one.safetensors", tmp_path / "two.onnx"]).database
    assert db.select(depth=slice(None, 5)).counts["layers"] == 1
    assert db.select(conv_depth_norm=slice(None, 1)).counts["layers"] == 1
