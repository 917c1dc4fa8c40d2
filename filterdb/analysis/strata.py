"""Split a view into strata, one for each group of another grouping, and join the results along `stratum`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from filterdb.analysis.grouping import Key, group, with_depth
from filterdb.numerics.modes import AnyMode
from filterdb.store.database import AnyDatabase, Database, as_database


def strata(db: AnyDatabase, within: Key, mode: AnyMode = "sound") -> dict[str, Database]:
    """Return the view of each group of `within`, by label. Raises UsageError for an unknown label."""
    db = with_depth(as_database(db), within)
    groups = group(db, within, mode)
    return {label: db.keep(groups.index == i, f"{groups.by} = {label}") for i, label in enumerate(groups.labels)}


def align(results: dict[str, xr.Dataset], labels: Sequence[str] | npt.NDArray[Any]) -> xr.Dataset:
    """Join results on (group, other) along `stratum`, each with the groups `labels`.

    A group that a stratum lacks has NaN, and an empty text as its verdict. Attributes are those of the first result.
    """
    aligned = [
        result.reindex(
            group=labels,
            other=labels,
            fill_value={name: "" if values.dtype.kind == "U" else np.nan for name, values in result.data_vars.items()},
        )
        for result in results.values()
    ]
    return xr.concat(aligned, dim="stratum", combine_attrs="override").assign_coords(stratum=list(results))
