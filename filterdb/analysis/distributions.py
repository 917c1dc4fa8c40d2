"""Describe the distributions of the coefficients of each component, by group (P1 fig. 3 and 7)."""

from __future__ import annotations

import numpy as np
import xarray as xr

from filterdb.analysis.grouping import Key
from filterdb.analysis.question import Question
from filterdb.analysis.returning import returns_result
from filterdb.numerics.kde import bandwidths, kernel_density, points
from filterdb.numerics.modes import AnyMode
from filterdb.schema import AnyKernel
from filterdb.store.database import AnyDatabase, as_database

DENSITY_LIMIT = 1_000
"""Largest number of groups for which a result has `kde`."""


@returns_result
def distributions(
    db: AnyDatabase,
    by: Key | None = None,
    *,
    mode: AnyMode = "sound",
    scaled: bool = True,
    kernel: AnyKernel | None = None,
) -> xr.Dataset:
    """Compute the distribution of the coefficients of each component, whole or by group.

    Parameters
    ----------
    db : Database, str or path
        The database or a view of it.
    by : str or list of str, optional
        The labels by which layers are grouped, such as "epoch". Default: one group of all layers.
    mode : {"sound", "paper"}
        The basis and range, as in `drift`. Default: "sound".
    scaled : bool
        False: raw filters, without layers whose scale is unknown. Default: True.
    kernel : (int, int) or str, optional
        Shape of the filters, such as "5x5". Default: that of `db`, which is 3×3 for a path or URL.

    Returns
    -------
    xarray.Dataset
        With dims group (in the order of its labels, numbers by value), component, bin, edge, point:

        - count (group), int64: filters. models (group), int64: models.
        - counts (group, component, bin), int64: filters in each bin.
        - probabilities (group, component, bin), float64: the probabilities that the mode makes of these counts.
        - mean and std (group, component), float64: mean and standard deviation (n − 1) of the coefficients, from
          moments, not from bins.
        - kde (group, component, point), float64: the kernel density estimate with a Gaussian kernel and Scott's
          bandwidth, at least half a bin. Up to 1,000 groups.
        - Coordinates weights (component), bin_edges (edge) and at (point): the coefficient of each point of `kde`.

    Raises
    ------
    UsageError
        For an unknown label or mode.
    InputError
        If the view has no layers.

    Notes
    -----
    `kde` is computed from the 70 bins: within a bin, filters count as spread evenly. Basis and range are the
    snapshot's, whatever the view is. Source: P1 eq. 3, fig. 3 and 7.

    Examples
    --------
    >>> fdb.distributions(db)["std"].values.round(2)
    array([[1.01, 0.69, 0.64, 0.56, 0.5 , 0.44, 0.25, 0.15, 0.12]])
    """
    db = as_database(db, kernel=kernel)
    question = Question.in_basis(db, by, mode, scaled=scaled)
    mean, components = question.projection.axes.arrays
    moments = question.moments
    variance = np.einsum("ci,gij,cj->gc", components, moments.covariance, components)
    spread = np.sqrt(np.maximum(variance, 0.0))
    result = xr.Dataset(
        {
            "count": ("group", question.filters, {"long_name": "filters"}),
            "models": ("group", question.models, {"long_name": "models"}),
            "counts": (("group", "component", "bin"), question.counts),
            "probabilities": (("group", "component", "bin"), question.probabilities),
            "mean": (("group", "component"), (moments.mean - mean) @ components.T),
            "std": (("group", "component"), spread),
        },
        coords={
            **question.coords(),
            "weights": ("component", question.weights),
            "bin_edges": ("edge", question.edges),
        },
        attrs=question.provenance(formula="histograms of (f' - mean) V^T (P1 eq. 3)"),
    )
    if question.groups <= DENSITY_LIMIT:
        bandwidth = bandwidths(question.filters[:, None], spread, question.edges)
        density = kernel_density(question.counts, question.edges, bandwidth)
        result["kde"] = (("group", "component", "point"), density, {"long_name": "kernel density estimate"})
        result = result.assign_coords(at=("point", points(question.edges)))
    return result
