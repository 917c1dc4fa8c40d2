"""Box plots of results: of components, groupings, strata, tenths of the depth, and groups of layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy.typing as npt
import xarray as xr

from filterdb.errors import UsageError
from filterdb.numerics.box import Box, box
from filterdb.plotting import box_numbers
from filterdb.plotting.drawing import COLOURS, check_result, drawn, new_figure, panel, short, visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Measure = Literal["variance_entropy", "sparsity"]

MEASURES: tuple[Measure, ...] = get_args(Measure)

GROUPS = 40
"""Groups of layers that are drawn."""


@drawn
def boxes(
    result: xr.Dataset | Mapping[str, xr.Dataset],
    *,
    measure: Measure = "variance_entropy",
    groups: int = GROUPS,
    ax: Axes | None = None,
) -> Axes:
    """Draw the box plots of a result: lines are medians, diamonds means, whiskers Tukey's.

    Parameters
    ----------
    result : xarray.Dataset or mapping of str to xarray.Dataset
        One of these:

        - a result of `drift`: a box of each component's unweighted drift over all pairs of groups (P1 fig. 6)
        - a result of `drift` with `within`: a box of D over all pairs for each stratum (P1 fig. 9)
        - `drift` results by grouping: a box of D over all pairs for each grouping (P2 fig. 4)
        - a result of `filter_scale`: a box of the scale over groups for each tenth of the depth (P2 fig. 6)
        - a result of `degeneration` with `by`: a box of `measure` over the layers of each group (P1 fig. 2)
    measure : {"variance_entropy", "sparsity"}
        What to draw of a `degeneration` result.
    groups : int
        Groups of a `degeneration` result that are drawn, the first ones. Default: 40.
    ax : matplotlib.axes.Axes, optional
        Where to draw. Default: a new figure.
    """
    if not isinstance(result, xr.Dataset):
        return _boxes_of_groupings(result, ax)
    if "layer_group" in result.variables:
        return _boxes_of_layers(result, measure, groups, ax)
    by = str(result.attrs.get("by", "group"))
    if "decile_scale" in result.variables:
        rows, title = box_numbers.by_decile(result), f"Scale of the filters, by {by}"
        return _box_plot(ax, rows, "mean of (largest − smallest weight)", title)
    check_result("boxes", result, "fdb.drift, fdb.filter_scale or fdb.degeneration", "drift", "group", "other")
    if "stratum" in result["drift"].dims:
        label = "drift D between models" if by == "model" else f"drift D by {by}"
        title = f"{label[0].upper()}{label[1:].replace(' D', '')}, by {result.attrs.get('within', 'stratum')}"
        return _box_plot(ax, box_numbers.by_stratum(result), label, title)
    check_result("boxes", result, "fdb.drift that is a sum over components", "per_component")
    metric = result["per_component"].attrs.get("label", result.attrs.get("per_component_metric", "drift"))
    rows, title = box_numbers.by_component(result), f"Drift per component, by {by}"
    return _box_plot(ax, rows, f"unweighted {metric}", title)


def _boxes_of_groupings(results: Mapping[str, xr.Dataset], ax: Axes | None) -> Axes:
    if not isinstance(results, Mapping):
        raise UsageError(f"plot.boxes: expected a result or results by grouping, got {type(results).__name__}")
    for result in results.values():
        check_result("boxes", result, "fdb.drift", "drift", "group", "other")
    return _box_plot(ax, box_numbers.by_grouping(dict(results)), "drift D", "Drift between the groups of each grouping")


def _boxes_of_layers(result: xr.Dataset, measure: str, groups: int, ax: Axes | None) -> Axes:
    if measure not in MEASURES:
        raise UsageError(f"plot.boxes: measure: expected one of {', '.join(MEASURES)}, got {measure!r}")
    check_result("boxes", result, "fdb.degeneration", measure, "group")
    labels = result["group"].values[:groups]
    axes = panel(ax, 6.0, _height(result, groups))
    members = [result["layer_group"].values == label for label in labels]
    rows = [box(label, result[measure].values[of]) for label, of in zip(labels, members, strict=True)]
    draw_boxes(axes, [row for row in rows if row is not None])
    axes.set_xlabel(f"{measure.replace('_', ' ')} (line: median, diamond: mean)")
    if not axes.yaxis_inverted():
        axes.invert_yaxis()
    return axes


def both_measures(result: xr.Dataset, groups: int = GROUPS) -> npt.NDArray[Any]:
    """Draw `boxes` of both measures of a `degeneration` result side by side (P1 fig. 2)."""
    columns: npt.NDArray[Any] = new_figure(9.5, _height(result, groups)).subplots(1, 2, sharey=True)
    for axes, measure in zip(columns, MEASURES, strict=True):
        boxes(result, measure=measure, groups=groups, ax=axes)
    return columns


def _height(result: xr.Dataset, groups: int) -> float:
    return 1.1 + 0.3 * max(min(result.sizes["group"], groups), 1)


def _box_plot(ax: Axes | None, rows: list[Box], label: str, title: str) -> Axes:
    """Draw boxes below each other, on a logarithmic scale if all values are positive."""
    axes: Any = panel(ax, 7.5, 1.1 + 0.34 * max(len(rows), 1))
    draw_boxes(axes, rows)
    if rows and all(row.low > 0 for row in rows):
        axes.set_xscale("log")
        from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

        # Matplotlib's own labels are formulas, which this page turns off (`text.parse_math`).
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    if not axes.yaxis_inverted():
        axes.invert_yaxis()
    axes.set_xlabel(f"{label} (line: median, diamond: mean)")
    axes.set_title(visible(title).replace("_", " "), loc="left")
    return axes  # type: ignore[no-any-return]


def draw_boxes(axes: Any, rows: list[Box]) -> None:
    """Draw horizontal boxes into existing axes, the first one at 1."""
    if not rows:
        return
    stats = [
        {
            "label": short(row.label.replace("_", " ")),
            "whislo": row.low,
            "q1": row.q1,
            "med": row.median,
            "q3": row.q3,
            "whishi": row.high,
            "mean": row.mean,
            "fliers": row.outliers,
        }
        for row in rows
    ]
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
    # `bxp` sets labels when the figure is drawn; set now, `drawn` sees that they are no formulas.
    axes.set_yticks(range(1, len(rows) + 1), [entry["label"] for entry in stats])
