"""Draw results of analyses with matplotlib, in your style and with filterdb's colours.

A function that draws one panel takes `ax`, an Axes, and returns it. A function that draws several takes `fig`, a Figure
or SubFigure without Axes, and returns the array of its Axes. Without `ax` or `fig` they make a new figure of a fitting
size, which a notebook shows. Names of models are never read as formulas.

>>> axes = fdb.plot.drift(fdb.drift(db, by="task"))
>>> axes.figure.savefig("task.svg")
"""

from __future__ import annotations

import warnings
from typing import Any

from filterdb.plotting.box_plot import boxes
from filterdb.plotting.figures_codebook import codebook
from filterdb.plotting.figures_components import bases, basis
from filterdb.plotting.figures_density import bivariate, corner
from filterdb.plotting.figures_drift import drift, pair, ridges
from filterdb.plotting.figures_layers import depth, first_filters
from filterdb.plotting.figures_surveys import contents, series, spectrum

__all__ = [
    "bases",
    "basis",
    "bivariate",
    "boxes",
    "codebook",
    "contents",
    "corner",
    "depth",
    "drift",
    "first_filters",
    "pair",
    "ridges",
    "series",
    "spectrum",
]

RENAMED = {
    "degeneration_boxes": "boxes",
    "deciles": "boxes",
    "density": "bivariate",
    "entropy_and_sparsity": "depth",
    "families": "drift",
    "filter_scale": "boxes",
    "groupings": "boxes",
    "heatmap": "drift",
    "per_component": "boxes",
}
"""Functions of version 0.1 that return a Figure, and those that replace them."""


def __getattr__(name: str) -> Any:
    if name not in RENAMED:
        raise AttributeError(f"module 'filterdb.plot' has no attribute {name!r}")
    from filterdb.plotting import figures

    warnings.warn(
        f"fdb.plot.{name} returns a Figure; use fdb.plot.{RENAMED[name]}, which draws into Axes",
        DeprecationWarning,
        stacklevel=2,
    )
    return getattr(figures, name)
