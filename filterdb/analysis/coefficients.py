"""Compute the coefficients of every filter lazily (P1 eq. 1 and 3)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr

from filterdb.analysis.question import Question
from filterdb.numerics.modes import AnyMode
from filterdb.numerics.scaling import scale
from filterdb.schema import AnyKernel
from filterdb.store.database import AnyDatabase, as_database


def coefficients(
    db: AnyDatabase, *, mode: AnyMode = "sound", scaled: bool = True, kernel: AnyKernel | None = None
) -> xr.DataArray:
    """Return the coefficients of every filter of the view, as a lazy Dask array.

    Parameters
    ----------
    db : Database, str or path
        The database or a view of it.
    mode : {"sound", "paper"}
        The basis and the signs of its components, as in `drift`. Default: "sound".
    scaled : bool
        False: raw filters, without layers whose scale is unknown. Default: True.
    kernel : (int, int) or str, optional
        Shape of the filters, such as "5x5". Default: that of `db`, which is 3×3 for a path or URL.

    Returns
    -------
    xarray.DataArray
        (filter, component) float64 in the store's chunks: (f' − mean) Vᵀ. Its coordinates along `filter` are those of
        `db.dataset`, so xarray can select and group filters by the labels of their layer and model. Coordinate weights
        (component): the share of the variance of each component.

    Raises
    ------
    UsageError
        For an unknown mode.
    InputError
        If the view has no layers.

    Notes
    -----
    P1 calls these numbers rows of U; its eq. 3 holds for UΣ, which they are. Filters are read when the array is
    computed; a filter is rebuilt as mean + coefficients · V. Source: P1 eq. 1, 3 and 9.

    Examples
    --------
    >>> c = fdb.coefficients(db)
    >>> c.dims, c.shape, type(c.data).__module__
    (('filter', 'component'), (22528, 9), 'dask.array.core')
    >>> c.sel(task="detection").std("filter").values.round(2)[:3]
    array([0.86, 0.62, 0.64])
    """
    db = as_database(db, kernel=kernel)
    question = Question.in_basis(db, None, mode, scaled=scaled)
    filters = question.db.dataset["filters"]
    mean, components = question.projection.axes.arrays
    result: xr.DataArray = xr.apply_ufunc(
        _project,
        filters,
        kwargs={"mean": mean, "components": components, "scaled": scaled},
        input_core_dims=[["weight"]],
        output_core_dims=[["component"]],
        dask="parallelized",
        output_dtypes=[np.float64],
        dask_gufunc_kwargs={"output_sizes": {"component": len(components)}},
    ).rename("coefficients")
    result.attrs = question.provenance(by=None, formula="(f' - mean) V^T (P1 eq. 3)", long_name="coefficient")
    return result.assign_coords(weights=("component", question.weights))


def _project(
    filters: npt.NDArray[np.float32],
    *,
    mean: npt.NDArray[np.float64],
    components: npt.NDArray[np.float64],
    scaled: bool,
) -> npt.NDArray[np.float64]:
    """Return the coefficients of filters (n, K), (n, K) float64."""
    values = scale(filters) if scaled else filters.astype(np.float64)
    projected: npt.NDArray[np.float64] = (values - mean) @ components.T
    return projected
