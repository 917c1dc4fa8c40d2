"""The tables beside the page: what each figure shows, as CSV, and as Parquet where pyarrow is installed."""

from __future__ import annotations

import io
from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from filterdb.page.boxes import Box, pairs
from filterdb.schema import distinct
from filterdb.store.database import Database

LONG = 30_000
"""Rows up to which a table of pairs is also written as CSV; a longer one has single precision in Parquet."""

WIDE = 200
"""Groups from which on a matrix is CSV only, of four digits: as pairs it is in Parquet, in a fraction of the room."""

MANY, DIGITS = 1_000, {"wide": "%.4g", "many": "%.9g"}
"""Rows from which on the numbers of CSV have nine digits."""

PAIR_FACTS = ("drift", "floor", "floor_q95", "model_floor", "model_floor_q95", "verdict", "judged_by")
MODEL_FACTS = (
    "model", "task", "visual_category", "training_dataset", "family", "filters", "layers", "total_filters",
    "share_3x3", "opset", "producer", "operators", "filter_shapes",
)  # fmt: skip
LAYER_FACTS = ("filters", "conv_depth", "conv_depth_norm", "sparsity", "variance_entropy", "threshold", "ratio",
               "clean_variance_entropy", "orthogonality", "span")  # fmt: skip


def files(name: str, table: pd.DataFrame, *, csv: bool = True) -> dict[str, bytes]:
    """A table's files below `tables`."""
    paths = {f"tables/{name}.csv": to_csv(table)} if csv else {}
    if find_spec("pyarrow") is not None and table.shape[1] <= WIDE:
        paths[f"tables/{name}.parquet"] = to_parquet(table)
    return paths


def to_csv(table: pd.DataFrame) -> bytes:
    """CSV whose texts no spreadsheet takes for a formula: those that begin like one get an apostrophe."""
    safe = table.copy()
    safe.columns = pd.Index([_inert(str(name)) for name in table.columns])
    for i, dtype in enumerate(table.dtypes):
        if not pd.api.types.is_numeric_dtype(dtype):
            safe.isetitem(i, [_inert(value) for value in table.iloc[:, i]])
    digits = DIGITS["wide"] if table.shape[1] > WIDE else DIGITS["many"] if len(table) > MANY else None
    return safe.to_csv(index=False, float_format=digits, lineterminator="\n").encode("utf-8", "replace")


