"""The plots of `filterdb.plotting.plot` as Figures in filterdb's own style: the files of the page and of the commands.

Each function has the bytes of its figure determined by its arguments, not by the caller's settings of matplotlib.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from filterdb.plotting import (
    box_plot,
    figures_codebook,
    figures_components,
    figures_density,
    figures_drift,
    figures_layers,
    figures_surveys,
)
from filterdb.plotting.box_plot import GROUPS
from filterdb.plotting.drawing import as_figure
from filterdb.plotting.figures_drift import RIDGES

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def heatmap(result: xr.Dataset) -> Figure:
    """Draw `plot.drift`."""
    return as_figure(lambda: figures_drift.drift(result))


def families(result: xr.Dataset, family: np.ndarray) -> Figure:
    """Draw `plot.drift` with the `family` of each group of the result, (group,)."""
    return as_figure(lambda: figures_drift.drift(result, family=family))


def ridges(result: xr.Dataset, groups: int = RIDGES) -> Figure:
    """Draw `plot.ridges`."""
    return as_figure(lambda: figures_drift.ridges(result, groups))


def pair(result: xr.Dataset, a: str, b: str) -> Figure:
    """Draw `plot.pair`."""
    return as_figure(lambda: figures_drift.pair(result, a, b))


def per_component(result: xr.Dataset) -> Figure:
    """Draw `plot.boxes` of a `drift` result."""
    return as_figure(lambda: box_plot.boxes(result))


def groupings(results: dict[str, xr.Dataset]) -> Figure:
    """Draw `plot.boxes` of `drift` results by grouping."""
    return as_figure(lambda: box_plot.boxes(results))


def deciles(result: xr.Dataset) -> Figure:
    """Draw `plot.boxes` of a `drift` result with `within`."""
    return as_figure(lambda: box_plot.boxes(result))


def filter_scale(result: xr.Dataset) -> Figure:
    """Draw `plot.boxes` of a `filter_scale` result."""
    return as_figure(lambda: box_plot.boxes(result))


def degeneration_boxes(result: xr.Dataset, groups: int = GROUPS) -> Figure:
    """Draw `plot.boxes` of both measures of a `degeneration` result (P1 fig. 2).

    Shows the first `groups` groups. By a product of a label and `depth_decile`, each box is a tenth of the depth.
    """
    return as_figure(lambda: box_plot.both_measures(result, groups))


def basis(result: xr.Dataset, group: int = 0) -> Figure:
    """Draw `plot.basis`."""
    return as_figure(lambda: figures_components.basis(result, group))


def bases(result: xr.Dataset, groups: int = 12) -> Figure:
    """Draw `plot.bases`."""
    return as_figure(lambda: figures_components.bases(result, groups))


def contents(result: xr.Dataset, most: int = 20) -> Figure:
    """Draw `plot.contents`."""
    return as_figure(lambda: figures_surveys.contents(result, most))


def spectrum(result: xr.Dataset) -> Figure:
    """Draw `plot.spectrum`."""
    return as_figure(lambda: figures_surveys.spectrum(result))


def series(result: xr.Dataset, most: int = 7) -> Figure:
    """Draw `plot.series`."""
    return as_figure(lambda: figures_surveys.series(result, most))


def entropy_and_sparsity(result: xr.Dataset, groups: np.ndarray | None = None) -> Figure:
    """Draw `plot.depth`."""
    return as_figure(lambda: figures_layers.depth(result, groups))


def first_filters(result: xr.Dataset, model: str | None = None, layers: int = 24) -> Figure:
    """Draw `plot.first_filters`."""
    return as_figure(lambda: figures_layers.first_filters(result, model, layers))


def codebook(result: xr.Dataset, codes: int = 64) -> Figure:
    """Draw `plot.codebook`."""
    return as_figure(lambda: figures_codebook.codebook(result, codes))


def density(result: xr.Dataset, phenotypes: xr.Dataset | None = None, groups: int = 12) -> Figure:
    """Draw `plot.bivariate`."""
    return as_figure(lambda: figures_density.bivariate(result, phenotypes, groups))


def corner(results: dict[tuple[int, int], xr.Dataset]) -> Figure:
    """Draw `plot.corner`."""
    return as_figure(lambda: figures_density.corner(results))
