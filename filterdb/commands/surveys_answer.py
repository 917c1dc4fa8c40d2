"""`filterdb series`, `filterdb filter-scale` and `filterdb statistics` as JSON."""

from __future__ import annotations

import xarray as xr

from filterdb.commands.answer import Answer, basis_of, of_result, rows


def _along(result: xr.Dataset, dim: str) -> list[Answer]:
    """A row for each place along a dimension."""
    names = {str(name): str(name) for name, array in result.variables.items() if array.dims == (dim,)}
    return rows(result, names)


def series(result: xr.Dataset) -> Answer:
    """`filterdb series`."""
    dims = {"checkpoints": "checkpoint", "pairs": "pair", "retrainings": "retraining"}
    tables = {name: _along(result, dim) for name, dim in dims.items()}
    return {**of_result(result), "mode": result.attrs["mode"], **basis_of(result), **tables}


def filter_scale(result: xr.Dataset) -> Answer:
    """`filterdb filter-scale`."""
    deciles = [str(label) for label in result["decile"].values]
    found = _along(result, "group")
    for i, row in enumerate(found):
        scale, count = result["decile_scale"].values[i].tolist(), result["decile_count"].values[i].tolist()
        row["deciles"] = [
            {"decile": label, "scale": one, "count": number}
            for label, one, number in zip(deciles, scale, count, strict=True)
        ]
    return {**of_result(result), "by": result.attrs["by"], "rows": found}


def statistics(result: xr.Dataset) -> Answer:
    """`filterdb statistics`."""
    return {**of_result(result), "rows": _along(result, "row")}
