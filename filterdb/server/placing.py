"""Answer where a model file is among those of a database: its nearest models, and the findings of a check."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from filterdb.analysis.check import check_files
from filterdb.analysis.findings import IGNORED, findings, summary
from filterdb.analysis.nearest import rank_models
from filterdb.errors import FilterDBError
from filterdb.models.limits import Limits
from filterdb.plotting.drawing import short
from filterdb.redaction import redact
from filterdb.store.database import Database
from filterdb.verdicts import sentence, verdict_of

NEAREST = 5
"""Models that are named as the nearest."""

MOST_FINDINGS = 100
"""Most findings that are listed."""

NAME, TEXT = 100, 400
"""Most characters of a name, and of a sentence: both may come from a hostile file."""

Answer = dict[str, Any]


def locate(db: Database, path: Path, name: str, limits: Limits) -> Answer:
    """Return the place of a file among the models of a view. What cannot be said has its reason under `error`.

    The file is read by children with `limits`, as `nearest` and `check` do; nothing of it is executed. `name` is what
    the file is called; its path is in no text.
    """

    def part(make: Callable[[], Answer]) -> Answer:
        try:
            return {**make(), "error": None}
        except FilterDBError as error:
            return {"error": _sentence(str(error), path, name)}

    return {
        "name": short(name, NAME),
        "snapshot": db.snapshot,
        "nearest": part(lambda: _nearest(db, path, limits)),
        "check": part(lambda: _check(db, path, name, limits)),
    }


def _sentence(text: str, path: Path, name: str) -> str:
    """Return a message as one line of bounded length, with the name of the file instead of its path."""
    return short(" ".join(redact(text).replace(str(path), short(name, NAME)).split()), TEXT)


def _nearest(db: Database, path: Path, limits: Limits) -> Answer:
    result = rank_models(db, str(path), n=NEAREST, limits=limits)
    noise = np.fmax(result["floor_q95"].values, result["layer_floor_q95"].values)
    rows = [
        {
            "model": short(model, NAME),
            "drift": _number(result["drift"].values[i]),
            "noise": _number(noise[i]),
            "excess": _number(result["excess"].values[i]),
            **_verdict(str(result["verdict"].values[i]), str(result["judged_by"].values[i])),
            "same_file": bool(result["same_content"].values[i]),
            "same_filters": bool(result["same_filters"].values[i]),
            "filters": int(result["count"].values[i]),
            "task": short(result["task"].values[i], NAME),
            "training_dataset": short(result["training_dataset"].values[i], NAME),
        }
        for i, model in enumerate(result["model"].values.astype(str))
    ]
    attrs = result.attrs
    return {
        "rows": rows,
        "models": int(attrs["models"]),
        "filters": int(attrs["query_filters"]),
        "layers": int(attrs["query_layers"]),
        "left_out": len(json.loads(attrs["query_left_out"])),
        "stored_as": [short(model, NAME) for model in json.loads(attrs["query_stored_as"])[:NEAREST]],
    }


def _verdict(code: str, judged_by: str) -> Answer:
    """Return a verdict as its code, and as word, symbol and sentence for readers."""
    verdict = verdict_of(code)
    words = {"word": verdict.word, "symbol": verdict.symbol, "sentence": sentence(code, judged_by)}
    return {"verdict": code, **words}


def _check(db: Database, path: Path, name: str, limits: Limits) -> Answer:
    result = check_files([str(path)], db=db, reference=None, rules=None, limits=limits, key="", order=None, kernel=None)
    listed = [finding for finding in findings(result) if finding.level != IGNORED]
    rows = [
        {
            "rule": finding.rule,
            "level": finding.level,
            "layer": short(finding.layer, NAME) or None,
            "message": _sentence(finding.message, path, name),
            "remedy": finding.remedy,
        }
        for finding in listed[:MOST_FINDINGS]
    ]
    about = summary(result)
    return {
        "status": about["status"],
        "ok": about["ok"],
        "layers": int(result.sizes["layer"]),
        "findings": rows,
        "more": len(listed) - len(rows),
    }


def _number(value: float) -> float | None:
    """Return a number for JSON, which has no NaN."""
    return float(value) if np.isfinite(value) else None
