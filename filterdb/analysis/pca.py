"""PCA of any group of layers, from moments: equal to the full-rank SVD of its centred filters."""

from __future__ import annotations

import numpy as np
import xarray as xr

from filterdb.analysis.grouping import Key
from filterdb.analysis.question import Question
from filterdb.errors import UsageError
from filterdb.numerics import eigen
from filterdb.numerics.eigen import Basis, decompose
from filterdb.numerics.moments import pool
from filterdb.store.database import AnyDatabase

DIMENSIONS = np.arange(1, 9)
"""Of the leading subspaces whose angles are taken."""

RANK_TOLERANCE = 1e-12
"""A component with a smaller share of the variance is rounding: no direction."""

ANGLES_LIMIT = 1_000
"""Pairwise angles of up to so many groups."""


def pca(db: AnyDatabase, by: Key | None = None, *, scaled: bool = True) -> xr.Dataset:
    """Compute mean, covariance and principal components of the view's filters, whole or by group.

    Parameters
    ----------
    db : Database, str or path
        The database or a view of it.
    by : str or list of str, optional
        What layers are grouped by; None: one group of all.
    scaled : bool
        True: of filters divided by their max |w| (P1 eq. 9). False: of raw filters, without the layers whose scale is
        unknown.

    Returns
    -------
    xarray.Dataset
        With dims group, component, weight, other (weight), float64 but for count:

        - count (group): filters, int64.
        - mean (group, weight); covariance (group, weight, other), n − 1 in the denominator.
        - components (group, component, weight): rows; the entry of largest magnitude is positive.
        - explained_variance and explained_variance_ratio (group, component).
        - singular_values (group, component): of the centred n×9 matrix.
        - angle_to_whole (group, dimension), with `by`: the largest principal angle in radians between the leading
          k-dimensional subspaces of the group and of all the view's filters, k = 1 … 8; NaN where either has variance
          in fewer than k directions.

    Notes
    -----
    The PCA is always fitted on what it is asked about, never on the snapshot. Source: P1 eq. 1 to 4; Björck and Golub
    1973.
    """
    question = Question.of(db, by, scaled=scaled)
    states = question.moments
    basis = decompose(states)
    result = xr.Dataset(
        {
            "count": ("group", states.count),
            "mean": (("group", "weight"), basis.mean),
            "covariance": (("group", "weight", "other"), states.covariance),
            "components": (("group", "component", "weight"), basis.components),
            "explained_variance": (("group", "component"), basis.explained_variance),
            "explained_variance_ratio": (("group", "component"), basis.explained_variance_ratio),
            "singular_values": (("group", "component"), basis.singular_values),
        },
        coords=question.coords(),
        attrs=question.provenance(sign_rule=question.mode.sign_rule, formula="P1 eq. 1-4; eigh of m2/(n-1)"),
    )
    if by is not None:
        together = decompose(pool(states, np.zeros(len(states.count), np.int64), 1))
        result["angle_to_whole"] = (("group", "dimension"), _angles(together, basis), {"units": "rad"})
        result = result.assign_coords(dimension=DIMENSIONS)
    return result


def principal_angles(db: AnyDatabase, by: Key, *, scaled: bool = True) -> xr.Dataset:
    """Compute the largest principal angles between the leading subspaces of all pairs of groups.

    Parameters
    ----------
    db : Database, str or path
        The database or a view of it.
    by : str or list of str
        What layers are grouped by.
    scaled : bool
        As in `pca`.

    Returns
    -------
    xarray.Dataset
        angle (dimension, group, other): radians in [0, π/2] between the leading k-dimensional subspaces, k = 1 … 8;
        NaN where either group has variance in fewer than k directions. count (group): filters.

    Raises
    ------
    UsageError
        For more than 1,000 groups.

    Notes
    -----
    They say how far two groups' own bases are apart, which drift, taken in one basis, does not. An angle of k
    dimensions means little where the variances of components k − 1 and k are nearly equal. Source: Björck and Golub
    1973.
    """
    result = pca(db, by, scaled=scaled)
    groups = result.sizes["group"]
    if groups > ANGLES_LIMIT:
        raise UsageError(f"principal_angles: expected at most {ANGLES_LIMIT:,} groups, got {groups:,}; select fewer")
    names = ("mean", "components", "explained_variance", "explained_variance_ratio", "singular_values")
    basis = Basis(*(result[name].values for name in names))
    angles = np.zeros((len(DIMENSIONS), groups, groups))
    for i in range(groups - 1):
        one, others = (Basis(*(values[part] for values in basis)) for part in (slice(i, i + 1), slice(i + 1, None)))
        angles[:, i, i + 1 :] = angles[:, i + 1 :, i] = _angles(one, others).T
    missing = np.isnan(_angles(basis, basis)).T
    angles[missing[:, :, None] & np.eye(groups, dtype=bool)] = np.nan
    return xr.Dataset(
        {
            "angle": (("dimension", "group", "other"), angles, {"units": "rad"}),
            "count": ("group", result["count"].values),
        },
        coords={"dimension": DIMENSIONS, "group": result["group"], "other": result["group"].values},
        attrs={**result.attrs, "formula": "largest principal angle, Björck and Golub 1973"},
    )


def _angles(one: Basis, others: Basis) -> np.ndarray:
    """Return angles (groups, 8) between one basis (1, 9, 9), or as many, and others (groups, 9, 9).

    Angles of more dimensions than the rank are NaN.
    """
    angles = eigen.principal_angles(one.components, others.components)
    smallest = np.minimum(one.explained_variance_ratio, others.explained_variance_ratio)[:, : angles.shape[1]]
    return np.where(smallest > RANK_TOLERANCE, angles, np.nan)
