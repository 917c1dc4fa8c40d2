"""The rows of results as pandas tables: one for each pair, layer, model, group or component."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from filterdb.numerics.depth import NO_DEPTH

type Dims = tuple[str, ...]

PAIR_FACTS = ("drift", "floor", "floor_q95", "model_floor", "model_floor_q95", "layer_floor", "layer_floor_q95",
              "p_value", "q_value", "detectable", "verdict", "judged_by")  # fmt: skip
"""Variables of a pair of groups, in the order of the columns."""


class Rows(NamedTuple):
    """The function that returns the rows of a result, and the variables that it needs or shows, with their dimensions.

    `needs` must be there. What a result has of `shows` must have these dimensions, too: otherwise a selection has left
    one label of a dimension, and the rows would be others than those of the analysis.
    """

    needs: Mapping[str, Dims]
    make: Callable[[xr.Dataset], pd.DataFrame]
    shows: Mapping[str, Dims] = MappingProxyType({})
    fits: Callable[[xr.Dataset], bool] = lambda result: True
    """Whether the dimensions have the sizes that the function expects."""


def frame(result: xr.Dataset) -> pd.DataFrame | None:
    """Return the rows of a result; None if it has none, see `has_rows`."""
    return ROWS[str(result.attrs["analysis"])].make(result) if has_rows(result) else None


def has_rows(result: xr.Dataset) -> bool:
    """Return whether the analysis has rows, and the result the variables that they need, with all their dimensions."""
    rows = ROWS.get(str(result.attrs.get("analysis")))
    if rows is None or not rows.needs.keys() <= result.variables.keys():
        return False
    stated = {**rows.shows, **rows.needs}
    # In a drift `within` strata, variables have one dimension more.
    outer = ("stratum",) if "stratum" in result.sizes else ()
    dims = {str(name): array.dims for name, array in result.variables.items() if name in stated}
    are_whole = all(dims[name] in {stated[name], outer + stated[name]} for name in dims)
    return are_whole and rows.fits(result)


def pairs(result: xr.Dataset) -> pd.DataFrame:
    """Return a row for each pair of groups of a `drift` result, or with `within` for each pair in each stratum."""
    if "stratum" not in result.sizes:
        return _pairs(result, *_cells(result))
    strata = [result.isel(stratum=i) for i in range(result.sizes["stratum"])]
    tables = [_pairs(stratum, *_cells(stratum)) for stratum in strata]
    whole = pd.concat(tables, ignore_index=True)
    labels = _texts(result["stratum"].values)
    whole.insert(0, "stratum", np.repeat(labels, [len(table) for table in tables]))
    return whole[whole["drift"].notna()].reset_index(drop=True)


def largest_pairs(result: xr.Dataset, number: int) -> pd.DataFrame:
    """Return the rows of `pairs` with the largest drift, the largest first, of a result without strata."""
    rows, columns = _cells(result)
    values = np.nan_to_num(result["drift"].values[rows, columns], nan=-np.inf)
    first = np.argsort(-values, kind="stable")[:number]
    return _pairs(result, rows[first], columns[first])


def of_pairs(result: xr.Dataset, name: str) -> npt.NDArray[Any]:
    """Return the values of a variable (group, other) of the pairs, (pairs,)."""
    values: npt.NDArray[Any] = result[name].values[_cells(result)]
    return values


def _cells(result: xr.Dataset) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the rows and columns of the pairs: each once, or of a selection all but those of a group with itself."""
    groups, others = result["group"].values, result["other"].values
    if np.array_equal(groups, others):
        rows, columns = np.triu_indices(len(groups), 1)
        return rows, columns
    rows, columns = np.nonzero(groups[:, None] != others[None, :])
    return rows, columns


