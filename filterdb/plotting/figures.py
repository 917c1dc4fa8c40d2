"""Figures of results. Each function takes the xarray result of an analysis and returns a matplotlib Figure.

Show it in a notebook, or save it:

>>> from filterdb.plotting import figures
>>> figures.heatmap(fdb.drift(db, by="task")).savefig("task.svg")   # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from filterdb.choices import COMPONENTS
from filterdb.numerics.box import box
from filterdb.numerics.depth import NO_DECILE, depth_decile
from filterdb.plotting import box_numbers as boxes
from filterdb.plotting.box_plot import box_plot, draw_boxes
from filterdb.plotting.drawing import COLOURS, LINES, canvas, drawn, short
from filterdb.plotting.figures_codebook import codebook
from filterdb.plotting.figures_density import corner, density
from filterdb.plotting.figures_drift import deciles, families, groupings, heatmap, pair, per_component, ridges
from filterdb.schema import KERNEL, WEIGHTS, Kernel, kernel_name, parse_kernel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "bases",
    "basis",
    "codebook",
    "contents",
    "corner",
    "deciles",
    "degeneration_boxes",
    "density",
    "entropy_and_sparsity",
    "families",
    "filter_scale",
    "first_filters",
    "groupings",
    "heatmap",
    "pair",
    "per_component",
    "ridges",
    "series",
    "spectrum",
]

LARGEST_ENTROPY = float(np.log10(WEIGHTS))
"""Largest variance entropy of a layer of 3×3 filters."""


def kernel_of(result: xr.Dataset) -> Kernel:
    """Return the shape of the filters that a result is about."""
    return parse_kernel(result.attrs.get("kernel", kernel_name(KERNEL)))


def _of_all(shown: int, components: int) -> str:
    """Return which components a figure shows, if not all."""
    return "" if shown == components else f"the leading {shown} of {components} components"


@drawn
def basis(result: xr.Dataset, group: int = 0) -> Figure:
    """Draw the leading components of one group of a `pca` result as pictures with their variance (P1 fig. 5)."""
    components = result["components"].values[group, :COMPONENTS]
    ratios = result["explained_variance_ratio"].values[group, :COMPONENTS]
    limit = float(np.abs(components).max()) or 1.0
    figure = canvas(9.0, 3.6)
    rows = figure.subplots(2, 1, height_ratios=[1, 1.2])
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
    return figure


@drawn
def bases(result: xr.Dataset, groups: int = 12) -> Figure:
    """Draw the leading components of the largest groups of a `pca` result, a row for each group (P1 fig. 5)."""
    shown = np.sort(np.argsort(-result["count"].values, kind="stable")[:groups])
    figure = canvas(9.5, 0.4 + 1.15 * len(shown))
    grid = figure.subplots(len(shown), min(result.sizes["component"], COMPONENTS), squeeze=False)
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
    return figure


@drawn
def contents(result: xr.Dataset, most: int = 20) -> Figure:
    """Draw filters and models of the `most` largest labels of each column of a `statistics` result (P2 A.4)."""
    table = result.to_dataframe()
    columns = list(dict.fromkeys(table["column"]))
    parts = [table[table["column"] == column].nlargest(most, "filters") for column in columns]
    heights = [len(part) + 2 for part in parts]
    figure = canvas(8.0, 0.22 * sum(heights) + 0.6)
    all_axes = figure.subplots(len(parts), 1, height_ratios=heights, squeeze=False)[:, 0]
    for axes, column, part in zip(all_axes, columns, parts, strict=True):
        labels = [f"{short(label)} ({number:,})" for label, number in zip(part["label"], part["models"], strict=True)]
        axes.barh(range(len(part)), part["filters"], color=COLOURS[0])
        axes.set_yticks(range(len(part)), labels, fontsize=8)
        axes.invert_yaxis()
        axes.set_title(f"{short(column).replace('_', ' ')} (models)", loc="left", fontsize=9)
        axes.tick_params(labelsize=8)
    all_axes[-1].set_xlabel("filters")
    return figure


@drawn
def filter_scale(result: xr.Dataset) -> Figure:
    """Draw box plots over groups of the filters' scale in each tenth of the depth, from `filter_scale` (P2 fig. 6)."""
    title = f"Scale of the filters, by {result.attrs['by']}"
    return box_plot(boxes.by_decile(result), "mean of (largest − smallest weight)", title)


