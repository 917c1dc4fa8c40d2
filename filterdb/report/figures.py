"""Figures from results, as SVG text. Each takes the xarray result that the analysis of the same name gives."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import xarray as xr

from filterdb.errors import MissingExtraError
from filterdb.schema import KERNEL

LABELLED = 40
"""Heatmaps of more groups have no tick labels: they could not be read."""


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("report: figures need the extra: pip install 'filterdb[report]'") from error
    with rc_context({"svg.fonttype": "none", "font.family": "sans-serif"}):
        return Figure(figsize=(width, height), layout="constrained")


def _svg(figure: Any, title: str) -> str:
    """The figure as an SVG element, the same bytes each time."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": title, "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Title": title})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def basis(result: xr.Dataset, group: int = 0) -> str:
    """The nine components of one group of a `pca` result as 3×3 pictures, each with its ratio (P1 fig. 5)."""
    components = result["components"].values[group]
    ratios = result["explained_variance_ratio"].values[group]
    limit = float(np.abs(components).max()) or 1.0
    figure = _figure(9.0, 1.7)
    for i, axes in enumerate(figure.subplots(1, len(components))):
        axes.imshow(components[i].reshape(KERNEL), cmap="PuOr", vmin=-limit, vmax=limit)
        axes.set_title(f"c{i}", fontsize=9)
        axes.set_xlabel(f"{ratios[i]:.1%}\nΣ {ratios[: i + 1].sum():.1%}", fontsize=8)
        axes.set_xticks([])
        axes.set_yticks([])
    return _svg(figure, "Basis of all filters")


def heatmap(result: xr.Dataset) -> str:
    """The matrix of a `drift` result, in its order; each group with its number of filters."""
    counts, few = result["count"].values, result["few"].values
    groups = [
        f"{label} ({count:,}{', few' if small else ''})"
        for label, count, small in zip(result["group"].values, counts, few, strict=True)
    ]
    number = len(groups)
    side = min(9.0, 2.5 + 0.35 * number)
    figure = _figure(side + 1.2, side)
    axes = figure.subplots()
    image = axes.imshow(result["drift"].values, cmap="viridis")
    if number <= LABELLED:
        axes.set_xticks(range(number), groups, rotation=60, ha="right", rotation_mode="anchor", fontsize=8)
        axes.set_yticks(range(number), groups, fontsize=8)
    if number <= LABELLED // 3:
        values = result["drift"].values
        middle = (values.max() or 1.0) / 2
        for i in range(number):
            for j in range(number):
                colour = "black" if values[i, j] > middle else "white"
                axes.text(j, i, f"{values[i, j]:.2g}", ha="center", va="center", fontsize=7, color=colour)
    figure.colorbar(image, ax=axes, label="drift D")
    return _svg(figure, f"Drift by {result.attrs['by']}")


def entropy_and_sparsity(result: xr.Dataset) -> str:
    """Variance entropy and sparsity of every layer over its depth (P1 fig. 2)."""
    figure = _figure(9.0, 3.4)
    left, right = figure.subplots(1, 2, sharex=True)
    depth = result["conv_depth_norm"].values
    size = np.clip(np.sqrt(result["filters"].values) / 4, 3, 40)
    bad = result["verdict"].values.any(axis=1)
    for axes, name in ((left, "variance_entropy"), (right, "sparsity")):
        values = result[name].values
        axes.scatter(depth[~bad], values[~bad], s=size[~bad], alpha=0.7, color="#2166ac", label="no verdict")
        axes.scatter(depth[bad], values[bad], s=size[bad], alpha=0.9, color="#b2182b", marker="D", label="verdict")
        axes.set_xlabel("depth of the layer (0 first, 1 last)")
        axes.set_ylabel(name.replace("_", " "))
        axes.spines[["top", "right"]].set_visible(False)
    left.axhline(np.log10(9), color="grey", linewidth=0.8, linestyle=":")
    left.annotate("largest possible", (1, np.log10(9)), ha="right", va="bottom", fontsize=7, color="grey")
    right.legend(frameon=False, fontsize=8)
    return _svg(figure, "Entropy and sparsity over depth")
