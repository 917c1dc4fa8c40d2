"""The page's data: what stands in it, and the files beside it that its scripts load when they are looked at."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from filterdb.analysis.noise import BY_FEW_MODELS, BY_MODELS
from filterdb.analysis.rules import VERDICTS
from filterdb.page import boxes, tables
from filterdb.page.drawing import visible
from filterdb.page.figures_density import extent
from filterdb.page.highlights import farthest
from filterdb.page.joint_densities import PAIRS, Planes
from filterdb.page.payload import pack
from filterdb.page.results import LABELS, Results
from filterdb.schema import UNKNOWN

KNOWN_VERDICTS = ("different", "indistinguishable", "few")
"""Verdicts on a pair, by the number that the page has for each."""

RETRAINING_FACTS = ("seeds", "mean_drift", "largest_drift", "to_nearest", "nearest", "to_others")
MODEL_COLUMNS = ("model", "task", "visual_category", "training_dataset", "family", "filters", "layers", "producer")


def core(found: Results) -> dict[str, Any]:
    """What stands in the page itself."""
    db = found.db
    some = next(iter(found.drifts.values()), None)
    _, labels = _models(found)
    ratios = found.basis["explained_variance_ratio"].values[0]
    contents = found.statistics.to_dataframe()
    columns = list(dict.fromkeys(contents["column"]))
    return {
        "url": visible(db.url),
        "mode": found.mode,
        "options": _options(found),
        "rules": list(VERDICTS),
        "groupings": [{"key": by, "groups": result.sizes["group"]} for by, result in found.drifts.items()],
        "basis": {"components": found.basis["components"].values[0], "ratios": ratios},
        "weights": ratios if some is None else some["weights"].values,
        "edges": [] if some is None else some["bin_edges"].values,
        "models": _names(db.models["model"].values[db.models["layers"].values > 0]),
        "labels": {by: {"values": _names(values), "codes": codes} for by, (values, codes) in labels.items()},
        "boxes": {
            "groupings": _boxes(boxes.by_grouping(found.drifts)),
            "deciles": [] if found.deciles is None else _boxes(boxes.by_stratum(found.deciles)),
            "scale": _boxes(boxes.by_decile(found.scale)),
        },
        "series": None if found.series is None else _series(found.series),
        "contents": [
            {
                "column": column,
                "rows": part.drop(columns="column").assign(label=_names(part["label"])).to_dict("records"),
            }
            for column, part in ((column, contents[contents["column"] == column]) for column in columns)
        ],
    }


def _options(found: Results) -> str | None:
    """What a command needs besides to answer for the page's snapshot and mode; None: the page is of a selection."""
    if found.db.conditions:
        return None
    mode = "" if found.mode == "sound" else f" --mode {found.mode}"
    return f"{mode} --snapshot {found.db.snapshot}"


def files(found: Results) -> dict[str, Any]:
    """The files beside it, by name."""
    parts: dict[str, Any] = {f"drift_{by}": _drift(found, result) for by, result in found.drifts.items()}
    parts["layers"] = _layers(found)
    parts["models"] = _model_table(found)
    if found.tiles is not None:
        parts["tiles"] = _tiles(found, found.tiles)
    if found.planes is not None:
        parts["planes"] = _planes(found.planes)
    return parts


def _names(values: Any) -> list[str]:
    return [visible(value) for value in values]


def _boxes(rows: list[boxes.Box]) -> list[dict[str, Any]]:
    return [{**one.row(), "label": visible(one.label), "outliers": list(one.outliers)} for one in rows]


def _models(found: Results) -> tuple[np.ndarray, dict[str, tuple[list[str], list[int]]]]:
    """Positions of the view's models that have layers among the snapshot's; and for each label its values and codes."""
    index = np.unique(found.db.layers["model_index"].values)
    models = found.db.models
    models = models.isel(model=models["layers"].values > 0)
    labels = {}
    for by in LABELS:
        values, codes = np.unique(models[by].values.astype(str), return_inverse=True)
        if len(values) > 1 or values.tolist() != [UNKNOWN]:
            labels[by] = (values.tolist(), codes.tolist())
    return index, labels