def _inert(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else value


def to_parquet(table: pd.DataFrame) -> bytes:
    """Parquet, names as they are."""
    buffer = io.BytesIO()
    texts = {name: _valid(table[name]) for name in table.columns if not pd.api.types.is_numeric_dtype(table[name])}
    floats = [name for name in table.columns if pd.api.types.is_float_dtype(table[name])]
    short = {name: table[name].astype(np.float32) for name in floats} if len(table) > LONG else {}
    table.assign(**texts, **short).to_parquet(
        buffer, index=False, engine="pyarrow", compression="zstd",
        use_dictionary=[name for name in table.columns if name not in floats], use_byte_stream_split=floats,
    )  # fmt: skip
    return buffer.getvalue()


def _valid(texts: pd.Series[Any]) -> np.ndarray:
    """Each text as UTF-8 can hold it; names come back many times over in a table of pairs."""
    codes, found = pd.factorize(texts, use_na_sentinel=False)
    return np.array([str(value).encode("utf-8", "replace").decode() for value in found], object)[codes]


def models(db: Database) -> pd.DataFrame:
    """A row for each model, those without filters too."""
    return pd.DataFrame({name: db.models[name].values for name in MODEL_FACTS})


def contents(result: xr.Dataset) -> pd.DataFrame:
    """The rows of a `statistics` result (P2 A.4)."""
    return result.to_dataframe().reset_index(drop=True)


def filter_scale(result: xr.Dataset) -> pd.DataFrame:
    """A row for each group and tenth of the depth of a `filter_scale` result."""
    table = result[["decile_scale", "decile_count"]].to_dataframe().reset_index()
    return table.rename(columns={"decile_scale": "scale", "decile_count": "filters"})[table["decile_count"] > 0]


def checkpoints(result: xr.Dataset) -> pd.DataFrame:
    """A row for each checkpoint of a `series` result."""
    return result.drop_dims(["pair", "retraining"]).to_dataframe().reset_index(drop=True)


def retrainings(result: xr.Dataset) -> pd.DataFrame:
    """A row for each pair of retrainings of a `series` result."""
    return result.drop_dims(["checkpoint", "retraining"]).to_dataframe().reset_index(drop=True)


def basis(result: xr.Dataset) -> pd.DataFrame:
    """A row for each component of a `pca` result's first group: ratio, sum so far, nine weights."""
    table = pd.DataFrame(result["components"].values[0], columns=[f"w{i}" for i in range(result.sizes["weight"])])
    ratios = result["explained_variance_ratio"].values[0]
    table.insert(0, "cumulative", np.cumsum(ratios))
    table.insert(0, "explained_variance_ratio", ratios)
    table.insert(0, "component", range(len(table)))
    return table


def matrix(result: xr.Dataset) -> pd.DataFrame:
    """The matrix of a `drift` result: a row for each group, a column for each other."""
    by, labels = str(result.attrs["by"]), result["group"].values.astype(str).astype(object)
    table = pd.DataFrame(result["drift"].values)
    table.insert(0, "count", result["count"].values)
    table.insert(0, "group", labels)
    # A group may be called like a column.
    table.columns = pd.Index(distinct([by, "filters", *map(str, result["other"].values)]))
    return table


def pair_facts(result: xr.Dataset) -> pd.DataFrame:
    """A row for each pair of groups of a `drift` result: drift, floors, interval, verdict, each component."""
    groups = result["group"].values.astype(str).astype(object)
    rows, columns = np.triu_indices(len(groups), 1)
    table = pd.DataFrame({"group": groups[rows], "other": groups[columns]})
    for name in PAIR_FACTS:
        if name in result:
            found = pairs(result[name].values)
            table[name] = found if found.dtype.kind == "f" else found.astype(str).astype(object)
    if "interval" in result:
        for bound, name in enumerate(("low", "high")):
            table[name] = pairs(result["interval"].values[..., bound])
    if "per_component" in result:
        for component, values in enumerate(pairs(result["per_component"].values)):
            table[f"c{component}"] = values
    return table


def histograms(result: xr.Dataset) -> pd.DataFrame:
    """The distributions of a `drift` result: a row for each group and component, a column for each bin."""
    counts = result["counts"].values
    groups, components, bins = counts.shape
    table = pd.DataFrame(counts.reshape(-1, bins), columns=[f"{edge:.9g}" for edge in result["bin_edges"].values[:-1]])
    table.insert(0, "component", np.tile(np.arange(components), groups))
    table.insert(0, "group", np.repeat(result["group"].values.astype(str).astype(object), components))
    return table


def degeneration(result: xr.Dataset) -> pd.DataFrame:
    """A row for each layer of a `degeneration` result."""
    rules = result["rule"].values
    return pd.DataFrame(
        {
            "model": result["layer_model"].values,
            "layer": result["layer_name"].values,
            **{name: result[name].values for name in LAYER_FACTS},
            "verdict": [", ".join(rules[hit]) for hit in result["verdict"].values.astype(bool)],
        }
    )


def box_rows(boxes: list[Box]) -> pd.DataFrame:
    """Box plots as their numbers."""
    return pd.DataFrame([row.row() for row in boxes])


def first_filters(result: xr.Dataset) -> pd.DataFrame:
    """A row for each filter that is shown."""
    filters = result["filters"].values
    there = np.isfinite(filters).all(axis=2)
    layer, number = np.nonzero(there)
    table = pd.DataFrame(filters[there], columns=[f"w{i}" for i in range(filters.shape[2])])
    table.insert(0, "filter", number)
    table.insert(0, "layer", result["layer_name"].values[layer])
    table.insert(0, "model", result["layer_model"].values[layer])
    return table
