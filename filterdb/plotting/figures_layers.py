"""Plots of layers: entropy and sparsity over the depth, and first filters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from filterdb.errors import UsageError
from filterdb.numerics.depth import NO_DECILE, depth_decile
from filterdb.plotting.drawing import COLOURS, LINES, check_result, drawn, kernel_of, new_figure, panel, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from filterdb.plotting.drawing import AnyFigure


@drawn
def depth(result: xr.Dataset, groups: npt.ArrayLike | None = None, *, fig: AnyFigure | None = None) -> npt.NDArray[Any]:
    """Draw variance entropy and sparsity of every layer of a `degeneration` result over its depth (P1 fig. 2).

    A line shows the means of each tenth of the depth; with labels `groups` (layer,), a line for each of the seven
    largest. Returns two Axes.
    """
    check_result("depth", result, "fdb.degeneration", "variance_entropy", "sparsity", "verdict", "conv_depth_norm")
    figure = new_figure(9.5, 3.6) if fig is None else fig
    columns: Any = figure.subplots(1, 2, sharex=True)
    left, right = columns
    depths = result["conv_depth_norm"].values
    decile = depth_decile(depths)
    names = np.full(len(depths), "all layers", object) if groups is None else np.asarray(groups).astype(object)
    largest = pd.Series(names).value_counts().index[: len(COLOURS)]
    bad = result["verdict"].values.any(axis=1)
    for axes, name in ((left, "variance_entropy"), (right, "sparsity")):
        values = result[name].values
        for mask, marker, label in ((~bad, "o", "no verdict"), (bad, "D", "verdict")):
            axes.scatter(
                depths[mask], values[mask], s=9, alpha=0.35, lw=0, marker=marker,
                color="#8a939c" if marker == "o" else "#b2182b", label=label, rasterized=True,
            )  # fmt: skip
        for i, group in enumerate(largest):
            here = (names == group) & (decile != NO_DECILE)
            mean = pd.Series(values[here]).groupby(decile[here]).mean()
            axes.plot(
                (mean.index + 0.5) / 10, mean, color=COLOURS[i], linestyle=LINES[i % len(LINES)], label=short(group, 24)
            )
        axes.set_xlabel("depth of the layer (0 first, 1 last)")
        axes.set_ylabel(name.replace("_", " "))
    largest_entropy = float(np.log10(np.prod(kernel_of(result))))
    left.axhline(largest_entropy, color="grey", linewidth=0.8, linestyle=":")
    left.annotate("largest possible", (1, largest_entropy), ha="right", va="bottom", fontsize=7, color="grey")
    figure.legend(*right.get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=8)
    return columns  # type: ignore[no-any-return]


@drawn
def first_filters(result: xr.Dataset, model: str | None = None, layers: int = 24, *, ax: Axes | None = None) -> Axes:
    """Draw the first filters of each layer of a model (P1 fig. 1), each layer on its own scale.

    Takes the `first_filters` result: `filters` (layer, number, weight), `layer_model` and `layer_name` (layer).
    """
    check_result(
        "first_filters", result, "filterdb.page.first_filters", "filters", "number", "layer_model", "layer_name"
    )
    models = result["layer_model"].values
    chosen = np.flatnonzero(models == (models[0] if model is None else model))[:layers]
    if not len(chosen):
        raise UsageError(f"plot.first_filters: expected a model of the result, got {model!r}")
    number = result.sizes["number"]
    axes = panel(ax, 2.6 + 0.34 * number, 0.5 + 0.36 * len(chosen))
    rows, columns = kernel_of(result)
    picture = np.full((len(chosen) * (rows + 1), number * (columns + 1)), np.nan)
    for row, i in enumerate(chosen):
        filters = result["filters"].values[i]
        limit = np.nanmax(np.abs(filters), initial=0.0) or 1.0
        for column, weights in enumerate(filters):
            top, left = row * (rows + 1), column * (columns + 1)
            picture[top : top + rows, left : left + columns] = weights.reshape(rows, columns) / limit
    axes.imshow(picture, cmap="PuOr", vmin=-1, vmax=1, interpolation="nearest")
    names = [short(result["layer_name"].values[i], 28) for i in chosen]
    axes.set_yticks(np.arange(len(chosen)) * (rows + 1) + (rows - 1) / 2, names, fontsize=7)
    axes.set_xticks([])
    axes.tick_params(left=False)
    axes.spines[:].set_visible(False)
    axes.set_title(short(models[chosen[0]]), loc="left")
    return axes
