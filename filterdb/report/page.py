"""The page: one self-contained folder that opens from disk."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from filterdb.analysis.degeneration import degeneration
from filterdb.analysis.drift import drift
from filterdb.analysis.pca import pca
from filterdb.errors import InputError, MissingExtraError
from filterdb.report import figures
from filterdb.schema import REJECTED, UNKNOWN
from filterdb.store.database import Database
from filterdb.store.files import Files

GROUPINGS = ("task", "visual_category", "training_dataset", "family", "model", "depth_decile")
"""The groupings whose heatmaps the page has, those with fewer than two groups left out."""

SHOWN = ["model", "task", "visual_category", "training_dataset", "family", "filters", "layers", "opset", "producer"]
"""Columns of the page's table of models; models.csv has more."""

GROUP_LIMIT = 1_000
"""A grouping with more groups is left out, and the page says so."""


def report(db: Database, folder: str | Path, mode: str = "sound") -> Path | str:
    """Write the page about a view's layers into a folder (made if need be) or below a URL; gives where the page is.

    Beside `index.html` stand each figure (SVG) and each table (CSV). Raises MissingExtraError without the extra
    `report`, InputError for a database without filters.
    """
    if not db.layers.sizes["layer"]:
        raise InputError(f"{db.url}: expected at least one layer with 3×3 filters to report on, got none")
    try:
        from jinja2 import Environment
    except ImportError as error:
        raise MissingExtraError("report: the page needs the extra: pip install 'filterdb[report]'") from error
    whole = pca(db)
    degenerated = degeneration(db, mode)
    drifts = {by: drift(db, by, mode) for by in GROUPINGS if 1 < _groups(db, by) <= GROUP_LIMIT}
    pictures = {
        "basis": figures.basis(whole),
        "entropy_and_sparsity": figures.entropy_and_sparsity(degenerated),
        **{f"drift_{by}": figures.heatmap(result) for by, result in drifts.items()},
    }
    sheets = {
        "models": _models(db),
        "degeneration": _degeneration(degenerated),
        "basis": _basis(whole),
        **{f"drift_{by}": _matrix(result) for by, result in drifts.items()},
    }
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(resources.files("filterdb.report").joinpath("page.html").read_text("utf-8"))
    layers = sheets["degeneration"]
    html = template.render(
        db=db,
        counts=db.counts,
        selection=" and ".join(db.conditions),
        mode=mode,
        version=whole.attrs["filterdb_version"],
        snapshot=next(iter(drifts.values())).attrs["snapshot"] if drifts else db.snapshot,
        skipped=_skipped(db),
        pictures=pictures,
        drifts=drifts,
        models=_records(sheets["models"][sheets["models"]["filters"] > 0][SHOWN]),
        without=int((sheets["models"]["filters"] == 0).sum()),
        rejected=int((db.skipped["skipped_code"] == REJECTED).sum()),
        untrained=degenerated["model"].values[degenerated["untrained"].values].tolist(),
        bad=_records(layers[layers["verdict"] != ""]),
        layers=len(layers),
        left_out=[by for by in GROUPINGS if _groups(db, by) > GROUP_LIMIT],
        single=[by for by in GROUPINGS if _groups(db, by) < 2],
    )
    place = Files.at(folder)
    place.put(
        {
            **{f"{name}.svg": svg.encode() for name, svg in pictures.items()},
            **{f"{name}.csv": sheet.to_csv(index=False).encode() for name, sheet in sheets.items()},
        }
    )
    place.put({"index.html": html.encode()})  # last: whoever sees the page sees all that it shows
    return place.url("index.html") if place.remote else Path(place.url("index.html")).absolute()


def _groups(db: Database, by: str) -> int:
    column = "conv_depth_norm" if by == "depth_decile" else by
    return len(set(db.column(column).astype(str)) - {UNKNOWN})


def _models(db: Database) -> pd.DataFrame:
    names = [
        "model",
        "task",
        "visual_category",
        "training_dataset",
        "family",
        "filters",
        "layers",
        "total_filters",
    ]
    facts = [*names, "share_3x3", "opset", "producer", "operators", "filter_shapes"]
    return pd.DataFrame({name: db.models[name].values for name in facts})


def _degeneration(result: xr.Dataset) -> pd.DataFrame:
    names = ["filters", "conv_depth", "sparsity", "variance_entropy", "threshold", "ratio", "orthogonality"]
    rules = result["rule"].values
    verdicts = [", ".join(rules[hit]) for hit in result["verdict"].values.astype(bool)]
    return pd.DataFrame(
        {
            "model": result["layer_model"].values,
            "layer": result["layer_name"].values,
            **{name: result[name].values for name in names},
            "verdict": verdicts,
        }
    )


def _basis(result: xr.Dataset) -> pd.DataFrame:
    table = pd.DataFrame(result["components"].values[0], columns=[f"w{i}" for i in range(result.sizes["weight"])])
    table.insert(0, "explained_variance_ratio", result["explained_variance_ratio"].values[0])
    table.insert(0, "component", range(len(table)))
    return table


def _matrix(result: xr.Dataset) -> pd.DataFrame:
    table = pd.DataFrame(result["drift"].values, columns=list(map(str, result["other"].values)))
    table.insert(0, "filters", result["count"].values)
    table.insert(0, str(result.attrs["by"]), result["group"].values)
    return table


def _skipped(db: Database) -> list[tuple[str, int]]:
    """Convolutions that are not stored, by code."""
    found = db.skipped["skipped_code"].values.astype(str)
    codes, counts = np.unique(found[found != REJECTED], return_counts=True)
    return list(zip(codes.tolist(), counts.tolist(), strict=True))


def _records(table: pd.DataFrame) -> dict[str, Any]:
    """A table as the template takes it: column names, rows of texts, which columns are numbers."""
    numeric = [bool(pd.api.types.is_numeric_dtype(dtype)) for dtype in table.dtypes]
    rows = [[_text(value) for value in row] for row in table.itertuples(index=False)]
    return {
        "columns": [str(name).replace("_", " ") for name in table.columns],
        "rows": rows,
        "numeric": numeric,
    }


def _text(value: Any) -> str:
    if isinstance(value, float | np.floating):
        return "–" if np.isnan(value) else f"{value:.4g}"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    return str(value)
