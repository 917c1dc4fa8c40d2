"""`filterdb check` as JSON."""

from __future__ import annotations

import json

import xarray as xr

from filterdb.analysis.findings import findings, summary
from filterdb.answers import Answer, rows


def checked(result: xr.Dataset) -> Answer:
    """`ok`, a row for each layer, and one for each file that cannot be read."""
    names = {"file": "layer_file", "layer": "layer_name", "filters": "filters"}
    shown = [str(name) for name, array in result.variables.items() if array.dims == ("layer",)]
    table = rows(result, {**names, **{name: name for name in shown if name not in {"layer", *names.values()}}})
    rules = [str(rule) for rule in result["rule"].values]
    for row, verdict in zip(table, result["verdict"].values, strict=True):
        hits = [rule for rule, hit in zip(rules, verdict, strict=True) if hit]
        row |= {"verdict": hits if row["scale_known"] else None, "reason": row["nonfinite"]}
    empty = dict.fromkeys(table[0] if table else (*names, "sparsity", "variance_entropy", "threshold"))
    files = []
    for i, file in enumerate(map(str, result["file"].values)):
        one = result.isel(file=i)
        files.append(
            {
                "file": file,
                "layers": int((result["layer_file"] == file).sum()),
                "untrained": bool(one["untrained"]),
                "skipped": json.loads(one["skipped"].item()),
                "reason": str(one["reason"].item()) or None,
            }
        )
        unread = {None: one["reason"].item(), **json.loads(one["unread"].item())}
        for layer, reason in unread.items():
            if reason:
                table.append({**empty, "file": file, "layer": layer, "verdict": ["unreadable"], "reason": str(reason)})
    return {
        "snapshot": result.attrs.get("snapshot"),
        **{name: result.attrs[name] for name in ("selection", "filters", "layers", "models")},
        **summary(result),
        "rules": json.loads(result.attrs["rules"]),
        "files": files,
        "rows": table,
        "findings": [
            {"file": f.file, "layer": f.layer or None, "rule": f.rule, "level": f.level, "message": f.message}
            for f in findings(result)
        ],
    }
