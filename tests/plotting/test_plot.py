"""Every function of `fdb.plot`: Axes in and out, in the caller's style, whatever the names are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import filterdb as fdb
from filterdb.errors import UsageError
from filterdb.plotting import figures, plot

Results = dict[str, Any]

CALLS: dict[str, Callable[..., Any]] = {
    "bases": lambda r, **to: fdb.plot.bases(r["pca"], 1, **to),
    "basis": lambda r, **to: fdb.plot.basis(r["pca"], 1, **to),
    "bivariate": lambda r, **to: fdb.plot.bivariate(r["density"], r["phenotypes"], **to),
    "boxes": lambda r, **to: fdb.plot.boxes(r["degeneration"], **to),
    "codebook": lambda r, **to: fdb.plot.codebook(r["codebook"], **to),
    "contents": lambda r, **to: fdb.plot.contents(r["statistics"], **to),
    "corner": lambda r, **to: fdb.plot.corner({(0, 1): r["density"]}, **to),
    "depth": lambda r, **to: fdb.plot.depth(r["degeneration"], r["degeneration"]["layer_model"].values, **to),
    "drift": lambda r, **to: fdb.plot.drift(r["drift"], family=r["family"], **to),
    "first_filters": lambda r, **to: fdb.plot.first_filters(r["first_filters"], **to),
    "pair": lambda r, **to: fdb.plot.pair(r["drift"], *r["drift"]["group"].values[:2].tolist(), **to),
    "ridges": lambda r, **to: fdb.plot.ridges(r["distributions"], **to),
    "series": lambda r, **to: fdb.plot.series(r["series"], **to),
    "spectrum": lambda r, **to: fdb.plot.spectrum(r["spectrum"], **to),
}

SEVERAL = {"bases", "basis", "bivariate", "codebook", "contents", "depth", "series"}
"""Functions that draw several panels."""


@pytest.fixture(autouse=True)
def no_figures_left() -> Iterator[None]:
    yield
    plt.close("all")


def axes_of(drawing: Any) -> list[Axes]:
    return list(drawing.flat) if isinstance(drawing, np.ndarray) else [drawing]


def test_every_function_is_called() -> None:
    assert CALLS.keys() == set(fdb.plot.__all__)


@pytest.mark.parametrize("name", CALLS)
def test_axes_in_and_out(results: Results, name: str) -> None:
    """One panel goes into `ax`, several into a subfigure, beside what the caller draws; names are no formulas."""
    settings = dict(mpl.rcParams)
    figure = plt.figure(figsize=(10, 5), layout="constrained")
    left, right = figure.subfigures(1, 2)
    mine = left.subplots()
    mine.set_title("$x^2$")
    into = {"fig": right} if name in SEVERAL else {"ax": right.subplots()}
    drawing = CALLS[name](results, **into)
    assert isinstance(drawing, np.ndarray) == (name in SEVERAL)
    if name in SEVERAL:
        assert {axes.figure for axes in axes_of(drawing)} == {right}
    else:
        assert drawing is into["ax"]
    figure.canvas.draw()  # reads names as formulas and fails, if any may be one
    assert dict(mpl.rcParams) == settings
    assert mine.title.get_parse_math()
    assert plt.get_fignums() == [figure.number]


@pytest.mark.parametrize("name", ["boxes", "series", "spectrum"])  # the gallery draws all into new figures
def test_a_new_figure_has_the_style_of_the_caller(results: Results, name: str) -> None:
    with mpl.rc_context({"axes.facecolor": "#102030"}):
        drawing = CALLS[name](results)
    assert len(plt.get_fignums()) == 1
    for axes in axes_of(drawing):
        assert isinstance(axes, Axes)
        assert mpl.colors.to_hex(axes.get_facecolor()) == "#102030"


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_result_is_one_line_that_names_the_function(results: Results, name: str) -> None:
    wrong = results["principal_angles"]
    more = ("a", "b") if name == "pair" else ()
    for result in (wrong, {}, {(0, 1): wrong}, {"a": wrong}, 3):
        if name == "boxes" and result == {}:
            continue  # no groupings: an empty plot
        with pytest.raises(UsageError, match=rf"^plot\.{name}: expected .*") as caught:
            getattr(fdb.plot, name)(result, *more)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


@pytest.mark.parametrize("kind", ["drift", "drift within", "filter_scale", "degeneration", "by grouping"])
def test_boxes_of_every_result(results: Results, kind: str) -> None:
    result = {"task": results["drift"]} if kind == "by grouping" else results[kind]
    axes = fdb.plot.boxes(result)
    assert axes.yaxis_inverted() and axes.get_xlabel().endswith("(line: median, diamond: mean)")
    expected = {"drift": 9, "drift within": 3, "filter_scale": 10, "degeneration": 3, "by grouping": 1}[kind]
    assert 1 <= len(axes.patches) <= expected
    fdb.plot.boxes(results["degeneration"], measure="sparsity", ax=axes)
    assert axes.yaxis_inverted()


@pytest.mark.parametrize("name", plot.RENAMED)
def test_an_old_name_returns_a_figure(results: Results, name: str) -> None:
    args = {
        "degeneration_boxes": ["degeneration"], "deciles": ["drift within"], "density": ["density", "phenotypes"],
        "entropy_and_sparsity": ["degeneration"], "families": ["drift", "family"], "filter_scale": ["filter_scale"],
    }.get(name, ["drift"])  # fmt: skip
    given: list[Any] = [results[arg] for arg in args]
    if name == "groupings":
        given = [{"task": results["drift"]}]
    with pytest.warns(DeprecationWarning, match=rf"fdb\.plot\.{name} returns a Figure; use fdb\.plot\.\w+"):
        draw = getattr(fdb.plot, name)
    assert isinstance(draw(*given), Figure)
    assert plot.RENAMED[name] in fdb.plot.__all__
    assert plt.get_fignums() == []


def test_files_know_nothing_of_pyplot_and_of_the_callers_style(results: Results) -> None:
    with mpl.rc_context({"axes.facecolor": "#102030"}):
        figure = figures.heatmap(results["drift"])
    assert plt.get_fignums() == []
    assert mpl.colors.to_hex(figure.axes[0].get_facecolor()) == "#ffffff"


def test_numbers_of_a_matrix_are_those_of_the_result(results: Results) -> None:
    result = results["drift"]
    axes = fdb.plot.drift(result)
    np.testing.assert_array_equal(axes.images[0].get_array(), result["drift"].values)
    order = np.argsort(results["family"], kind="stable")
    axes = fdb.plot.drift(result, family=results["family"])
    np.testing.assert_array_equal(axes.images[0].get_array(), result["drift"].values[np.ix_(order, order)])


def test_a_stratum_is_chosen(results: Results) -> None:
    within = results["drift within"]
    with pytest.raises(UsageError, match=r"choose with \.sel\(stratum=…\)"):
        fdb.plot.drift(within)
    fdb.plot.drift(within.isel(stratum=0))
