"""Answers as plain JSON values: the keys other programs rely on. Full float64, NaN as null."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from filterdb import schema
from filterdb.ledger import is_unread

if TYPE_CHECKING:
    import xarray as xr

    from filterdb.ingestion.run import Ingested
    from filterdb.reduce.integrity import Verified
    from filterdb.store.collect import Garbage
    from filterdb.store.database import Database

Answer = dict[str, Any]

_CONTROL = re.compile("[\x7f-\x9f\u2028\u2029]")


def plain(value: Any) -> Any:
    """NumPy values and containers as what JSON has; NaN and infinities as None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def to_json(answer: Answer) -> str:
    """One line of JSON. Control characters of names are escaped, those above ASCII too: a terminal obeys them."""
    text = json.dumps(plain(answer), allow_nan=False, ensure_ascii=False)
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def head(db: Database) -> Answer:
    """What every answer begins with."""
    return {"snapshot": db.snapshot, "selection": " and ".join(db.conditions) or "all", **db.counts}


def of_result(result: xr.Dataset) -> Answer:
    """The same, from a result's provenance."""
    return {name: result.attrs[name] for name in ("snapshot", "selection", "filters", "layers", "models")}


def basis_of(result: xr.Dataset) -> Answer:
    """Return the basis of a result, how far the filters have moved from it, and the warning, if any."""
    moved = result.attrs.get("basis_moved")
    return {
        "basis": result.attrs.get("basis"),
        "basis_moved": None if moved is None else json.loads(moved),
        "basis_warning": result.attrs.get("basis_warning"),
    }


