"""Plots of bivariate densities, from results of `fdb.density`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from filterdb.errors import UsageError
from filterdb.plotting.drawing import check_result, drawn, new_figure, panel, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from filterdb.plotting.drawing import AnyFigure


@drawn
def bivariate(
    result: xr.Dataset, phenotypes: xr.Dataset | None = None, groups: int = 12, *, fig: AnyFigure | None = None
) -> npt.NDArray[Any]:
    """Draw the bivariate density of two components for the largest groups of a `density` result (P1 fig. 4).

    Each group has its own logarithmic scale. `phenotypes` is the `phenotypes` result of the same grouping; if it has
    the pair, titles show the phenotypes.
    """
    check_result("bivariate", result, "fdb.density", "counts", "bin_edges", "count", "other_bin")
    first, second = result.attrs["components"]
    shown = np.sort(np.argsort(-result["count"].values, kind="stable")[:groups])
    columns = min(4, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure = new_figure(2.3 * columns + 0.4, 2.4 * rows + 0.3) if fig is None else fig
    grid: Any = figure.subplots(rows, columns, squeeze=False)
    window = _window(result["counts"].values.sum(axis=0), result["bin_edges"].values)
    for axes in grid.flat[len(shown) :]:
        axes.set_axis_off()
    for axes, group in zip(grid.flat, shown, strict=False):
        _plane(axes, result["counts"].values[group], result["bin_edges"].values, window)
        label = result["group"].values[group]
        kind = "" if phenotypes is None else _kind(phenotypes, group, f"{first},{second}")
        axes.set_title(f"{short(label, 22)}{kind}", fontsize=8, loc="left")
    figure.supxlabel(f"coefficient c{first}", fontsize=9)
    figure.supylabel(f"coefficient c{second}", fontsize=9)
    return grid.ravel()[: len(shown)]  # type: ignore[no-any-return]


@drawn
def corner(results: Mapping[tuple[int, int], xr.Dataset], *, ax: Axes | None = None) -> Axes:
    """Draw the bivariate densities of all filters, a small picture for each pair (first, second) of `results`."""
    given: Any = results
    if isinstance(given, xr.Dataset) or not isinstance(given, Mapping) or not given:
        raise UsageError("plot.corner: expected fdb.density results by pair of components, got no such mapping")
    for result in results.values():
        check_result("corner", result, "fdb.density", "counts", "other_bin")
    size = max(second for _, second in results)
    # A single Axes: one for each pair takes seconds.
    axes: Any = panel(ax, 1.05 * size + 0.4, 1.05 * size + 0.4)
    for (first, second), result in results.items():
        counts = result["counts"].values.sum(axis=0)
        low, high = extent(counts)
        image = np.log1p(counts[low:high, low:high].T)
        # Rows go from c1 at the top to the last component at the bottom.
        window = (first, first + 0.95, size - second, size - second + 0.95)
        axes.imshow(image, origin="lower", extent=window, cmap="cividis", interpolation="nearest")
    axes.set_xlim(0, size)
    axes.set_ylim(0, size)
    axes.set_xticks(np.arange(size) + 0.475, [f"c{i}" for i in range(size)], fontsize=8)
    axes.set_yticks(np.arange(size) + 0.475, [f"c{size - i}" for i in range(size)], fontsize=8)
    axes.tick_params(left=False, bottom=False)
    axes.spines[:].set_visible(False)
    return axes  # type: ignore[no-any-return]


def _kind(phenotypes: xr.Dataset, group: int, pair: str) -> str:
    matches = np.flatnonzero(phenotypes["pair"].values.astype(str) == pair)
    return f": {phenotypes['pair_phenotype'].values[group, matches[0]]}" if matches.size else ""


def _plane(axes: Any, counts: np.ndarray, edges: np.ndarray, window: tuple[float, float]) -> None:
    extent = (edges[0], edges[-1], edges[0], edges[-1])
    axes.imshow(np.log1p(counts.T), origin="lower", extent=extent, cmap="cividis", interpolation="nearest")
    axes.set_xlim(window)
    axes.set_ylim(window)
    axes.tick_params(labelsize=7)


def _window(counts: np.ndarray, edges: np.ndarray, share: float = 5e-4) -> tuple[float, float]:
    """Return the range of coefficients that holds nearly all of the filters on both axes."""
    first, last = extent(counts, share)
    return float(edges[first]), float(edges[last])


def extent(counts: np.ndarray, share: float = 5e-4) -> tuple[int, int]:
    """Return the first bin, and the one after the last, of the range that holds nearly all filters on both axes."""
    mass = np.cumsum(counts.sum(axis=0) + counts.sum(axis=1))
    first, last = np.searchsorted(mass / max(mass[-1], 1), [share, 1 - share])
    return max(int(first) - 1, 0), min(int(last) + 2, len(counts))
