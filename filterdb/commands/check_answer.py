"""`filterdb check` as JSON."""

from __future__ import annotations

import json

import xarray as xr

from filterdb.analysis.check import GEOMETRY, MEASURES
from filterdb.analysis.findings import Finding, findings, statuses, summary
from filterdb.commands.answer import Answer, rows


def checked(result: xr.Dataset) -> Answer:
    """`ok`, a row for each layer, and one for each file that was not checked at all."""
    names = {"file": "layer_file", "layer": "layer_name", "filters": "filters"}
    shown = [str(name) for name, array in result.variables.items() if array.dims == ("layer",)]
    names |= {name: name for name in shown if name not in {"layer", *names.values()}}
    rules = result["rule"].values.astype(str)
    table = [
        _row(row, rules[hits].tolist()) for row, hits in zip(rows(result, names), result["verdict"].values, strict=True)
    ]
    listed = findings(result)
    table += [
        {**dict.fromkeys(names), "file": finding.file, "verdict": [finding.rule], "reason": finding.message}
        for finding in listed
        if not finding.layer
    ]
    return {
        "snapshot": result.attrs.get("snapshot"),
        **{name: result.attrs[name] for name in ("selection", "filters", "layers", "models")},
        **summary(result),
        "rules": json.loads(result.attrs["rules"]),
        "files": _files(result, listed),
        "rows": table,
        "findings": [
            {"file": f.file, "layer": f.layer or None, "rule": f.rule, "level": f.level, "message": f.message}
            for f in listed
        ],
    }


def _row(row: Answer, verdict: list[str]) -> Answer:
    """A layer's row; what was not read has no numbers."""
    row |= {"verdict": verdict if row["scale_known"] else None, "reason": row["nonfinite"] or row["unread_reason"]}
    return {**row, **dict.fromkeys((*MEASURES, *GEOMETRY))} if row["unread_code"] else row


def _files(result: xr.Dataset, listed: list[Finding]) -> list[Answer]:
    files = []
    for i, status in enumerate(statuses(result, listed)):
        file = result.isel(file=i)
        name, unread = str(file["file"].item()), int(file["unread"])
        files.append(
            {
                "file": name,
                "status": status,
                "layers": int((result["layer_file"] == name).sum()) - unread,
                "unread": unread,
                "untrained": bool(file["untrained"]),
                "skipped": json.loads(file["skipped"].item()),
                "reason": str(file["reason"].item()) or None,
            }
        )
    return files
