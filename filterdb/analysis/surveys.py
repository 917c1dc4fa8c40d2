"""Compute two tables of the second paper: the scale of filters by depth (P2 fig. 6), and counts by label (P2 A.4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xarray as xr

from filterdb.analysis.grouping import Key, check_raw, chosen, group, provenance, with_depth
from filterdb.analysis.returning import returns_result
from filterdb.arguments import as_names
from filterdb.engine.moments import MomentsReduction
from filterdb.engine.run import summaries
from filterdb.errors import UsageError
from filterdb.numerics.depth import DECILES, NO_DECILE, depth_decile
from filterdb.numerics.pairs import distinct_pairs
from filterdb.reduce.basis import has_scale
from filterdb.schema import AnyKernel
from filterdb.store.database import AnyDatabase, as_database

COLUMNS = ("task", "visual_category", "training_dataset")
"""The columns that `statistics` counts by default."""


@returns_result
def filter_scale(db: AnyDatabase, by: Key | None = "model", *, kernel: AnyKernel | None = None) -> xr.Dataset:
    """Compute the mean of max w − min w over raw filters, by group and depth decile.

    Parameters
    ----------
    db : Database, str or path
        The database or a view of it.
    by : str or list of str, optional
        The labels by which layers are grouped; None: one group of all layers. Default: "model".
    kernel : (int, int) or str, optional
        Shape of the filters, such as "5x5". Default: that of `db`, which is 3×3 for a path or URL.

    Returns
    -------
    xarray.Dataset
        With dims group, decile (all ten):

        - scale (group) and decile_scale (group, decile), float64: the mean; NaN without filters.
        - count (group) and decile_count (group, decile), int64: the number of filters.

    Raises
    ------
    UsageError
        For an unknown label.

    Notes
    -----
    Layers whose scale is unknown are left out, and those of unknown depth have no decile; a group that has only such
    layers stays in the result. No filter is read again: the moments have these sums. Source: P2 fig. 6.

    Examples
    --------
    >>> result = fdb.filter_scale(db, "task")
    >>> result["group"].values, result["scale"].values.round(3)
    (array(['classification', 'detection'], dtype='<U14'), array([0.031, 0.038]))
    """
    db = as_database(db, kernel=kernel)
    check_raw(db)
    db = with_depth(db, by)
    grouping = group(db, by)
    (arrays,) = summaries(db, MomentsReduction(db.weights))
    used = has_scale(db, scaled=False)
    span = np.where(used, arrays["span"][chosen(db)], 0.0)
    number = np.where(used, db.layers["row_size"].values, 0)
    decile = depth_decile(db.layers["conv_depth_norm"].values)
    # The last column has the layers of unknown depth, which count in the means of groups only.
    shape = (len(grouping.labels), len(DECILES) + 1)
    cell = np.ravel_multi_index((grouping.index, np.where(decile == NO_DECILE, len(DECILES), decile)), shape)
    totals = np.bincount(cell, span, shape[0] * shape[1]).reshape(shape)
    counts = np.zeros(shape, np.int64)
    np.add.at(counts.reshape(-1), cell, number)
    total, count = totals[:, :-1], counts[:, :-1]
    return xr.Dataset(
        {
            "scale": ("group", _mean(totals.sum(axis=1), counts.sum(axis=1)), {"long_name": "mean of max w - min w"}),
            "count": ("group", counts.sum(axis=1), {"long_name": "filters"}),
            "decile_scale": (("group", "decile"), _mean(total, count), {"long_name": "mean of max w - min w"}),
            "decile_count": (("group", "decile"), count, {"long_name": "filters"}),
        },
        coords={
            "group": grouping.labels,
            "decile": list(DECILES),
            **{key: ("group", part) for key, part in grouping.parts.items()},
        },
        attrs=provenance(db, by=grouping.by, scaled=0, formula="mean over filters of max w - min w (P2 fig. 6)"),
    )


def _mean(total: npt.NDArray[np.float64], count: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return total / count, NaN where the count is 0."""
    ratio: npt.NDArray[np.float64] = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return ratio


@returns_result
def statistics(
    db: AnyDatabase, columns: str | Sequence[str] = COLUMNS, *, kernel: AnyKernel | None = None
) -> xr.Dataset:
    """Count the models, layers and filters of the view for each label of some columns.

    Parameters
    ----------
    db : Database, str or path
        The database or a view of it.
    columns : str or list of str
        The columns to count by. Default: task, visual_category, training_dataset.
    kernel : (int, int) or str, optional
        Shape of the filters, such as "5x5". Default: that of `db`, which is 3×3 for a path or URL.

    Returns
    -------
    xarray.Dataset
        With the dim row: a label of a column, by column and falling number of filters:

        - column and label (row), str.
        - models, layers, filters (row), int64; only models with layers count.
        - share (row), float64: the share of the view's filters.

    Raises
    ------
    UsageError
        For an unknown column, or for no column.

    Notes
    -----
    Every layer counts once in each column. Source: P2 A.4.

    Examples
    --------
    >>> table = fdb.statistics(db, "task").to_dataframe()
    >>> print(table[["label", "models", "layers", "filters"]].to_string(index=False))
             label  models  layers  filters
    classification       2       6    11264
         detection       2       6    11264
    """
    db = as_database(db, kernel=kernel)
    columns = as_names(columns, "columns")
    if not columns:
        raise UsageError("statistics: expected at least one column, got none")
    rows: list[tuple[str, str, int, int, int]] = []
    sizes, models = db.layers["row_size"].values, db.layers["model_index"].values
    for column in columns:
        grouping = group(db, column)
        layers = np.bincount(grouping.index, minlength=len(grouping.labels))
        filters = grouping.sums(sizes)
        of_label = distinct_pairs(grouping.index, models).first
        number = np.bincount(of_label, minlength=len(grouping.labels))
        for i in np.argsort(-filters, kind="stable"):
            rows.append((grouping.by, grouping.labels[i], int(number[i]), int(layers[i]), int(filters[i])))
    names = ("column", "label", "models", "layers", "filters")
    values = dict(zip(names, zip(*rows, strict=True), strict=True))
    table = {name: ("row", np.array(values[name], object if name in names[:2] else np.int64)) for name in names}
    share = table["filters"][1] / sizes.sum()
    return xr.Dataset(
        {**table, "share": ("row", share, {"long_name": "share of the view's filters"})},
        attrs=provenance(db, formula="counts by label (P2 A.4)"),
    )
