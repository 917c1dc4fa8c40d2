"""Two tables of the second paper: how large filters are by depth (P2 fig. 6), and what a database has (P2 A.4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from filterdb.analysis.grouping import DECILES, Key, chosen, depth_decile, group, provenance
from filterdb.arguments import as_names
from filterdb.engine.moments import MomentsReduction
from filterdb.engine.run import summaries
from filterdb.errors import UsageError
from filterdb.reduce.basis import has_scale
from filterdb.store.database import AnyDatabase, as_database

COLUMNS = ("task", "visual_category", "training_dataset")


def filter_scale(db: AnyDatabase, by: Key | None = "model") -> xr.Dataset:
    """Mean of (max w − min w) over raw filters, for each group and depth decile of the view's layers (P2 fig. 6).

    Dims: group, decile (all ten). Variables: scale (group) and decile_scale (group, decile) float64, NaN where there
    is no filter; count (group) and decile_count (group, decile) int64, the filters they are the means of. Layers whose
    scale is unknown are left out; a group that has no other keeps its place. Needs the moments only.
    """
    db = as_database(db)
    grouping = group(db, by)
    (arrays,) = summaries(db, MomentsReduction())
    used = has_scale(db, scaled=False)
    span = np.where(used, arrays["span"][chosen(db)], 0.0)
    number = np.where(used, db.layers["row_size"].values, 0)
    decile = depth_decile(db.layers["conv_depth_norm"].values)
    cell = np.ravel_multi_index((grouping.index, decile), (len(grouping.labels), len(DECILES)))
    shape = (len(grouping.labels), len(DECILES))
    total = np.bincount(cell, span, shape[0] * shape[1]).reshape(shape)
    count = np.zeros(shape, np.int64)
    np.add.at(count.reshape(-1), cell, number)
    return xr.Dataset(
        {
            "scale": ("group", _ratio(total.sum(axis=1), count.sum(axis=1)), {"long_name": "mean of max w - min w"}),
            "count": ("group", count.sum(axis=1), {"long_name": "filters"}),
            "decile_scale": (("group", "decile"), _ratio(total, count), {"long_name": "mean of max w - min w"}),
            "decile_count": (("group", "decile"), count, {"long_name": "filters"}),
        },
        coords={
            "group": grouping.labels,
            "decile": list(DECILES),
            **{key: ("group", part) for key, part in grouping.parts.items()},
        },
        attrs=provenance(db, by=grouping.by, scaled=0, formula="mean over filters of max w - min w (P2 fig. 6)"),
    )


def _ratio(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    ratio: np.ndarray = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return ratio


def statistics(db: AnyDatabase, columns: str | Sequence[str] = COLUMNS) -> xr.Dataset:
    """Models, layers and filters of the view by the labels of several columns (P2 A.4).

    Dims: row, a label of a column, by column and falling number of filters. Variables: column, label (text); models,
    layers, filters (int64), models being those that have a layer; share (float64) of the view's filters. Every layer
    is counted once in each column. Raises UsageError for an unknown column, and without any.
    """
    db = as_database(db)
    columns = as_names(columns, "columns")
    if not columns:
        raise UsageError("statistics: expected at least one column, got none")
    rows: list[tuple[str, str, int, int, int]] = []
    sizes, models = db.layers["row_size"].values, db.layers["model_index"].values
    for column in columns:
        grouping = group(db, column)
        layers = np.bincount(grouping.index, minlength=len(grouping.labels))
        filters = grouping.sums(sizes)
        of_label = np.unique(np.column_stack([grouping.index, models]), axis=0)[:, 0]
        number = np.bincount(of_label, minlength=len(grouping.labels))
        for i in np.argsort(-filters, kind="stable"):
            rows.append((grouping.by, grouping.labels[i], int(number[i]), int(layers[i]), int(filters[i])))
    names = ("column", "label", "models", "layers", "filters")
    values = dict(zip(names, zip(*rows, strict=True), strict=True))
    found = {name: ("row", np.array(values[name], object if name in names[:2] else np.int64)) for name in names}
    share = found["filters"][1] / sizes.sum()
    return xr.Dataset(
        {**found, "share": ("row", share, {"long_name": "share of the view's filters"})},
        attrs=provenance(db, formula="counts by label (P2 A.4)"),
    )
