"""Draw box plots from their numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from filterdb.numerics.box import Box
from filterdb.plotting.drawing import COLOURS, canvas, short, visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def box_plot(rows: list[Box], label: str, title: str) -> Figure:
    """Draw boxes below each other, on a logarithmic scale if all values are positive."""
    figure = canvas(7.5, 1.1 + 0.34 * max(len(rows), 1))
    axes: Any = figure.subplots()
    draw_boxes(axes, rows)
    if rows and all(row.low > 0 for row in rows):
        axes.set_xscale("log")
        from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

        # Matplotlib's own labels are formulas, which this page turns off (`text.parse_math`).
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.invert_yaxis()
    axes.set_xlabel(f"{label} (line: median, diamond: mean)")
    axes.set_title(visible(title).replace("_", " "), loc="left")
    return figure


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
