"""Results are xarray datasets that notebooks show with a plot and rows; their rows are those of the commands."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import re
from importlib import import_module
from itertools import combinations
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from dask.base import tokenize

import filterdb as fdb
from filterdb.analysis import frames, notebook
from filterdb.analysis.result import Result
from filterdb.commands.answer import plain
from tests.plotting.conftest import HOSTILE, results, small_db

__all__ = ["results", "small_db"]

Results = dict[str, Any]

COEFFICIENTS = {"coefficients", "first_filters"}
"""Not analyses with rows: arrays of filters."""


def analyses() -> list[str]:
    """Return the public functions that return a dataset."""
    functions = {name: getattr(fdb, name) for name in fdb.__all__ if inspect.isfunction(getattr(fdb, name))}
    return [name for name, function in functions.items() if function.__annotations__.get("return") == "xr.Dataset"]


def test_every_analysis_returns_a_result(results: Results) -> None:
    names = set(analyses()) - COEFFICIENTS
    assert len(names) == 19
    assert names <= results.keys()
    for name in names:
        assert type(results[name]) is Result, name
        assert results[name].attrs["analysis"] == name
    assert names == notebook.VIEWS.keys() == frames.ROWS.keys() | {"lineage", "statistics", "summarise"}


@pytest.mark.parametrize("name", sorted(notebook.VIEWS))
def test_a_notebook_shows_rows_before_the_html_of_xarray(results: Results, name: str) -> None:
    """No name is markup: an XML parser reads what is there, but for xarray's own HTML, which it refuses."""
    result = results[name]
    shown = result._repr_html_()
    ours, plain_html = shown.split("<summary>xarray.Dataset</summary>")
    assert "<div class='xr-wrap'" in plain_html
    root = ElementTree.fromstring(f"{ours}</details></div>")
    texts = [text for element in root.iter() if element.tag != "style" for text in (element.text or "",)]
    assert f"fdb.{name}" in texts[1]
    assert {element.tag for element in root.iter()} <= {
        "div", "style", "strong", "img", "table", "thead", "tbody", "tr", "th", "td", "p", "details"
    }  # fmt: skip
    assert len(root.findall(".//tbody/tr")) in range(1, notebook.ROWS + 1)
    pictures = root.findall(".//img")
    assert len(pictures) == (notebook.VIEWS[name].draw is not None)
    for word in ("snapshot", "layers", "filters"):
        assert result.attrs.get(word) is None or any(word.removesuffix("s") in text for text in texts), word
    for hostile in HOSTILE:
        assert hostile not in shown or "<" not in hostile


def test_pairs_have_words(results: Results) -> None:
    shown = results["drift"]._repr_html_()
    assert re.search(r"3 pairs: \d ([≠≈?=]) (differs|like noise|cannot tell|related)", shown)
    assert not re.search(r"<td>(different|indistinguishable|few)", shown)


@pytest.mark.parametrize("change", ["stack", "one group", "text", "arithmetic", "one variable", "lazy"])
def test_what_is_no_whole_result_has_the_html_of_xarray(results: Results, change: str) -> None:
    drift = results["drift"]
    changed: Any = {
        "stack": lambda: drift.stack(pair=("group", "other")),
        "one group": lambda: drift.isel(group=0, other=1),
        "text": lambda: drift,
        "arithmetic": lambda: drift[["drift"]] - drift[["drift"]],
        "one variable": lambda: drift[["drift"]],
        "lazy": drift.chunk,
    }[change]()
    with xr.set_options(display_style="text" if change == "text" else "html"):
        assert changed._repr_html_().startswith("<pre>" if change == "text" else "<div><svg")


def test_without_matplotlib_the_html_is_that_of_xarray(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook, "find_spec", lambda name: None)
    assert not results["pca"]._repr_html_().startswith('<div class="filterdb">')


@pytest.mark.soak
def test_a_large_result_is_shown_small(results: Results) -> None:
    """647 groups: a picture of bounded size, ten of 208,981 rows."""
    number = 647
    rng = np.random.default_rng(0)
    matrix = rng.random((number, number))
    labels = [f"{HOSTILE[i % 3]} {i}" * 20 for i in range(number)]
    data = {
        "drift": (("group", "other"), matrix + matrix.T), "count": ("group", np.arange(number)),
        "few": ("group", np.zeros(number, bool)), "models": ("group", np.ones(number, int)),
        "verdict": (("group", "other"), np.full((number, number), "different")),
    }  # fmt: skip
    large = Result(data, {"group": labels, "other": labels}, results["drift"].attrs)
    shown = large._repr_html_()
    assert shown.startswith('<div class="filterdb">') and "208,971 more rows" in shown
    assert len(shown) < 1_000_000
    assert len(large.to_dataframe()) == number * (number - 1) // 2


