"""Correlate how degenerated groups are with how far they have drifted (P1 §5)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr

from filterdb.analysis.degeneration import degeneration
from filterdb.analysis.drift import drift
from filterdb.analysis.grouping import Key
from filterdb.analysis.returning import returns_result
from filterdb.errors import InputError
from filterdb.numerics.modes import AnyMode
from filterdb.schema import AnyKernel
from filterdb.store.database import AnyDatabase, as_database

MEASURES = ("mean_entropy", "mean_sparsity", "share_sparse", "share_degenerated")
"""Summaries of a group's layers that are correlated with its drift."""

PERMUTATIONS = 9_999


@returns_result
def degeneration_drift(
    db: AnyDatabase, by: Key = "model", *, mode: AnyMode = "sound", kernel: AnyKernel | None = None
) -> xr.Dataset:
    """Measure the correlation over groups of their degeneration with their mean drift to all groups.

    Parameters
    ----------
    db : Database, str or path
        The database or a view of it.
    by : str or list of str
        The labels by which layers are grouped. Default: "model".
    mode : {"sound", "paper"}
        As in `drift` and `degeneration`. Default: "sound".
    kernel : (int, int) or str, optional
        Shape of the filters, such as "5x5". Default: that of `db`, which is 3×3 for a path or URL.

    Returns
    -------
    xarray.Dataset
        With dims group and measure (mean_entropy, mean_sparsity, share_sparse, share_degenerated), float64:

        - row_mean (group): as in `drift`.
        - mean_entropy, mean_sparsity, share_sparse and share_degenerated (group): as in `degeneration`.
        - pearson and spearman (measure): the correlation of the measure with row_mean over the groups; NaN for a
          measure that is the same in all groups.
        - p_value (measure): of the rank correlation, two-sided, from 9,999 permutations of the groups.

    Raises
    ------
    UsageError
        For an unknown label or mode.
    InputError
        For fewer than three groups.

    Notes
    -----
    Groups whose layers all have an unknown scale are left out. Every group counts once, whatever its size. Source:
    P1 §5.

    Examples
    --------
    >>> result = fdb.degeneration_drift(db)
    >>> result["spearman"].sel(measure="mean_entropy").item()
    -0.2
    """
    db = as_database(db, kernel=kernel)
    drifts = drift(db, by, mode=mode, noise=False)
    layers = degeneration(db, by=by, mode=mode)
    table = layers[list(MEASURES)].drop_vars("statistic", errors="ignore").sel(group=drifts["group"].values)
    result = drifts[["row_mean"]].drop_vars(["statistic", "weights", "bin_edges", "other"], errors="ignore")
    result = result.assign({name: ("group", table[name].values) for name in MEASURES})
    used = np.isfinite(result["mean_entropy"].values)
    if used.sum() < 3:
        raise InputError(f"{db.url}: expected at least 3 groups by {drifts.attrs['by']} to correlate, got {used.sum()}")
    rows = [_correlate(result[name].values[used], result["row_mean"].values[used]) for name in MEASURES]
    names = ("pearson", "spearman", "p_value")
    result = result.assign({name: ("measure", [row[i] for row in rows]) for i, name in enumerate(names)})
    result.attrs = {**drifts.attrs, "formula": "correlation over groups of degeneration and row mean of drift (P1 §5)"}
    return result.assign_coords(measure=list(MEASURES))


def _correlate(values: npt.NDArray[np.float64], drifts: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Return Pearson's r, Spearman's rho, and the two-sided p-value of rho from permutations."""
    if np.ptp(values) == 0 or np.ptp(drifts) == 0:
        return (float("nan"),) * 3
    first, second = _standardised(_ranks(values)), _standardised(_ranks(drifts))
    rho = round(float(first @ second), 12)  # without rounding errors, so that ties among permutations are ties
    rng = np.random.default_rng(0)
    at_least = sum(abs(float(rng.permutation(first) @ second)) >= abs(rho) - 1e-12 for _ in range(PERMUTATIONS))
    return float(_standardised(values) @ _standardised(drifts)), rho, (at_least + 1) / (PERMUTATIONS + 1)


def _standardised(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return values with mean 0 and norm 1."""
    centred = values - values.mean()
    unit: npt.NDArray[np.float64] = centred / np.linalg.norm(centred)
    return unit


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return ranks from 1; equal values have the mean of their ranks."""
    _, place, number = np.unique(values, return_inverse=True, return_counts=True)
    ranks: npt.NDArray[np.float64] = (np.cumsum(number) - (number - 1) / 2)[place]
    return ranks
