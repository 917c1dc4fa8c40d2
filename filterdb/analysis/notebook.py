"""Show a result in a notebook: what it is about, its plot, its most important rows, and xarray's own HTML.

All text from a store or a catalog is escaped. Size and time are bounded: a picture has one size however many groups
there are, a table a few rows.
"""

from __future__ import annotations

import base64
import logging
from collections import Counter
from collections.abc import Callable
from html import escape
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from filterdb.analysis import frames
from filterdb.plotting import plot
from filterdb.plotting.drawing import as_figure, encode, visible
from filterdb.store.html import STYLE
from filterdb.verdicts import verdict_of
from filterdb.wording import counted

ROWS = 10
"""Most rows of a table."""

DPI = 75

CELLS = 20_000_000
"""Largest number of values that are drawn; larger results have xarray's HTML only."""

log = logging.getLogger(__name__)


class View(NamedTuple):
    """The plot of a result, or None, and the columns of its table."""

    draw: Callable[[xr.Dataset], Any] | None
    columns: tuple[str, ...]


def html(result: xr.Dataset, plain: str) -> str | None:
    """Return the HTML of a result around xarray's own, `plain`; None if there is nothing to add to that."""
    view = VIEWS.get(str(result.attrs.get("analysis")))
    options: Any = xr.get_options
    is_text = options()["display_style"] == "text"
    if view is None or is_text or find_spec("matplotlib") is None or not _is_small(result):
        return None
    try:
        return _html(result, view, plain)
    except Exception as error:  # noqa: BLE001 - whatever a selection lacks, the notebook shows xarray's own HTML
        log.debug("not shown: %s", error)
        return None


def _is_small(result: xr.Dataset) -> bool:
    """Return whether all values are in memory and few enough to draw."""
    return not result.chunks and sum(array.size for array in result.variables.values()) <= CELLS


def _html(result: xr.Dataset, view: View, plain: str) -> str | None:
    table, rows = _rows(result)
    if table is None:
        return None
    name = str(result.attrs["analysis"])
    by = result.attrs.get("by")
    title = f"fdb.{name}" + (f" by {by}" if by not in {None, "", "all"} else "")
    parts = [f"<strong>{_text(title)}</strong>", f"<div>{_text(_about(result))}</div>", _verdicts(result)]
    if view.draw is not None and rows:
        draw = view.draw
        picture = base64.b64encode(encode(as_figure(lambda: draw(result)), name, ".png", DPI)).decode()
        parts.append(f'<img src="data:image/png;base64,{picture}" alt="{_text(title)}"/>')
    parts.append(_table(table, view.columns, rows))
    more = f"<details><summary>xarray.Dataset</summary>{plain}</details>"
    return f'<div class="filterdb">{STYLE}{"".join(parts)}{more}</div>'


def _rows(result: xr.Dataset) -> tuple[pd.DataFrame | None, int]:
    """Return the first rows of a result, of a drift matrix those of the largest drift, and the number of all."""
    if result.attrs["analysis"] == "drift" and frames.has_rows(result) and "stratum" not in result.sizes:
        groups = result.sizes["group"]
        return frames.largest_pairs(result, ROWS), groups * (groups - 1) // 2
    table = frames.frame(result)
    if table is None and len(result.sizes) == 1:
        table = xr.Dataset.to_dataframe(result).reset_index()
    if table is None:
        return None, 0
    if "rule" in result.coords:  # layers with a verdict first
        flagged = table[[str(rule) for rule in result["rule"].values]].any(axis=1).to_numpy()
        return table.iloc[np.argsort(~flagged, kind="stable")[:ROWS]], len(table)
    key = ORDER.get(str(result.attrs["analysis"]))
    ordered = table if key is None else table.sort_values(key, ascending=False, kind="stable", key=np.abs)
    return ordered.head(ROWS), len(table)


def _about(result: xr.Dataset) -> str:
    """Return one line: counts, snapshot, selection, mode."""
    attrs = result.attrs
    counts = {name: int(attrs[name]) for name in ("models", "layers", "filters") if name in attrs}
    parts = [", ".join(f"{n:,} {name if n != 1 else name.removesuffix('s')}" for name, n in counts.items())]
    if attrs.get("snapshot") is not None:
        parts.append(f"snapshot {attrs['snapshot']}")
    if attrs.get("selection") not in {None, "", "all"}:
        parts.append(str(attrs["selection"]))
    parts += [f"{name} {attrs[name]}" for name in ("mode", "metric", "kernel") if attrs.get(name)]
    return " · ".join(part for part in parts if part)