def test_selecting_keeps_the_class_and_files_return_a_dataset(results: Results, tmp_path: Path) -> None:
    """As documented in `Result`."""
    drift, pca = results["drift"], results["pca"]
    for kept in (
        drift.isel(group=[0]), drift.sel(group=drift["group"].values[0]), drift.assign(new=1), drift[["drift"]],
        drift.copy(deep=True), copy.copy(drift), pickle.loads(pickle.dumps(drift)), drift.drop_vars("few"),
        xr.concat([pca, pca], dim="time"), drift.chunk().compute(), dask.compute(drift.chunk())[0], pca.mean("group"),
    ):  # fmt: skip
        assert type(kept) is Result
    assert drift.identical(pickle.loads(pickle.dumps(drift)))
    assert tokenize(drift) == tokenize(pickle.loads(pickle.dumps(drift))) != tokenize(pca)
    for plain_dataset in (xr.merge([pca]), pca[["count"]] + pca[["count"]]):
        assert type(plain_dataset) is xr.Dataset
    pca.to_zarr(tmp_path / "pca.zarr")
    stored = xr.open_zarr(tmp_path / "pca.zarr").load()
    assert type(stored) is xr.Dataset
    xr.testing.assert_identical(stored, xr.merge([pca]).assign_attrs(stored.attrs))
    again = Result(stored.data_vars, stored.coords, stored.attrs)
    pd.testing.assert_frame_equal(again.to_dataframe(), pca.to_dataframe())


KEYS = {
    "check": ("rows", ["file", "layer"]), "codebook": ("rows", ["group"]), "degeneration": ("rows", ["model", "layer"]),
    "filter_scale": ("rows", ["group"]), "lineage": ("rows", ["model"]), "nearest": ("rows", ["model"]),
    "series": ("checkpoints", ["model"]), "spectrum": ("rows", ["group"]), "statistics": ("rows", ["column", "label"]),
}  # fmt: skip
"""Analyses whose answer has the same rows: the key of the answer, and the columns that identify a row."""


@pytest.mark.parametrize("name", sorted(KEYS.keys() - {"filter_scale"}))
def test_rows_are_those_of_the_command(results: Results, name: str) -> None:
    module = import_module("filterdb.commands." + {"check": "check_answer"}.get(name, name))
    result, (key, identity) = results[name], KEYS[name]
    answer = json.loads(json.dumps(plain(module.to_answer(result))))[key]
    table = result.to_dataframe()
    table = table.reset_index() if table.index.name else table
    assert len(table) == len(answer) and set(identity) <= set(table.columns)
    compared = 0
    for (_, row), expected in zip(table.iterrows(), answer, strict=True):
        for column in table.columns.intersection(pd.Index(expected)):
            value, wanted = row[column], expected[column]
            if (name, column) == ("check", "nonfinite"):
                value, wanted = row["reason"], expected["reason"]  # the column is the verdict
            if wanted is None:
                assert pd.isna(value) or value in {"", 0}, (column, value)
            elif not isinstance(wanted, list | dict):
                assert value == wanted, (column, value, wanted)
                compared += 1
    assert compared >= 5 * len(answer)


def test_pairs_are_those_of_the_command(results: Results) -> None:
    from filterdb.commands.drift import to_answer

    answer = to_answer(results["drift"])
    table = results["drift"].to_dataframe()
    groups = answer["groups"]
    assert len(table) == 3
    for row in table.itertuples():
        i, j = groups.index(row.group), groups.index(row.other)
        assert i < j
        for name in ("drift", "floor", "floor_q95", "model_floor", "p_value", "q_value"):
            np.testing.assert_equal(getattr(row, name), np.asarray(answer[name])[i, j])
        assert row.verdict == (answer["verdict"][i][j] or "")
        np.testing.assert_array_equal([row.c0, row.c8], np.asarray(answer["per_component"])[[0, 8], i, j])
    within = results["drift within"].to_dataframe()
    assert set(within["stratum"]) == set(results["drift within"]["stratum"].values.tolist()) and len(within) == 5


