"""Figures of drift. Each takes the xarray result that `fdb.drift` gives, and gives a matplotlib Figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from filterdb.report import boxes
from filterdb.report.drawing import COLOURS, canvas, drawn, legible, short, visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RIDGES = 12
"""Groups that a ridge plot shows: the largest ones."""


@drawn
def heatmap(result: xr.Dataset) -> Figure:
    """The matrix of a `drift` result, in its order; each group with its number of filters (P1 fig. 7 and 8).

    Dots mark pairs that are not told apart from chance, where the result has a `verdict`. Up to 40 groups have labels,
    up to 13 their values.
    """
    return _matrix(result, np.arange(result.sizes["group"]), [])


@drawn
def families(result: xr.Dataset, family: np.ndarray) -> Figure:
    """The matrix of a `drift` result by model, models of one family side by side (P1 fig. 10).

    `family`: of each group of the result, (group,).
    """
    order = np.lexsort((np.arange(len(family)), family.astype(str)))
    borders = np.flatnonzero(family[order][1:] != family[order][:-1]) + 0.5
    return _matrix(result, order, borders.tolist())


def _matrix(result: xr.Dataset, order: np.ndarray, borders: list[float]) -> Figure:
    from matplotlib.colors import PowerNorm

    values = result["drift"].values[np.ix_(order, order)]
    groups = [
        f"{short(label)} ({count:,}{', few' if small else ''})"
        for label, count, small in zip(
            result["group"].values[order], result["count"].values[order], result["few"].values[order], strict=True
        )
    ]
    number = len(groups)
    side = min(9.0, 2.8 + 0.36 * number)
    figure = canvas(side + 1.2, side)
    axes = figure.subplots()
    largest = float(np.nanmax(values, initial=0.0)) or 1.0
    image = axes.imshow(values, cmap="cividis", norm=PowerNorm(0.5, 0.0, largest))
    axes.spines[:].set_visible(False)
    if legible(number):
        axes.set_xticks(range(number), groups, rotation=55, ha="right", rotation_mode="anchor", fontsize=8)
        axes.set_yticks(range(number), groups, fontsize=8)
    else:
        axes.set_xticks([])
        axes.set_yticks([])
    for border in borders:
        axes.axhline(border, color="white", linewidth=0.6)
        axes.axvline(border, color="white", linewidth=0.6)
    if legible(number, most=13):
        for i, j in np.ndindex(number, number):
            if i != j and np.isfinite(values[i, j]):
                colour = "black" if values[i, j] > largest * 0.3 else "white"
                axes.text(j, i, f"{values[i, j]:.2g}", ha="center", va="center", fontsize=7, color=colour)
    label = "drift D"
    if "verdict" in result and legible(number):
        alike = result["verdict"].values[np.ix_(order, order)] == "indistinguishable"
        rows, columns = np.nonzero(alike & ~np.eye(number, dtype=bool))
        axes.plot(columns, rows + 0.33, ".", color="white", markeredgecolor="black", markersize=5, markeredgewidth=0.4)
        label += " (dots: within chance)"
    figure.colorbar(image, ax=axes, label=label, shrink=0.8)
    axes.set_title(f"Drift by {visible(result.attrs['by']).replace('_', ' ')}", loc="left")
    return figure


@drawn
def ridges(result: xr.Dataset, groups: int = RIDGES) -> Figure:
    """Distributions of the nine coefficients, a ridge for each of the largest groups (P1 fig. 3)."""
    from matplotlib.collections import PolyCollection

    shown = np.sort(np.argsort(-result["count"].values, kind="stable")[:groups])
    edges = result["bin_edges"].values
    around = np.concatenate([edges[:1], (edges[1:] + edges[:-1]) / 2, edges[-1:]])
    density = result["probabilities"].values[shown] / np.diff(edges)
    low, high = _extent(density.sum(axis=(0, 1)), edges)
    labels = [short(label, 24) for label in result["group"].values[shown]]
    figure = canvas(10.0, 3 * (0.7 + 0.26 * len(shown)))
    for i, axes in enumerate(figure.subplots(3, 3, sharex=True, sharey=True).flat):
        top = density[:, i].max() or 1.0
        hills = [
            np.column_stack([around, base + 1.5 * np.concatenate([[0], one, [0]]) / top])
            for base, one in zip(range(len(shown))[::-1], density[:, i], strict=True)
        ]
        axes.add_collection(PolyCollection(hills, facecolor="#0072b28c", edgecolor="#083a5c", linewidth=0.7))
        axes.set_title(f"c{i} ({result['weights'].values[i]:.0%} of the variance)", fontsize=8, loc="left")
        axes.set_yticks(range(len(shown))[::-1], labels, fontsize=7)
        axes.tick_params(left=False)
        axes.spines["left"].set_visible(False)
        axes.set_xlim(low, high)
        axes.set_ylim(-0.1, len(shown) + 0.6)
    figure.supxlabel("coefficient", fontsize=9)
    return figure


def _extent(mass: np.ndarray, edges: np.ndarray, share: float = 5e-4) -> tuple[float, float]:
    """The range of bins outside of which next to nothing lies."""
    total = np.cumsum(mass) / mass.sum()
    first, last = np.searchsorted(total, [share, 1 - share])
    return float(edges[max(first - 1, 0)]), float(edges[min(last + 2, len(edges) - 1)])


@drawn
def pair(result: xr.Dataset, a: str, b: str) -> Figure:
    """The nine overlaid histograms of two groups of a `drift` result, and each component's share of their drift."""
    edges = result["bin_edges"].values
    p, q = (result["probabilities"].sel(group=label).values for label in (a, b))
    low, high = _extent((p + q).sum(axis=0), edges)
    parts = result["weights"].values * ((p - q) * np.log(p / q)).sum(axis=1)
    figure = canvas(9.0, 6.2)
    for i, axes in enumerate(figure.subplots(3, 3, sharex=True).flat):
        axes.stairs(p[i], edges, fill=True, color=COLOURS[0], alpha=0.45, label=short(a))
        axes.stairs(q[i], edges, color=COLOURS[1], linewidth=1.4, label=short(b))
        axes.set_title(f"c{i}: {parts[i] / (parts.sum() or 1.0):.0%} of D", fontsize=9, loc="left")
        axes.set_xlim(low, high)
        axes.set_yticks([])
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False)
    return figure


