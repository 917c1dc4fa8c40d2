"""`filterdb density` and `filterdb phenotypes` as JSON."""

from __future__ import annotations

import json

import xarray as xr

from filterdb.commands.answer import Answer, basis_of, of_result


def density(result: xr.Dataset) -> Answer:
    """`filterdb density`: counts[group][bin of the first component][bin of the second]."""
    attrs = result.attrs
    return {
        **of_result(result),
        "by": attrs["by"],
        "mode": attrs["mode"],
        "scaled": bool(attrs["scaled"]),
        "components": attrs["components"],
        "bins": result.sizes["bin"],
        "range": attrs["range"],
        **basis_of(result),
        "groups": [str(label) for label in result["group"].values],
        "count": result["count"].values,
        "outside": result["outside"].values,
        "counts": result["counts"].values,
    }


def phenotypes(result: xr.Dataset) -> Answer:
    """`filterdb phenotypes`: of each group its components and pairs, with all that the rule looked at."""
    names = [str(name) for name, array in result.data_vars.items() if array.dims == ("group", "component")]
    groups = []
    for i, label in enumerate(result["group"].values):
        one = result.isel(group=i)
        components = [{name: one[name].values[k] for name in names} for k in range(result.sizes["component"])]
        pairs = [
            {
                "components": [int(one["first"][k]), int(one["second"][k])],
                **{name: one[f"pair_{name}"].values[k] for name in names},
            }
            for k in range(result.sizes["pair"])
        ]
        groups.append({"group": str(label), "count": int(one["count"]), "components": components, "pairs": pairs})
    attrs = result.attrs
    return {
        **of_result(result),
        "by": attrs["by"],
        "mode": attrs["mode"],
        "scaled": bool(attrs["scaled"]),
        **basis_of(result),
        "bounds": json.loads(attrs["bounds"]),
        "groups": groups,
    }
