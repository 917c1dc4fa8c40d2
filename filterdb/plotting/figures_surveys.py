"""Plots of what a database holds, of frequencies, and of trainings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from filterdb.plotting.drawing import COLOURS, LINES, check_result, drawn, new_figure, panel, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from filterdb.plotting.drawing import AnyFigure


@drawn
def contents(result: xr.Dataset, most: int = 20, *, fig: AnyFigure | None = None) -> npt.NDArray[Any]:
    """Draw filters and models of the `most` largest labels of each column of a `statistics` result (P2 A.4)."""
    check_result("contents", result, "fdb.statistics", "column", "label", "models", "filters")
    table = result.to_dataframe()
    columns = list(dict.fromkeys(table["column"]))
    parts = [table[table["column"] == column].nlargest(most, "filters") for column in columns]
    heights = [len(part) + 2 for part in parts]
    figure = new_figure(8.0, 0.22 * sum(heights) + 0.6) if fig is None else fig
    all_axes: Any = figure.subplots(len(parts), 1, height_ratios=heights, squeeze=False)[:, 0]
    for axes, column, part in zip(all_axes, columns, parts, strict=True):
        labels = [f"{short(label)} ({number:,})" for label, number in zip(part["label"], part["models"], strict=True)]
        axes.barh(range(len(part)), part["filters"], color=COLOURS[0])
        axes.set_yticks(range(len(part)), labels, fontsize=8)
        axes.invert_yaxis()
        axes.set_title(f"{short(column).replace('_', ' ')} (models)", loc="left", fontsize=9)
        axes.tick_params(labelsize=8)
    all_axes[-1].set_xlabel("filters")
    return all_axes  # type: ignore[no-any-return]


@drawn
def spectrum(result: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw the orientations of each group of a `spectrum` result as stacked bars, with its high and aliased shares."""
    check_result("spectrum", result, "fdb.spectrum", "group", "constant", "horizontal", "high", "aliasing")
    axes = panel(ax, 8.0, 3.4)
    groups = [short(label) for label in result["group"].values]
    index, base = np.arange(len(groups)), np.zeros(len(groups))
    for name, colour in zip(("constant", "horizontal", "vertical", "diagonal"), COLOURS, strict=False):
        values = np.nan_to_num(result[name].values)
        axes.bar(index, values, bottom=base, color=colour, alpha=0.75, width=0.7, label=name)
        base += values
    axes.plot(index, result["high"].values, color="#000000", marker="o", markersize=4, label="high frequencies")
    axes.plot(index, result["aliasing"].values, color="#000000", marker="x", linestyle=":", label="aliased by strides")
    axes.set_xticks(index, groups, rotation=30, ha="right", fontsize=8)
    axes.set_ylim(0, 1)
    axes.set_ylabel("share of the energy")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0, frameon=False, fontsize=8)
    return axes


@drawn
def series(result: xr.Dataset, most: int = 7, *, fig: AnyFigure | None = None) -> npt.NDArray[Any]:
    """Draw the drift of checkpoints to the last one of their training, and of retrainings, from `series` (P1 fig. 7).

    Shows the `most` trainings with the most checkpoints. Thin lines are the 95 % quantile of drift by chance. Returns
    two Axes.
    """
    check_result("series", result, "fdb.series", "training", "epoch", "drift", "floor_q95", "pair_drift", "to_nearest")
    figure = new_figure(9.5, 3.6) if fig is None else fig
    columns: Any = figure.subplots(1, 2)
    left, right = columns
    table = result[["training", "epoch", "drift", "floor_q95"]].to_dataframe()
    for i, training in enumerate(table["training"].value_counts().index[:most]):
        part = table[table["training"] == training]
        style = {"color": COLOURS[i], "linestyle": LINES[i % len(LINES)]}
        left.plot(part["epoch"], part["drift"], marker="o", markersize=3.5, label=short(training), **style)
        left.plot(part["epoch"], part["floor_q95"], linewidth=0.7, **style)
    left.set_xlabel("epoch")
    left.set_ylabel("drift to the last checkpoint")
    pairs = result[["pair_training", "pair_drift"]].to_dataframe()
    names = list(dict.fromkeys(pairs["pair_training"]))[:20]
    for i, name in enumerate(names):
        values = pairs.loc[pairs["pair_training"] == name, "pair_drift"]
        right.plot(values, np.full(len(values), i), "o", color=COLOURS[0], markersize=4, alpha=0.6)
        end = result["to_nearest"].values[i]
        right.plot([end], [i], "D", color=COLOURS[1], markersize=4)
    right.set_yticks(range(len(names)), [short(name, 24) for name in names], fontsize=7)
    right.set_xlabel("drift (dots: pairs of seeds,\ndiamond: nearest other training)")
    if len(table):
        left.legend(frameon=False, fontsize=7)
    return columns  # type: ignore[no-any-return]
