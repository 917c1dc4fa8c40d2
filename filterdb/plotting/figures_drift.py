"""Plots of drift: the matrix, ridges, and two groups on top of each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from filterdb.choices import COMPONENTS
from filterdb.errors import UsageError
from filterdb.numerics.divergence import symmetric_kl
from filterdb.plotting.drawing import COLOURS, check_result, drawn, legible, panel, short, visible
from filterdb.plotting.panels import Panels
from filterdb.verdicts import verdict_of
from filterdb.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = npt.NDArray[np.float64]

RIDGES = 12
"""Largest groups shown in a ridge plot."""


@drawn
def drift(result: xr.Dataset, *, family: npt.ArrayLike | None = None, ax: Axes | None = None) -> Axes:
    """Draw the matrix of a `drift` result in its order, with models and filters of each group (P1 fig. 7, 8 and 10).

    Symbols mark the verdict of each pair, if the result has a `verdict`. Up to 40 groups have labels,
    up to 13 also have the values.

    Parameters
    ----------
    result : xarray.Dataset
        A result of `drift`; of one with `within`, a stratum.
    family : array of str, optional
        The family of each group, (group,). Groups of one family are then next to each other. Default: the order of the
        result.
    ax : matplotlib.axes.Axes, optional
        Where to draw. Default: a new figure.
    """
    check_result("drift", result, "fdb.drift", "drift", "group", "other", "count")
    if "stratum" in result["drift"].dims:
        raise UsageError("plot.drift: expected one matrix, got one for each stratum; choose with .sel(stratum=…)")
    if family is None:
        return _matrix(result, np.arange(result.sizes["group"]), [], ax)
    families = np.asarray(family).astype(str)
    order = np.lexsort((np.arange(len(families)), families))
    borders = np.flatnonzero(families[order][1:] != families[order][:-1]) + 0.5
    return _matrix(result, order, borders.tolist(), ax)


def _matrix(result: xr.Dataset, order: npt.NDArray[np.int64], borders: list[float], ax: Axes | None) -> Axes:
    """Draw the matrix with groups in `order` and lines at `borders`."""
    from matplotlib.colors import PowerNorm

    values = result["drift"].values[np.ix_(order, order)]
    groups = [
        f"{short(label)} ({counted(models, 'model')}, {count:,}{', few filters' if small else ''})"
        for label, models, count, small in zip(
            *(result[name].values[order] for name in ("group", "models", "count", "few")), strict=True
        )
    ]
    number = len(groups)
    side = min(9.0, 2.8 + 0.36 * number)
    axes = panel(ax, side + 1.2, side)
    largest = float(np.nanmax(values, initial=0.0)) or 1.0
    # "none" stores the matrix cell by cell in formats that can, such as SVG, not as it is rendered.
    image = axes.imshow(values, cmap="cividis", norm=PowerNorm(0.5, 0.0, largest), interpolation="none")
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
    codes = result["verdict"].values[np.ix_(order, order)] if "verdict" in result else np.full(values.shape, "")
    label = "drift D"
    if legible(number):
        legend = _write_cells(axes, values, codes, values > largest * 0.3)
        label += f" ({', '.join(legend)})" if legend else ""
    axes.figure.colorbar(image, ax=axes, label=label, shrink=0.8)
    axes.set_title(f"Drift by {visible(result.attrs['by']).replace('_', ' ')}", loc="left")
    return axes


def _write_cells(axes: Axes, values: Floats, codes: npt.NDArray[Any], bright: npt.NDArray[np.bool_]) -> dict[str, None]:
    """Write the symbol of each pair's verdict into its cell, up to 13 groups behind the value.

    Returns the symbols with their words. In cells without a value, only verdicts without the tone "bad" are marked.
    """
    has_values = legible(len(values), most=13)
    legend: dict[str, None] = {}
    for i, j in np.ndindex(values.shape):
        if i == j or not np.isfinite(values[i, j]):
            continue
        verdict = verdict_of(str(codes[i, j])) if codes[i, j] else None
        symbol = verdict.symbol if verdict and (has_values or verdict.tone != "bad") else ""
        if verdict and symbol:
            legend[verdict.text] = None
        text = f"{values[i, j]:.2g}{symbol}" if has_values else symbol
        if text:
            colour = "black" if bright[i, j] else "white"
            axes.text(j, i, text, ha="center", va="center", fontsize=6.5 if has_values else 6, color=colour)
    return legend


@drawn
def ridges(result: xr.Dataset, groups: int = RIDGES, *, ax: Axes | None = None) -> Axes:
    """Draw the distributions of the leading coefficients, with a ridge for each of the largest groups (P1 fig. 3).

    Takes a result of `drift` or of `distributions`; with the latter, a line is the kernel density estimate.
    """
    check_result("ridges", result, "fdb.drift or fdb.distributions", "probabilities", "bin_edges", "weights", "count")
    shown = np.sort(np.argsort(-result["count"].values, kind="stable")[:groups])
    edges = result["bin_edges"].values
    density = result["probabilities"].values[shown, :COMPONENTS] / np.diff(edges)
    titles = [f"c{i} ({weight:.0%} of the variance)" for i, weight in enumerate(result["weights"].values[:COMPONENTS])]
    axes = panel(ax, 10.0, 3 * (0.7 + 0.26 * len(shown)))
    panels = Panels(axes, _extent(density.sum(axis=(0, 1)), edges), len(shown) + 0.7, titles)
    for i in range(len(titles)):
        top = density[:, i].max() or 1.0
        for base, heights in zip(range(len(shown))[::-1], density[:, i], strict=True):
            panels.hill(i, edges, 1.5 * heights / top, base, facecolor="#0072b28c", edgecolor="#083a5c", linewidth=0.7)
        if "kde" in result:
            for base, heights in zip(range(len(shown))[::-1], result["kde"].values[shown, i], strict=True):
                panels.line(i, result["at"].values, 1.5 * heights / top, base, color=COLOURS[1], linewidth=0.9)
    panels.labels([short(label, 24) for label in result["group"].values[shown]][::-1])
    return axes


def _extent(mass: Floats, edges: Floats, share: float = 5e-4) -> tuple[float, float]:
    """Return the range of bins that leaves out at most `share` of the mass at either end."""
    total = np.cumsum(mass) / mass.sum()
    first, last = np.searchsorted(total, [share, 1 - share])
    return float(edges[max(first - 1, 0)]), float(edges[min(last + 2, len(edges) - 1)])


@drawn
def pair(result: xr.Dataset, a: str, b: str, *, ax: Axes | None = None) -> Axes:
    """Draw the histograms of two groups of a `drift` result on top of each other, by component with its share of D."""
    from matplotlib.patches import Patch

    check_result("pair", result, "fdb.drift", "drift", "probabilities", "bin_edges", "weights")
    for label in (a, b):
        if label not in result["group"].values:
            raise UsageError(f"plot.pair: expected a group of the result, got {label!r}")
    edges = result["bin_edges"].values
    p, q = (result["probabilities"].sel(group=label).values for label in (a, b))
    parts = result["weights"].values * symmetric_kl(p, q)
    shares = parts / (parts.sum() or 1.0)
    axes = panel(ax, 9.0, 6.2)
    titles = [f"c{i}: {share:.0%} of D" for i, share in enumerate(shares[:COMPONENTS])]
    panels = Panels(axes, _extent((p + q)[:COMPONENTS].sum(axis=0), edges), 1.2, titles)
    styles: tuple[dict[str, Any], ...] = (
        {"facecolor": COLOURS[0], "alpha": 0.45},
        {"facecolor": "none", "edgecolor": COLOURS[1], "linewidth": 1.4},
    )
    for i, both in enumerate(zip(p[:COMPONENTS], q[:COMPONENTS], strict=True)):
        top = max(heights.max() for heights in both) or 1.0
        for heights, style in zip(both, styles, strict=True):
            panels.hill(i, edges, heights / top, 0.0, **style)
    handles = [Patch(label=short(label), **style) for label, style in zip((a, b), styles, strict=True)]
    axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, frameon=False)
    return axes
