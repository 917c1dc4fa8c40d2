"""Compute the PCA of any group of layers from moments; it equals the full-rank SVD of the centred filters."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr

from filterdb.analysis.grouping import Key
from filterdb.analysis.question import Question
from filterdb.analysis.returning import returns_result
from filterdb.errors import UsageError
from filterdb.numerics import eigen
from filterdb.numerics.eigen import Basis, decompose
from filterdb.numerics.moments import pool
from filterdb.schema import AnyKernel
from filterdb.store.database import AnyDatabase, as_database

RANK_TOLERANCE = 1e-12
"""A component with a smaller share of the variance is a rounding error, not a direction."""

ANGLES_LIMIT = 1_000
"""Largest number of groups for pairwise angles."""


@returns_result
def pca(db: AnyDatabase, by: Key | None = None, *, scaled: bool = True, kernel: AnyKernel | None = None) -> xr.Dataset:
    """Compute mean, covariance and principal components of the view's filters, whole or by group.

    Parameters
    ----------
    db : Database, str or path
        The database or a view of it.
    by : str or list of str, optional
        The labels by which layers are grouped. Default: one group of all layers.
    scaled : bool
        True: filters divided by their max |w| (P1 eq. 9). False: raw filters, without the layers whose scale is
        unknown. Default: True.
    kernel : (int, int) or str, optional
        Shape of the filters, such as "5x5". Default: that of `db`, which is 3×3 for a path or URL.

    Returns
    -------
    xarray.Dataset
        With dims group, component, weight, other (weight), float64 except count:

        - count (group), int64: filters.
        - mean (group, weight).
        - covariance (group, weight, other), with n − 1 in the denominator.
        - components (group, component, weight): a component is a row; its entry of largest magnitude is positive.
        - explained_variance and explained_variance_ratio (group, component).
        - singular_values (group, component): those of the centred n×K matrix.
        - angle_to_whole (group, dimension), only with `by`: the largest principal angle in radians between the leading
          k-dimensional subspaces of the group and of all filters of the view; NaN if either has variance in fewer than
          k directions. For K weights k is 1 … K−1, at most 16.

    Raises
    ------
    UsageError
        For an unknown label.

    Notes
    -----
    The PCA is fitted on the view's own filters, not on the snapshot. Source: P1 eq. 1 to 4; Björck and Golub 1973.

    Examples
    --------
    >>> fdb.pca(db)["explained_variance_ratio"].values.round(2)
    array([[0.37, 0.17, 0.15, 0.11, 0.09, 0.07, 0.02, 0.01, 0.01]])
    """
    db = as_database(db, kernel=kernel)
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
        whole = decompose(pool(states, np.zeros(len(states.count), np.int64), 1))
        result["angle_to_whole"] = (("group", "dimension"), _angles(whole, basis), {"units": "rad"})
        result = result.assign_coords(dimension=np.arange(result.sizes["dimension"]) + 1)
    return result


@returns_result
def principal_angles(db: AnyDatabase, by: Key, *, scaled: bool = True) -> xr.Dataset:
    """Compute the largest principal angles between the leading subspaces of all pairs of groups.

    Parameters
    ----------
    db : Database, str or path
        The database or a view of it.
    by : str or list of str
        The labels by which layers are grouped.
    scaled : bool
        As in `pca`. Default: True.

    Returns
    -------
    xarray.Dataset
        With dims dimension, group, other:

        - angle (dimension, group, other), float64: radians in [0, π/2] between the leading k-dimensional subspaces,
          k = 1 … K−1 for K weights, at most 16; NaN if either group has variance in fewer than k directions.
        - count (group), int64: filters.

    Raises
    ------
    UsageError
        For an unknown label, or for more than 1,000 groups.

    Notes
    -----
    The angles compare the groups' own bases; drift compares distributions in one common basis. An angle of k
    dimensions means little if the variances of components k − 1 and k are nearly equal. Source: Björck and Golub 1973.

    Examples
    --------
    >>> angles = fdb.principal_angles(db, "task")["angle"]
    >>> angles.sel(group="classification", other="detection").values.round(1)
    array([0.6, 1.5, 1.6, 1.3, 1.5, 1.2, 1.1, 0.6])
    """
    result = pca(db, by, scaled=scaled)
    groups = result.sizes["group"]
    if groups > ANGLES_LIMIT:
        raise UsageError(f"principal_angles: expected at most {ANGLES_LIMIT:,} groups, got {groups:,}; select fewer")
    names = ("mean", "components", "explained_variance", "explained_variance_ratio", "singular_values")
    basis = Basis(*(result[name].values for name in names))
    own = _angles(basis, basis).T
    angles = np.zeros((len(own), groups, groups))
    for i in range(groups - 1):
        first, others = (Basis(*(values[part] for values in basis)) for part in (slice(i, i + 1), slice(i + 1, None)))
        angles[:, i, i + 1 :] = angles[:, i + 1 :, i] = _angles(first, others).T
    angles[np.isnan(own)[:, :, None] & np.eye(groups, dtype=bool)] = np.nan
    return xr.Dataset(
        {
            "angle": (("dimension", "group", "other"), angles, {"units": "rad"}),
            "count": ("group", result["count"].values),
        },
        coords={"dimension": np.arange(len(own)) + 1, "group": result["group"], "other": result["group"].values},
        attrs={**result.attrs, "formula": "largest principal angle, Björck and Golub 1973"},
    )


def _angles(bases: Basis, others: Basis) -> npt.NDArray[np.float64]:
    """Return the angles (groups, K−1) between bases (1, K, K) or (groups, K, K) and others (groups, K, K).

    Angles of more dimensions than the rank are NaN.
    """
    angles = eigen.principal_angles(bases.components, others.components)
    smallest = np.minimum(bases.explained_variance_ratio, others.explained_variance_ratio)[:, : angles.shape[1]]
    return np.where(smallest > RANK_TOLERANCE, angles, np.nan)