def _drift(found: Results, result: xr.Dataset) -> dict[str, Any]:
    by = str(result.attrs["by"])
    data: dict[str, Any] = {
        "by": by,
        "ordered": by == "depth_decile",
        "groups": _names(result["group"].values),
        "counts": pack(result["count"].values),
        "few": pack(result["few"].values),
        "probabilities": pack(result["probabilities"].values.ravel()),
        "components": _boxes(boxes.by_component(result)) if "per_component" in result else [],
        "farthest": farthest(result),
    }
    for name in ("drift", "floor_q95", "model_floor_q95"):
        if name in result and np.isfinite(result[name].values).any():
            data[name] = pack(boxes.pairs(result[name].values))
    if "verdict" in result:
        verdicts = boxes.pairs(result["verdict"].values.astype(str))
        data["verdict"] = pack(np.select([verdicts == one for one in KNOWN_VERDICTS], [0, 1, 2], 255).astype(np.uint8))
    if "judged_by" in result:
        judged = boxes.pairs(result["judged_by"].values.astype(str))
        data["judged"] = pack(np.select([judged == BY_MODELS, judged == BY_FEW_MODELS], [1, 2], 0).astype(np.uint8))
    data["bounded"] = "interval" in result
    if "interval" in result and np.isfinite(result["interval"].values).any():
        data["low"], data["high"] = (pack(boxes.pairs(result["interval"].values[..., bound])) for bound in (0, 1))
    place = {str(label): i for i, label in enumerate(result["group"].values)}
    index, _ = _models(found)
    data["without"] = {
        ",".join(map(str, sorted((place[a], place[b])))): [
            (np.searchsorted(index, model), value) for model, value in rows
        ]
        for (a, b), rows in found.leaving.get(by, {}).items()
    }
    if by == "model":
        models = found.db.models
        rows = models.isel(model=models["layers"].values > 0).to_dataframe().reset_index().set_index("model")
        rows = rows.loc[result["group"].values]
        data["labels"] = {name: _names(rows[name]) for name in LABELS if rows[name].nunique() > 1}
    return data


def _layers(found: Results) -> dict[str, Any]:
    result = found.degeneration
    index, _ = _models(found)
    bits = (result["verdict"].values.astype(bool) * (1 << np.arange(len(VERDICTS)))).sum(axis=1)
    names = {"depth": "conv_depth_norm", "sparsity": "sparsity", "entropy": "variance_entropy", "ratio": "ratio"}
    return {
        "names": _names(result["layer_name"].values),
        "model": pack(np.searchsorted(index, found.db.layers["model_index"].values)),
        "filters": pack(result["filters"].values),
        "verdict": pack(bits),
        **{key: pack(result[name].values) for key, name in names.items()},
    }


def _model_table(found: Results) -> dict[str, Any]:
    table = tables.models(found.db)
    table = table[table["filters"] > 0]
    shown = [name for name in MODEL_COLUMNS if name in ("model", "filters", "layers") or table[name].nunique() > 1]
    texts = {name: not pd.api.types.is_numeric_dtype(table[name]) for name in shown}
    columns = [{"key": name, "text": is_text} for name, is_text in texts.items()]
    return {
        "columns": columns,
        **{name: _names(table[name]) if texts[name] else table[name].tolist() for name in shown},
    }


def _series(result: xr.Dataset) -> dict[str, Any]:
    """Checkpoints by training, and retrainings."""
    checkpoints = result[["training", "model", "epoch", "drift", "floor_q95"]].to_dataframe()
    return {
        "trainings": [
            {
                "label": visible(label),
                "names": _names(part["model"]),
                **{
                    key: part[column].tolist()
                    for key, column in (("xs", "epoch"), ("values", "drift"), ("floor", "floor_q95"))
                },
            }
            for label, part in checkpoints.groupby("training", sort=False)
        ],
        "retrainings": [
            {**row, "retraining": visible(row["retraining"]), "nearest": visible(row["nearest"])}
            for row in result[list(RETRAINING_FACTS)].to_dataframe().reset_index().to_dict("records")
        ],
    }


def _planes(planes: Planes) -> dict[str, Any]:
    """Logarithms of the counts of each group and pair, 0 … 255, in the bins in which anything is to be seen."""
    windows = [extent(planes.counts(pair)[0]) for pair in PAIRS]
    first, last = min(low for low, _ in windows), max(high for _, high in windows)
    shades = []
    for pair in PAIRS:
        logs = np.log1p(planes.counts(pair)[:, first:last, first:last])
        most = logs.max(axis=(1, 2), keepdims=True)
        shades.append(np.rint(255 * logs / np.where(most > 0, most, 1.0)).astype(np.uint8))
    return {
        "by": planes.by,
        "groups": _names(planes.labels),
        "pairs": PAIRS,
        "kinds": planes.kinds(),
        "edges": [planes.edges[first], planes.edges[last]],
        "bins": last - first,
        "shades": pack(np.stack(shades, axis=1)),
    }


def _tiles(found: Results, tiles: xr.Dataset) -> dict[str, Any]:
    index, _ = _models(found)
    filters = tiles["filters"].values
    largest = np.nanmax(np.abs(filters), axis=(1, 2), keepdims=True, initial=0.0)
    scaled = np.nan_to_num(filters / np.where(largest > 0, largest, 1.0))
    return {
        "most": tiles.sizes["number"],
        "number": np.isfinite(filters).all(axis=2).sum(axis=1),
        "model": np.searchsorted(index, tiles["model_index"].values),
        "layer": _names(tiles["layer_name"].values),
        "weights": pack(np.rint(127 * scaled).astype(np.int8)),
    }
