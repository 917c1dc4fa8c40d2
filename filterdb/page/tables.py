"""The tables beside the page: the numbers of each figure as CSV, and as Parquet if pyarrow is installed."""

from __future__ import annotations

import io
from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from filterdb.analysis import frames
from filterdb.numerics.box import Box
from filterdb.schema import distinct
from filterdb.store.database import Database

LONG, MANTISSA = 20_000, 11
"""A table of layers or pairs with more rows is only Parquet. The numbers of any longer table are exact to 0.03 %, as
inside the page: single precision with so many bits."""

OF_LAYERS = ("degeneration", "spectrum")
"""The tables with a row for each layer."""

WIDE = 200
"""A table with more columns is only CSV, with four digits. Parquet has a matrix as pairs, which is much smaller."""

MANY, DIGITS = 1_000, {"short": "%.4g", "many": "%.6g"}
"""In tables with more rows, the numbers of CSV have six digits; in those that are `WIDE` or `LONG`, four."""

MODEL_FACTS = (
    "model", "task", "visual_category", "training_dataset", "family", "filters", "layers", "total_filters",
    "share_3x3", "opset", "producer", "operators", "filter_shapes",
)  # fmt: skip
LAYER_FACTS = ("filters", "conv_depth", "conv_depth_norm", "sparsity", "variance_entropy", "threshold", "ratio",
               "p_value", "clean_variance_entropy", "orthogonality", "span")  # fmt: skip


def formats(rows: int = 0) -> list[str]:
    """Return the formats of a table of so many layers or pairs. Without pyarrow, Parquet cannot be written."""
    if find_spec("pyarrow") is None:
        return ["csv"]
    return ["csv", "parquet"] if rows <= LONG else ["parquet"]


def files(name: str, table: pd.DataFrame, *, csv: bool = True) -> dict[str, bytes]:
    """Return the bytes of a table's files below `tables`, by path."""
    paths = {f"tables/{name}.csv": to_csv(table)} if csv else {}
    if "parquet" in formats() and table.shape[1] <= WIDE:
        paths[f"tables/{name}.parquet"] = to_parquet(table)
    return paths


def to_csv(table: pd.DataFrame) -> bytes:
    """Return CSV. Texts that a spreadsheet would take for a formula begin with an apostrophe."""
    safe = table.copy()
    safe.columns = pd.Index([_inert(str(name)) for name in table.columns])
    for i, dtype in enumerate(table.dtypes):
        if not pd.api.types.is_numeric_dtype(dtype):
            safe.isetitem(i, [_inert(value) for value in table.iloc[:, i]])
    is_short = table.shape[1] > WIDE or len(table) > LONG
    digits = DIGITS["short"] if is_short else DIGITS["many"] if len(table) > MANY else None
    return safe.to_csv(index=False, float_format=digits, lineterminator="\n").encode("utf-8", "replace")


