"""`filterdb nearest` as JSON."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr

from filterdb.commands.answer import Answer, basis_of, of_result, rows


def nearest(result: xr.Dataset) -> Answer:
    """A row for each model, the nearest first; `rank` null where it has too few filters to be ranked."""
    shown = [str(name) for name, array in result.variables.items() if array.dims == ("model",)]
    table = rows(result, {"model": "model", **{name: name for name in shown if name != "model"}})
    for i, row in enumerate(table):
        one = result.isel(model=i)
        row |= {
            "rank": row["rank"] or None,
            "per_component": one["per_component"].values,
            "deciles": [
                {
                    "decile": str(label),
                    "drift": one["decile_drift"].values[k],
                    "floor": one["decile_floor"].values[k],
                    "floor_q95": one["decile_floor_q95"].values[k],
                    "count": _whole(one["decile_count"].values[k]),
                }
                for k, label in enumerate(result["decile"].values)
                if result["query_count"].values[k]
            ],
        }
    attrs = result.attrs
    return {
        **of_result(result),
        "mode": attrs["mode"],
        "metric": attrs["metric"],
        "per_component_metric": attrs["per_component_metric"],
        **basis_of(result),
        "weights": result["weights"].values,
        "query": {
            "file": attrs["query"],
            "hash": attrs["query_hash"],
            "filters": attrs["query_filters"],
            "layers": attrs["query_layers"],
            "left_out": json.loads(attrs["query_left_out"]),
            "deciles": dict(zip(map(str, result["decile"].values), result["query_count"].values.tolist(), strict=True)),
        },
        "rows": table,
    }


def _whole(count: float) -> int:
    return 0 if np.isnan(count) else int(count)