@drawn
def per_component(result: xr.Dataset) -> Figure:
    """Box plots of the unweighted KL_sym of each component over all pairs of groups (P1 fig. 6)."""
    return box_plot(boxes.by_component(result), "unweighted KL_sym", f"Drift per component, by {result.attrs['by']}")


@drawn
def groupings(results: dict[str, xr.Dataset]) -> Figure:
    """Box plots of D over all pairs of groups, one for each grouping's `drift` result (P2 fig. 4)."""
    return box_plot(boxes.by_grouping(results), "drift D", "Drift between the groups of each grouping")


@drawn
def deciles(result: xr.Dataset) -> Figure:
    """Box plots of D between models within each stratum of `fdb.drift(…, within="depth_decile")` (P1 fig. 9)."""
    return box_plot(
        boxes.by_stratum(result), "drift D between models", f"Drift between models, by {result.attrs['within']}"
    )


def box_plot(found: list[boxes.Box], label: str, title: str) -> Figure:
    """Boxes below each other, on a logarithmic scale where all is positive."""
    figure = canvas(7.5, 1.1 + 0.34 * max(len(found), 1))
    axes: Any = figure.subplots()
    stats = [
        {
            "label": short(one.label.replace("_", " ")),
            "whislo": one.low,
            "q1": one.q1,
            "med": one.median,
            "q3": one.q3,
            "whishi": one.high,
            "mean": one.mean,
            "fliers": one.outliers,
        }
        for one in found
    ]
    if stats:
        axes.bxp(
            stats,
            orientation="horizontal",
            showmeans=True,
            patch_artist=True,
            boxprops={"facecolor": "#cfe3f3", "edgecolor": "#083a5c"},
            medianprops={"color": COLOURS[1], "linewidth": 1.6},
            meanprops={"marker": "D", "markersize": 3.5, "markerfacecolor": "white", "markeredgecolor": "black"},
            flierprops={"marker": ".", "markersize": 3, "markeredgecolor": "#57606a"},
        )
        if all(one.low > 0 for one in found):
            axes.set_xscale("log")
    axes.invert_yaxis()
    axes.set_xlabel(f"{label} (line: median, diamond: mean)")
    axes.set_title(visible(title).replace("_", " "), loc="left")
    return figure