def _inert(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else value


def to_parquet(table: pd.DataFrame) -> bytes:
    """Return Parquet, with unchanged names."""
    buffer = io.BytesIO()
    texts = {name: _valid(table[name]) for name in table.columns if not pd.api.types.is_numeric_dtype(table[name])}
    floats = [name for name in table.columns if pd.api.types.is_float_dtype(table[name])]
    short = {name: _rounded(table[name].to_numpy()) for name in floats} if len(table) > LONG else {}
    table.assign(**texts, **short).to_parquet(
        buffer, index=False, engine="pyarrow", compression="zstd",
        use_dictionary=[name for name in table.columns if name not in floats], use_byte_stream_split=floats,
    )  # fmt: skip
    return buffer.getvalue()


def _rounded(values: np.ndarray) -> np.ndarray:
    """Return numbers in single precision with MANTISSA bits, whose remaining bits compress to nothing."""
    single = values.astype(np.float32)
    dropped = 23 - MANTISSA
    bits = (single.view(np.uint32) + (1 << (dropped - 1))) >> dropped << dropped
    return np.where(np.isfinite(single), bits.astype(np.uint32).view(np.float32), single)


def _valid(texts: pd.Series[Any]) -> np.ndarray:
    """Replace what UTF-8 cannot encode; once for each distinct text, as a table of pairs repeats names many times."""
    codes, distinct_texts = pd.factorize(texts, use_na_sentinel=False)
    return np.array([str(text).encode("utf-8", "replace").decode() for text in distinct_texts], object)[codes]


def models(db: Database) -> pd.DataFrame:
    """Return a row for each model, also for models without filters."""
    return pd.DataFrame({name: db.models[name].values for name in MODEL_FACTS})


def contents(result: xr.Dataset) -> pd.DataFrame:
    """Return the rows of a `statistics` result (P2 A.4)."""
    return result.to_dataframe().reset_index(drop=True)


def filter_scale(result: xr.Dataset) -> pd.DataFrame:
    """Return a row for each group and tenth of the depth of a `filter_scale` result."""
    table = result[["decile_scale", "decile_count"]].to_dataframe().reset_index()
    return table.rename(columns={"decile_scale": "scale", "decile_count": "filters"})[table["decile_count"] > 0]


def checkpoints(result: xr.Dataset) -> pd.DataFrame:
    """Return a row for each checkpoint of a `series` result."""
    return result.drop_dims(["pair", "retraining"]).to_dataframe().reset_index(drop=True)


def retrainings(result: xr.Dataset) -> pd.DataFrame:
    """Return a row for each pair of retrainings of a `series` result."""
    return result.drop_dims(["checkpoint", "retraining"]).to_dataframe().reset_index(drop=True)


def basis(result: xr.Dataset) -> pd.DataFrame:
    """Return a row for each component of a `pca` result's first group: ratio, cumulative ratio, weights."""
    return _basis_of_group(result, 0)


def bases(result: xr.Dataset) -> pd.DataFrame:
    """Return the rows of `basis` for each group of a `pca` result."""
    parts = [_basis_of_group(result, i) for i in range(result.sizes["group"])]
    table = pd.concat(parts, ignore_index=True)
    labels = result["group"].values.astype(str).astype(object)
    table.insert(0, "group", np.repeat(labels, [len(part) for part in parts]))
    return table


def _basis_of_group(result: xr.Dataset, group: int) -> pd.DataFrame:
    """Return a row for each component of a group."""
    table = pd.DataFrame(result["components"].values[group], columns=[f"w{i}" for i in range(result.sizes["weight"])])
    ratios = result["explained_variance_ratio"].values[group]
    table.insert(0, "cumulative", np.cumsum(ratios))
    table.insert(0, "explained_variance_ratio", ratios)
    table.insert(0, "component", range(len(table)))
    return table


def matrix(result: xr.Dataset) -> pd.DataFrame:
    """Return the matrix of a `drift` result: a row and a column for each group."""
    by, labels = str(result.attrs["by"]), result["group"].values.astype(str).astype(object)
    table = pd.DataFrame(result["drift"].values)
    table.insert(0, "count", result["count"].values)
    table.insert(0, "group", labels)
    # A group may have the name of another column.
    table.columns = pd.Index(distinct([by, "filters", *map(str, result["other"].values)]))
    return table


def pair_facts(result: xr.Dataset) -> pd.DataFrame:
    """Return a row for each pair of groups of a `drift` result: drift, floors, interval, verdict, each component."""
    return frames.pairs(result)


def histograms(result: xr.Dataset) -> pd.DataFrame:
    """Return the distributions of a `drift` result: a row for each group and component, a column for each bin."""
    counts = result["counts"].values
    groups, components, bins = counts.shape
    table = pd.DataFrame(counts.reshape(-1, bins), columns=[f"{edge:.9g}" for edge in result["bin_edges"].values[:-1]])
    table.insert(0, "component", np.tile(np.arange(components), groups))
    table.insert(0, "group", np.repeat(result["group"].values.astype(str).astype(object), components))
    return table


def degeneration(result: xr.Dataset) -> pd.DataFrame:
    """Return a row for each layer of a `degeneration` result."""
    rules = result["rule"].values
    return pd.DataFrame(
        {
            "model": result["layer_model"].values,
            "layer": result["layer_name"].values,
            **{name: result[name].values for name in LAYER_FACTS},
            "verdict": [", ".join(rules[hit]) for hit in result["verdict"].values.astype(bool)],
        }
    )


def spectrum(db: Database, result: xr.Dataset) -> pd.DataFrame:
    """Return a row for each layer of a `spectrum` result by layer, with the share of each DCT term."""
    names = ("count", "low", "high", "constant", "horizontal", "vertical", "diagonal", "aliasing")
    terms = [f"term_{term.replace(',', '_')}" for term in result["term"].values.tolist()]
    return pd.DataFrame(
        {
            "model": db.layers["model"].values,
            "layer": db.layers["layer_name"].values,
            **{"filters" if name == "count" else name: result[name].values for name in names},
            **dict(zip(terms, result["share"].values.T, strict=True)),
        }
    )


def codes(result: xr.Dataset) -> pd.DataFrame:
    """Return a row for each code of a `codebook` result, with its share of the filters and its weights."""
    weights = {f"w{i}": weight for i, weight in enumerate(result["codes"].values.T)}
    return pd.DataFrame({"code": np.arange(result.sizes["code"]), "share": result["share"].values, **weights})


def codebook(result: xr.Dataset) -> pd.DataFrame:
    """Return a row for each group of a `codebook` result, each figure beside that of noise."""
    names = ("count", "flat", "explained_variance", "noise_explained_variance", "noise_explained_variance_q95")
    columns = {"filters" if name == "count" else name: result[name].values for name in names}
    for i, threshold in enumerate(result["threshold"].values.tolist()):
        for name in ("coverage", "noise_coverage"):
            columns[f"{name}_{threshold:g}"] = result[name].values[:, i]
    return pd.DataFrame({"group": result["group"].values, **columns})


def degeneration_groups(result: xr.Dataset) -> pd.DataFrame:
    """Return a row for each group of a `degeneration` result: means, shares, and the numbers of both boxes."""
    names = [name for name, values in result.data_vars.items() if values.dims == ("group",)]
    table = pd.DataFrame({"group": result["group"].values, **{str(name): result[name].values for name in names}})
    for box, column in (("entropy_box", "entropy"), ("sparsity_box", "sparsity")):
        for i, statistic in enumerate(result["statistic"].values):
            table[f"{column}_{statistic}"] = result[box].values[:, i]
    return table


def box_rows(boxes: list[Box]) -> pd.DataFrame:
    """Return a row with the numbers of each box plot."""
    return pd.DataFrame([row.row() for row in boxes])


def first_filters(result: xr.Dataset) -> pd.DataFrame:
    """Return a row for each filter that is shown."""
    filters = result["filters"].values
    is_shown = np.isfinite(filters).all(axis=2)
    layer, number = np.nonzero(is_shown)
    table = pd.DataFrame(filters[is_shown], columns=[f"w{i}" for i in range(filters.shape[2])])
    table.insert(0, "filter", number)
    table.insert(0, "layer", result["layer_name"].values[layer])
    table.insert(0, "model", result["layer_model"].values[layer])
    return table