def _verdicts(result: xr.Dataset) -> str:
    """Return a line with the number of pairs of each verdict of a `drift` result, or of layers of each rule."""
    if "verdict" not in result.variables:
        return ""
    verdict = result["verdict"]
    if verdict.dims == ("group", "other"):
        codes = frames.of_pairs(result, "verdict").tolist()
        counts = Counter(verdict_of(code).text for code in codes)
        line = f"{counted(len(codes), 'pair')}: " + " · ".join(f"{n:,} {word}" for word, n in counts.most_common())
    elif verdict.dims == ("layer", "rule"):
        hits = dict(zip(result["rule"].values.tolist(), verdict.values.sum(axis=0).tolist(), strict=True))
        verdicts = " · ".join(f"{n:,.0f} {rule}" for rule, n in hits.items() if n) or "none has a verdict"
        line = f"{counted(result.sizes['layer'], 'layer')}: {verdicts}"
    else:
        return ""
    return f"<div>{_text(line)}</div>"


def _table(table: pd.DataFrame, columns: tuple[str, ...], rows: int) -> str:
    shown = [name for name in columns if name in table]
    numeric = [pd.api.types.is_numeric_dtype(table[name]) for name in shown]
    head = "".join(_cell("th", name.replace("_", " "), right) for name, right in zip(shown, numeric, strict=True))
    body = ""
    for row in table[shown].itertuples(index=False, name=None):
        cells = zip(shown, row, numeric, strict=True)
        body += f"<tr>{''.join(_cell('td', _value(name, value), right) for name, value, right in cells)}</tr>"
    more = f'<p class="more">{rows - len(table):,} more rows: to_dataframe() has all</p>' if rows > len(table) else ""
    return f'<table class="list"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}'


def _cell(tag: str, text: str, right: bool) -> str:
    return f'<{tag} class="number">{_text(text)}</{tag}>' if right else f"<{tag}>{_text(text)}</{tag}>"


def _value(name: str, value: Any) -> str:
    """Return a value as text: verdicts on pairs as words, numbers with four digits."""
    if name == "verdict" and isinstance(value, str):
        return verdict_of(value).text
    if isinstance(value, bool | np.bool_):
        return "yes" if value else ""
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _text(text: str) -> str:
    return escape(visible(text))


def _basis(result: xr.Dataset) -> Any:
    return plot.basis(result) if result.sizes["group"] == 1 else plot.bases(result, 6)


def _drift(result: xr.Dataset) -> Any:
    return plot.boxes(result) if "stratum" in result.sizes else plot.drift(result)


ORDER = {"density": "filters", "drift": "drift", "explain": "share"}
"""The column by which rows are shown, the largest first; without one, as they are."""

_LAYER = ("filters", "sparsity", "variance_entropy", "ratio", "p_value", "dead", "sparse", "collapsed", "random")

VIEWS = {
    "check": View(None, ("file", "layer", *_LAYER, "nonfinite", "duplicate", "unread")),
    "codebook": View(
        lambda result: plot.codebook(result, 32),
        ("group", "count", "flat", "explained_variance", "noise_explained_variance"),
    ),
    "degeneration": View(plot.depth, ("model", "layer", *_LAYER)),
    "degeneration_drift": View(None, ("measure", "pearson", "spearman")),
    "density": View(
        lambda result: plot.bivariate(result, groups=6), ("group", *(f"c{i}" for i in range(9)), "filters")
    ),
    "distributions": View(plot.ridges, ("group", "component", "mean", "std", "count", "models")),
    "drift": View(_drift, ("stratum", "group", "other", "drift", "floor", "floor_q95", "p_value", "verdict")),
    "explain": View(None, ("part", "name", "group", "filters", "share", "without")),
    "filter_scale": View(plot.boxes, ("group", "decile", "scale", "count")),
    "lineage": View(None, ("model", "parent", "evidence", "direction", "similarity", "distance", "family")),
    "nearest": View(None, ("rank", "model", "drift", "excess", "floor", "verdict", "task", "training_dataset")),
    "pca": View(_basis, ("group", "component", "count", "explained_variance", "explained_variance_ratio")),
    "phenotypes": View(None, ("group", "component", "phenotype")),
    "principal_angles": View(None, ("group", "other", "dimension", "angle")),
    "randomness_threshold": View(None, ("size", "smallest", "threshold", "paper_threshold")),
    "series": View(plot.series, ("training", "epoch", "model", "drift", "floor_q95", "verdict")),
    "spectrum": View(
        plot.spectrum, ("group", "count", "low", "high", "constant", "horizontal", "vertical", "diagonal", "aliasing")
    ),
    "statistics": View(plot.contents, ("column", "label", "models", "layers", "filters", "share")),
    "summarise": View(None, ("layer", "kernel", "filters", "sparsity", "variance_entropy", "p_value", "norm")),
}
"""What is shown of the result of each analysis."""
