"""Plots of components, from results of `fdb.pca`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from filterdb.choices import COMPONENTS
from filterdb.plotting.drawing import COLOURS, check_result, drawn, kernel_of, new_figure, short

if TYPE_CHECKING:
    from filterdb.plotting.drawing import AnyFigure

_NEEDED = ("components", "explained_variance_ratio", "group", "count")


def _of_all(shown: int, components: int) -> str:
    """Return which components a figure shows, if not all."""
    return "" if shown == components else f"the leading {shown} of {components} components"


@drawn
def basis(result: xr.Dataset, group: int = 0, *, fig: AnyFigure | None = None) -> npt.NDArray[Any]:
    """Draw the leading components of one group of a `pca` result as pictures with their variance (P1 fig. 5).

    Returns two Axes, of the pictures and of the variances.
    """
    check_result("basis", result, "fdb.pca", *_NEEDED)
    components = result["components"].values[group, :COMPONENTS]
    ratios = result["explained_variance_ratio"].values[group, :COMPONENTS]
    limit = float(np.abs(components).max()) or 1.0
    figure = new_figure(9.0, 3.6) if fig is None else fig
    rows: Any = figure.subplots(2, 1, height_ratios=[1, 1.2])
    rows[0].set_axis_off()
    for i, component in enumerate(components):
        axes = rows[0].inset_axes((i / 9 + 0.006, 0.0, 0.098, 0.95))
        axes.imshow(component.reshape(kernel_of(result)), cmap="PuOr", vmin=-limit, vmax=limit)
        axes.set_title(f"c{i}", fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
    index = np.arange(len(ratios))
    rows[1].bar(index, ratios, color=COLOURS[0], width=0.6, label="each")
    rows[1].plot(index, np.cumsum(ratios), color=COLOURS[1], marker="o", markersize=4, label="cumulative")
    for i, (share, total) in enumerate(zip(ratios, np.cumsum(ratios), strict=True)):
        rows[1].annotate(f"{share:.1%}", (i, share), ha="center", va="bottom", fontsize=7)
        if i:  # the first sum is the first share, which already has a label
            above = {"xytext": (0, 4), "textcoords": "offset points"}
            rows[1].annotate(f"{total:.0%}", (i, total), ha="center", va="bottom", fontsize=7, **above)
    rows[1].set_xticks(index, [f"c{i}" for i in index])
    rows[1].set_ylim(0, 1.15)
    rows[1].set_ylabel("share of the variance")
    rows[1].set_xlabel(_of_all(len(ratios), result.sizes["component"]))
    rows[1].legend(frameon=False, loc="center right" if np.sum(ratios) > 0.9 else "upper left", fontsize=8)
    return rows  # type: ignore[no-any-return]


@drawn
def bases(result: xr.Dataset, groups: int = 12, *, fig: AnyFigure | None = None) -> npt.NDArray[Any]:
    """Draw the leading components of the largest groups of a `pca` result, a row for each group (P1 fig. 5)."""
    check_result("bases", result, "fdb.pca", *_NEEDED)
    shown = np.sort(np.argsort(-result["count"].values, kind="stable")[:groups])
    figure = new_figure(9.5, 0.4 + 1.15 * len(shown)) if fig is None else fig
    grid: Any = figure.subplots(len(shown), min(result.sizes["component"], COMPONENTS), squeeze=False)
    for row, group in zip(grid, shown, strict=True):
        components = result["components"].values[group, :COMPONENTS]
        limit = float(np.abs(components).max()) or 1.0
        ratios = result["explained_variance_ratio"].values[group, :COMPONENTS]
        for i, (axes, component, ratio) in enumerate(zip(row, components, ratios, strict=True)):
            axes.imshow(component.reshape(kernel_of(result)), cmap="PuOr", vmin=-limit, vmax=limit)
            axes.set_title(f"c{i} {ratio:.1%}", fontsize=7)
            axes.set_xticks([])
            axes.set_yticks([])
        name = f"{short(result['group'].values[group], 22)}\n{result['count'].values[group]:,}"
        row[0].set_ylabel(name, fontsize=7, rotation=0, ha="right", va="center")
    return grid  # type: ignore[no-any-return]