def test_components_are_those_of_the_command(results: Results) -> None:
    from filterdb.commands.pca import to_answer

    table = results["pca"].to_dataframe().set_index(["group", "component"])
    for group in to_answer(results["pca"])["groups"]:
        rows = table.loc[group["group"]]
        for name in ("explained_variance", "explained_variance_ratio", "singular_values"):
            np.testing.assert_array_equal(rows[name], group[name])
        np.testing.assert_array_equal(rows[[f"w{i}" for i in range(9)]], group["components"])
        assert set(rows["count"]) == {int(group["count"])}


def test_verdicts_are_columns(results: Results) -> None:
    result = results["degeneration"]
    table = result.to_dataframe()
    rules = result["rule"].values.tolist()
    np.testing.assert_array_equal(table[rules], result["verdict"].values)
    checked = results["check"]
    np.testing.assert_array_equal(checked.to_dataframe()[checked["rule"].values], checked["verdict"])


@pytest.mark.parametrize(
    ("name", "rows", "columns"),
    [
        ("density", lambda r: np.count_nonzero(r["counts"]), ["group", "c0", "c1", "filters"]),
        ("distributions", lambda r: r["std"].size, ["group", "component", "mean", "std", "count", "models"]),
        ("explain", lambda r: 9 + r.sizes["model"] + r.sizes["layer"], ["part", "name", "share", "without"]),
        ("phenotypes", lambda r: 3 * (9 + r.sizes["pair"]), ["group", "component"]),
        ("principal_angles", lambda r: 3 * r.sizes["dimension"], ["group", "other", "dimension", "angle"]),
        ("randomness_threshold", lambda r: r.sizes["size"], ["size"]),
        ("degeneration_drift", lambda r: r.sizes["measure"], ["measure"]),
        ("filter_scale", lambda r: int((r["decile_count"] > 0).sum()), ["group", "decile"]),
    ],
)
def test_a_row_for_each_part(results: Results, name: str, rows: Any, columns: list[str]) -> None:
    table = results[name].to_dataframe()
    assert len(table) == rows(results[name]) > 0
    assert list(table.columns[: len(columns)]) == columns
    assert table["share"][table["part"] == "component"].sum() == pytest.approx(1) if name == "explain" else True


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*notebook.VIEWS, "drift within"}))
def test_each_selection_has_a_table(results: Results, name: str) -> None:
    """One label of a dimension of the rows: xarray's table. A dimension that they do not have: the same rows."""
    result = results[name]
    whole = result.to_dataframe()
    for dim, size in result.sizes.items():
        for part in (slice(0, 1), slice(size - 1, size), slice(0, 0)):
            assert len(result.isel({dim: part}).to_dataframe()) >= 0
        single = result.isel({dim: 0})
        table = single.to_dataframe()
        if not single.sizes:
            assert len(table) == 1 and {str(name) for name in single.variables} == {*table.columns}
        elif (name, dim) == ("drift within", "stratum"):
            assert table["group"].tolist() == [a for a, _ in combinations(single["group"].values, 2)]
        elif dim in DIMENSIONS_OF_NO_ROW.get(name, ()):
            pd.testing.assert_frame_equal(table, whole)
        else:
            pd.testing.assert_frame_equal(table, xr.Dataset.to_dataframe(single))


DIMENSIONS_OF_NO_ROW = {
    "check": {"file"},
    "codebook": {"weight"},
    "degeneration": {"model", "group", "statistic"},
    "degeneration_drift": {"group"},
    "distributions": {"edge"},
    "drift": {"bin", "statistic", "edge"},
    "drift within": {"bin", "statistic", "edge"},
    "explain": {"bound", "side", "bin", "matched", "edge"},
    "pca": {"other", "dimension"},
    "randomness_threshold": {"constant"},
}
"""Dimensions of an analysis that no variable of its rows has."""


def test_bins_without_their_edges_have_no_centres(results: Results) -> None:
    density = results["density"]
    some = density.isel(bin=slice(20, 40))
    pd.testing.assert_frame_equal(some.to_dataframe(), xr.Dataset.to_dataframe(some))
    square = density.isel(bin=slice(20, 40), other_bin=slice(20, 40), edge=slice(20, 41)).to_dataframe()
    columns = [str(name) for name in square]
    assert 0 < len(square) == len(square.merge(density.to_dataframe(), on=columns))


def test_the_order_of_dimensions_asks_for_the_table_of_xarray(results: Results) -> None:
    within = results["filter_scale"][["decile_scale", "decile_count"]]
    pd.testing.assert_frame_equal(within.to_dataframe(), xr.merge([within]).to_dataframe())
    scale = results["filter_scale"]
    pd.testing.assert_frame_equal(
        scale.to_dataframe(["decile", "group"]), xr.merge([scale]).to_dataframe(["decile", "group"])
    )