def rows(table: xr.Dataset, names: dict[str, str]) -> list[Answer]:
    """Rows of a table's variables, under the names to give them."""
    columns = {name: table[variable].values.tolist() for name, variable in names.items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _names(table: xr.Dataset, renamed: dict[str, str], hidden: set[str]) -> dict[str, str]:
    shown = [str(name) for name in table.variables if str(name) not in hidden | set(renamed.values())]
    return {**renamed, **{name: name for name in shown if name not in renamed}}


def info(db: Database) -> Answer:
    """`filterdb info`."""
    segments = [{"id": e.id, "filters": e.filters, "layers": e.layers, "models": e.models} for e in db.state.segments]
    damaged = db.damaged_tables()
    # Unknown, which is not the same as none.
    skipped: Answer = dict.fromkeys(("skipped_layers", "skipped_by_code", "unread_layers"))
    if not damaged:
        codes, counts = np.unique(db.skipped["skipped_code"].values.astype(str), return_counts=True)
        skipped["skipped_layers"] = int(db.skipped.sizes["skipped"])
        skipped["unread_layers"] = int(db.unread.sizes["skipped"])
        skipped["skipped_by_code"] = dict(zip(codes.tolist(), counts.tolist(), strict=True))
    return {
        **head(db),
        "segments": segments,
        "tags": dict(db.state.tags),
        "chunk_rows": [entry.chunk_rows for entry in db.state.segments],
        "url": db.url,
        **skipped,
        "damaged": [{"segment": segment, "what": what} for segment, what in damaged.items()],
        "basis": db.state.basis,
        "format": schema.FORMAT,
    }


def models(db: Database) -> Answer:
    """`filterdb models`."""
    table = db.models
    found = rows(table, _names(table, {"model": "model"}, {"operators", "filter_shapes", "extra", "segment"}))
    for row, operators, shapes in zip(found, table["operators"].values, table["filter_shapes"].values, strict=True):
        # A model is known by its name.
        row |= {"name": row["model"], "operators": json.loads(operators), "filter_shapes": json.loads(shapes)}
    return {**head(db), "rows": found}


def layers(db: Database) -> Answer:
    """`filterdb layers`."""
    table = db.layers
    renamed = {"model": "model", "layer": "layer_name", "filters": "row_size"}
    kept = {v.name for v in schema.LAYER_VARIABLES} - {"model_index"} | {"model"}
    found = rows(table, _names(table, renamed, {str(name) for name in table.variables} - kept))
    for row in found:
        row |= {"strides": json.loads(row["strides"]), "dilations": json.loads(row["dilations"])}
    ledger = db.skipped
    chosen = set(db.models["model"].values) if db.chosen is not None else None
    skipped = [
        {**row, "unread": is_unread(row["code"])}
        for row in rows(ledger, {name: f"skipped_{name}" for name in ("model", "layer", "code", "reason")})
        if chosen is None or row["model"] in chosen
    ]
    return {**head(db), "rows": found, "skipped": skipped}


def pca(result: xr.Dataset) -> Answer:
    """`filterdb pca`."""
    names = [str(name) for name in result.data_vars]
    groups = [
        {"group": str(label), **{name: result[name].values[i] for name in names}}
        for i, label in enumerate(result["group"].values)
    ]
    return {
        **of_result(result),
        "scaled": bool(result.attrs["scaled"]),
        "by": result.attrs["by"],
        "groups": groups,
    }


def drift(result: xr.Dataset, strata: dict[str, xr.Dataset] | None = None, within: str | None = None) -> Answer:
    """`filterdb drift`."""
    answer = {**of_result(result), **_drift(result), "within": within}
    if strata is not None:
        answer["strata"] = [{"stratum": name, **of_result(one), **_drift(one)} for name, one in strata.items()]
    return answer


def drift_written(result: xr.Dataset, place: str) -> Answer:
    """`filterdb drift -o`: what was written, without the matrix."""
    return {**of_result(result), **_drift(result, matrix=False), "within": None, "output": place}


def _drift(result: xr.Dataset, *, matrix: bool = True) -> Answer:
    attrs = result.attrs
    return {
        "by": attrs["by"],
        "mode": attrs["mode"],
        "metric": attrs["metric"],
        "bins": result.sizes["bin"],
        "range": attrs["range"],
        "weights": result["weights"].values,
        "groups": [str(label) for label in result["group"].values],
        "counts": result["count"].values,
        "few": result["few"].values,
        "drift": result["drift"].values if matrix else None,
        "scaled": bool(attrs["scaled"]),
        "per_component": result["per_component"].values if "per_component" in result else None,
        "per_component_metric": attrs.get("per_component_metric"),
        "outside": result["outside"].values,
        "on_edge": result["on_edge"].values,
        **basis_of(result),
        "sign_rule": attrs["sign_rule"],
        **(_noise(result) if attrs["mode"] == "sound" else {}),
    }


_FLOORS = ("floor", "floor_q95", "model_floor", "model_floor_q95", "permutations")
_WORDS = ("verdict", "judged_by")


def _without_noise() -> Answer:
    return dict.fromkeys((*_FLOORS, *_WORDS, "interval"))


def noise_of_pair(result: xr.Dataset) -> Answer:
    """Floors, verdict and interval of one pair of groups; null where there is none."""
    if "verdict" not in result:
        return _without_noise() if result.attrs["mode"] == "sound" else {}
    low, high = result["interval"].values.tolist()
    words = {name: result[name].item() or None for name in _WORDS}
    return {
        **{name: result[name].item() for name in _FLOORS},
        **words,
        "interval": None if math.isnan(low) else [low, high],
    }


def _noise(result: xr.Dataset) -> Answer:
    """Floors, verdicts and intervals of a drift; null where there is none, all of them without noise."""
    if "verdict" not in result:
        return _without_noise()
    intervals = [
        [None if math.isnan(low) else [low, high] for low, high in row] for row in result["interval"].values.tolist()
    ]
    words = {name: [[word or None for word in row] for row in result[name].values.tolist()] for name in _WORDS}
    return {**{name: result[name].values for name in _FLOORS}, **words, "interval": intervals}


def degeneration(result: xr.Dataset) -> Answer:
    """`filterdb degeneration`."""
    names = {"model": "layer_model", "layer": "layer_name", "filters": "filters"}
    shown = [str(name) for name, array in result.variables.items() if array.dims == ("layer",)]
    table = rows(result, {**names, **{name: name for name in shown if name not in {"layer", *names.values()}}})
    rules = [str(rule) for rule in result["rule"].values]
    for row, verdict in zip(table, result["verdict"].values, strict=True):
        hits = [rule for rule, hit in zip(rules, verdict, strict=True) if hit]
        row["verdict"] = hits if row["scale_known"] else None
    untrained = [str(name) for name in result["model"].values[result["untrained"].values]]
    return {**of_result(result), "mode": result.attrs["mode"], "rows": table, "untrained": untrained}


def ingested(done: Ingested) -> Answer:
    """`filterdb ingest`."""
    rejected = [{"model": model, "reason": reason} for model, reason in done.rejected.items()]
    return {
        **head(done.database),
        "segment": done.segment,
        "added": done.added,
        "present": done.present,
        "duplicates": done.duplicates,
        "rejected": rejected,
        "unread": len(done.unread),
    }


def changed(before: Database, after: Database) -> Answer:
    """`filterdb relabel`, `remove`, `tag`, `compact`, `restore`: the newest snapshot, and whether it is a new one."""
    state = after.state
    return {
        **head(after),
        "action": state.action,
        "changed": state.number != before.snapshot,
        "segments": [entry.id for entry in state.segments],
        "tags": dict(state.tags),
    }


def collected(db: Database, found: list[Garbage], *, deleted: bool) -> Answer:
    """`filterdb gc`."""
    rows = [{"kind": one.kind, "name": one.name, "objects": len(one.objects), "bytes": one.bytes} for one in found]
    return {**head(db), "deleted": deleted, "bytes": sum(one.bytes for one in found), "rows": rows}


def verified(db: Database, result: Verified) -> Answer:
    """`filterdb verify`."""
    problems = [
        {"segment": p.segment, "variable": p.variable, "chunk": p.chunk, "what": p.what} for p in result.problems
    ]
    ok = not problems
    return {
        "snapshot": db.snapshot,
        "selection": "all",
        **db.state.counts,
        "ok": ok,
        "chunks": result.chunks,
        "problems": problems,
    }


def history(db: Database) -> Answer:
    """`filterdb snapshots`. A snapshot that is lost or damaged has nothing but its number, tags and `damage`."""
    from filterdb.store import snapshot as snapshots

    readable, damaged = snapshots.survey(db.files)
    fields = ("action", "created", "segments", "basis", "filters", "layers", "models")
    listed: dict[int, Answer] = {number: {**dict.fromkeys(fields), "damage": what} for number, what in damaged.items()}
    for state in readable:
        listed[state.number] = {
            "action": state.action,
            "created": state.created,
            "segments": [entry.id for entry in state.segments],
            "basis": state.basis,
            **state.counts,
            "damage": None,
        }
    tags = db.state.tags
    rows = [
        {"snapshot": number, **row, "tags": [name for name, place in tags.items() if place == number]}
        for number, row in sorted(listed.items())
    ]
    return {**head(db), "rows": rows}