def _pairs(result: xr.Dataset, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]) -> pd.DataFrame:
    """Return a row for each of these cells: drift, floors, interval, verdict, each component."""
    table: dict[str, Any] = {
        "group": _texts(result["group"].values)[rows],
        "other": _texts(result["other"].values)[columns],
    }
    for name in PAIR_FACTS:
        if name in result:
            values = result[name].values[rows, columns]
            table[name] = values if values.dtype.kind == "f" else _texts(values)
    if "interval" in result:
        for bound, name in enumerate(("low", "high")):
            table[name] = result["interval"].values[rows, columns, bound]
    if "per_component" in result:
        table |= {f"c{i}": values[rows, columns] for i, values in enumerate(result["per_component"].values)}
    return pd.DataFrame(table)


def _along(result: xr.Dataset, dim: str, names: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Return the variables with this dimension alone as columns: `names`, a variable by column, first."""
    names = names or {}
    others = [str(name) for name, array in result.variables.items() if array.dims == (dim,)]
    taken = {*names, *names.values(), *([dim] if names else [])}
    columns = {**names, **{name: name for name in others if name not in taken}}
    return pd.DataFrame({column: _column(name, result[name].values) for column, name in columns.items()})


def _column(name: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the values of a column; an unknown depth is NaN."""
    if name in {"conv_depth", "graph_depth"} and (values == NO_DEPTH).any():
        return np.where(values == NO_DEPTH, np.nan, values)
    return _texts(values) if values.dtype.kind in "UT" else values


def _texts(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    texts = np.empty(values.shape, object)
    texts.ravel()[:] = list(map(str, values.ravel().tolist()))  # `astype` cannot convert all kinds of text
    return texts


def _layers(result: xr.Dataset) -> pd.DataFrame:
    """Return a row for each layer of a `degeneration` result, with a column for each verdict."""
    return _with_rules(result, {"model": "layer_model", "layer": "layer_name", "filters": "filters"})


def _layers_of_files(result: xr.Dataset) -> pd.DataFrame:
    """Return a row for each layer of a `check` result, with a column for each verdict.

    `reason` says what is not finite, or why the layer could not be read.
    """
    table = _with_rules(result, {"file": "layer_file", "layer": "layer_name", "filters": "filters"})
    nonfinite = _texts(result["nonfinite"].values)
    return table.assign(reason=np.where(nonfinite != "", nonfinite, _texts(result["unread_reason"].values)))


def _with_rules(result: xr.Dataset, names: dict[str, str]) -> pd.DataFrame:
    if "layer_group" in result.variables:
        names = {**names, "group": "layer_group"}
    table, verdicts = _along(result, "layer", names), result["verdict"].values.astype(bool)
    rules = {str(rule): hits for rule, hits in zip(result["rule"].values, verdicts.T, strict=True)}
    return table.drop(columns=[name for name in rules if name in table]).assign(**rules)


def _components(result: xr.Dataset) -> pd.DataFrame:
    """Return a row for each group and component of a `pca` result: shares of the variance, and weights."""
    groups, components, weights = result["components"].shape
    table = {
        "group": np.repeat(_texts(result["group"].values), components),
        "component": np.tile(np.arange(components), groups),
        "count": np.repeat(result["count"].values, components),
    }
    for name in ("explained_variance", "explained_variance_ratio", "singular_values"):
        table[name] = result[name].values.ravel()
    vectors = result["components"].values.reshape(groups * components, weights)
    return pd.DataFrame({**table, **{f"w{i}": vectors[:, i] for i in range(weights)}})


def _of_groups(result: xr.Dataset, *dims: str) -> pd.DataFrame:
    """Return a row for each group and position of other dimensions, with the variables that have all of these."""
    shown = [str(name) for name, array in result.data_vars.items() if array.dims == ("group", *dims)]
    shape = tuple(result.sizes[dim] for dim in ("group", *dims))
    places = np.indices(shape).reshape(len(shape), -1)
    keys = {dim: (result[dim].values if dim in result.coords else np.arange(result.sizes[dim])) for dim in dims}
    table: dict[str, Any] = {"group": _texts(result["group"].values)[places[0]]}
    table |= {dim: keys[dim][place] for dim, place in zip(dims, places[1:], strict=True)}
    table |= {name: _column(name, result[name].values.ravel()) for name in shown}
    return pd.DataFrame(table)


def _distributions(result: xr.Dataset) -> pd.DataFrame:
    """Return a row for each group and component of a `distributions` result, with its numbers of filters and models."""
    table, components = _of_groups(result, "component"), result.sizes["component"]
    return table.assign(**{name: np.repeat(result[name].values, components) for name in ("count", "models")})


def _cells_of_density(result: xr.Dataset) -> pd.DataFrame:
    """Return a row for each cell with filters: the coefficients at its centre, and their number."""
    edges, (first, second) = result["bin_edges"].values, result.attrs["components"]
    centres, counts = (edges[:-1] + edges[1:]) / 2, result["counts"].values
    group, row, column = np.nonzero(counts)
    labels = _texts(result["group"].values)[group]
    places = {f"c{first}": centres[row], f"c{second}": centres[column]}
    return pd.DataFrame({"group": labels, **places, "filters": counts[group, row, column]})


def _phenotypes(result: xr.Dataset) -> pd.DataFrame:
    """Return a row for each group and component, then for each group and pair of components."""
    single = _of_groups(result, "component")
    joint = _of_groups(result, "pair").rename(columns=lambda name: str(name).removeprefix("pair_"))
    single["component"], joint = single["component"].astype(str), joint.rename(columns={"pair": "component"})
    return pd.concat([single, joint[[name for name in joint if name in single]]], ignore_index=True)


def _angles(result: xr.Dataset) -> pd.DataFrame:
    """Return a row for each pair of groups and number of dimensions of a `principal_angles` result."""
    rows, columns = _cells(result)
    dimensions = result["dimension"].values
    table = {
        "group": np.repeat(_texts(result["group"].values)[rows], len(dimensions)),
        "other": np.repeat(_texts(result["other"].values)[columns], len(dimensions)),
        "dimension": np.tile(dimensions, len(rows)),
    }
    return pd.DataFrame({**table, "angle": result["angle"].values[:, rows, columns].T.ravel()})


def _scales(result: xr.Dataset) -> pd.DataFrame:
    """Return a row for each group and tenth of the depth with filters of a `filter_scale` result."""
    table = _of_groups(result, "decile").rename(columns={"decile_scale": "scale", "decile_count": "count"})
    return table[table["count"] > 0].reset_index(drop=True)


def _spectra(result: xr.Dataset) -> pd.DataFrame:
    """Return a row for each group of a `spectrum` result, with the energy and share of each term."""
    table = _along(result, "group")
    for name in ("energy", "share"):
        terms = zip(result["term"].values.tolist(), result[name].values.T, strict=True)
        table = table.assign(**{f"{name}_{str(term).replace(',', '_')}": values for term, values in terms})
    return table


def _codebooks(result: xr.Dataset) -> pd.DataFrame:
    """Return a row for each group of a `codebook` result, each figure beside that of noise."""
    table = _along(result, "group")
    for i, threshold in enumerate(result["threshold"].values.tolist()):
        for name in ("coverage", "noise_coverage"):
            table[f"{name}_{threshold:g}"] = result[name].values[:, i]
    return table


def _explained(result: xr.Dataset) -> pd.DataFrame:
    """Return a row for each component, model and layer with its share of the drift."""
    parts: dict[str, dict[str, Any]] = {
        "component": {"name": [f"c{i}" for i in range(result.sizes["component"])], "share": result["component_share"]},
        "model": {"name": result["model"], "share": result["model_share"], "without": result["without_model"]},
        "layer": {
            "name": result["layer"], "share": result["layer_share"], "without": result["without_layer"],
            "group": result["layer_side"], "filters": result["layer_count"],
        },
    }  # fmt: skip
    tables = []
    for part, columns in parts.items():
        values = {name: _column(name, np.asarray(column)) for name, column in columns.items()}
        table = pd.DataFrame(values)
        table.insert(0, "part", part)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _thresholds(result: xr.Dataset) -> pd.DataFrame:
    """Return a row for each size of a `randomness_threshold` result, with the smallest entropy that was drawn."""
    return _along(result, "size").assign(smallest=result["smallest"].values.min(axis=0))


def _have(dims: Dims, *names: str) -> dict[str, Dims]:
    return dict.fromkeys(names, dims)


_LAYER, _GROUP, _PAIR = ("layer",), ("group",), ("group", "other")

ROWS = {
    "check": Rows(
        _have(_LAYER, "layer_file", "layer_name", "filters", "nonfinite", "unread_reason")
        | {"verdict": ("layer", "rule"), "rule": ("rule",)},
        _layers_of_files,
    ),
    "codebook": Rows(
        {"group": _GROUP, "threshold": ("threshold",)} | _have(("group", "threshold"), "coverage", "noise_coverage"),
        _codebooks,
        {"counts": ("group", "code")},
    ),
    "degeneration": Rows(
        _have(_LAYER, "layer_model", "layer_name", "filters") | {"verdict": ("layer", "rule"), "rule": ("rule",)},
        _layers,
        {"layer_group": _LAYER},
    ),
    "degeneration_drift": Rows(_have(("measure",), "measure", "pearson"), lambda result: _along(result, "measure")),
    "density": Rows(
        {"group": _GROUP, "counts": ("group", "bin", "other_bin"), "bin_edges": ("edge",)},
        _cells_of_density,
        fits=lambda result: result.sizes["edge"] - 1 == result.sizes["bin"] == result.sizes["other_bin"],
    ),
    "distributions": Rows(
        _have(_GROUP, "group", "count", "models") | _have(("group", "component"), "mean", "std"),
        _distributions,
        {**_have(("group", "component", "bin"), "counts", "probabilities"), "kde": ("group", "component", "point")},
    ),
    "drift": Rows(
        {"group": _GROUP, "other": ("other",), "drift": _PAIR, "count": _GROUP},
        pairs,
        _have(_PAIR, *PAIR_FACTS) | {"interval": (*_PAIR, "bound"), "per_component": ("component", *_PAIR)},
        fits=lambda result: result.sizes.get("bound", 2) == 2 and result.sizes.get("stratum", 1) > 0,
    ),
    "explain": Rows(
        {"component_share": ("component",)}
        | _have(("model",), "model", "model_share", "without_model")
        | _have(_LAYER, "layer", "layer_share", "without_layer", "layer_side", "layer_count"),
        _explained,
    ),
    "filter_scale": Rows(
        _have(_GROUP, "group", "scale", "count")
        | {"decile": ("decile",)}
        | _have(("group", "decile"), "decile_scale", "decile_count"),
        _scales,
    ),
    "nearest": Rows(
        _have(("model",), "model", "drift", "floor", "rank"),
        lambda result: _along(result, "model"),
        {"per_component": ("component", "model")}
        | _have(("model", "decile"), "decile_drift", "decile_floor", "decile_floor_q95", "decile_count"),
    ),
    "pca": Rows(
        {"group": _GROUP, "count": _GROUP, "components": ("group", "component", "weight")}
        | _have(("group", "component"), "explained_variance", "explained_variance_ratio", "singular_values"),
        _components,
    ),
    "phenotypes": Rows(
        {"group": _GROUP, "component": ("component",), "pair": ("pair",)}
        | {"phenotype": ("group", "component"), "pair_phenotype": ("group", "pair")},
        _phenotypes,
    ),
    "principal_angles": Rows(
        {"dimension": ("dimension",), "group": _GROUP, "other": ("other",), "angle": ("dimension", *_PAIR)}, _angles
    ),
    "randomness_threshold": Rows(
        {"size": ("size",), "smallest": ("repeat", "size"), "threshold": ("size",)},
        _thresholds,
        fits=lambda result: result.sizes["repeat"] > 0,
    ),
    "series": Rows(
        {"training": ("checkpoint",), "pair_drift": ("pair",), "retraining": ("retraining",)},
        lambda result: _along(result, "checkpoint"),
    ),
    "spectrum": Rows({"group": _GROUP, "term": ("term",)} | _have(("group", "term"), "energy", "share"), _spectra),
}
"""The rows of each analysis. Results of the others have one dimension, and xarray's table a row for each position."""