@drawn
def spectrum(result: xr.Dataset) -> Figure:
    """Draw the orientations of each group of a `spectrum` result as stacked bars, with its high and aliased shares."""
    figure = canvas(8.0, 3.4)
    axes = figure.subplots()
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
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    return figure


@drawn
def series(result: xr.Dataset, most: int = 7) -> Figure:
    """Draw the drift of checkpoints to the last one of their training, and of retrainings, from `series` (P1 fig. 7).

    Shows the `most` trainings with the most checkpoints. Thin lines are the 95 % quantile of drift by chance.
    """
    figure = canvas(9.5, 3.6)
    left, right = figure.subplots(1, 2)
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
    right.set_xlabel("drift (dots: pairs of seeds, diamond: nearest other training)")
    if len(table):
        left.legend(frameon=False, fontsize=7)
    return figure


@drawn
def entropy_and_sparsity(result: xr.Dataset, groups: np.ndarray | None = None) -> Figure:
    """Draw variance entropy and sparsity of every layer of a `degeneration` result over its depth (P1 fig. 2).

    A line shows the means of each tenth of the depth; with labels `groups` (layer,), a line for each of the seven
    largest.
    """
    figure = canvas(9.5, 3.6)
    left, right = figure.subplots(1, 2, sharex=True)
    depth = result["conv_depth_norm"].values
    decile = depth_decile(depth)
    names = np.full(len(depth), "all layers", object) if groups is None else groups.astype(object)
    largest = pd.Series(names).value_counts().index[: len(COLOURS)]
    bad = result["verdict"].values.any(axis=1)
    for axes, name in ((left, "variance_entropy"), (right, "sparsity")):
        values = result[name].values
        for mask, marker, label in ((~bad, "o", "no verdict"), (bad, "D", "verdict")):
            axes.scatter(
                depth[mask], values[mask], s=9, alpha=0.35, lw=0, marker=marker,
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
    return figure


@drawn
def degeneration_boxes(result: xr.Dataset, groups: int = 40) -> Figure:
    """Draw box plots of entropy and sparsity over the layers of each group of a `degeneration` result (P1 fig. 2).

    Shows the first `groups` groups. By a product of a label and `depth_decile`, each box is a tenth of the depth.
    """
    labels = result["group"].values[:groups]
    figure = canvas(9.5, 1.1 + 0.3 * max(len(labels), 1))
    columns = figure.subplots(1, 2, sharey=True)
    members = [result["layer_group"].values == label for label in labels]
    for axes, name in zip(columns, ("variance_entropy", "sparsity"), strict=True):
        rows = [box(label, result[name].values[of]) for label, of in zip(labels, members, strict=True)]
        draw_boxes(axes, [row for row in rows if row is not None])
        axes.set_xlabel(f"{name.replace('_', ' ')} (line: median, diamond: mean)")
    columns[0].invert_yaxis()
    return figure


@drawn
def first_filters(result: xr.Dataset, model: str | None = None, layers: int = 24) -> Figure:
    """Draw the first filters of each layer of a model (P1 fig. 1), each layer on its own scale.

    Takes the `first_filters` result: `filters` (layer, number, weight), `layer_model` and `layer_name` (layer).
    """
    models = result["layer_model"].values
    chosen = np.flatnonzero(models == (models[0] if model is None else model))[:layers]
    number = result.sizes["number"]
    figure = canvas(2.6 + 0.34 * number, 0.5 + 0.36 * len(chosen))
    axes = figure.subplots()
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
    return figure
