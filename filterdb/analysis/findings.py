"""What a check found, a sentence each: what terminals, SARIF and JUnit files say the same way."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

import xarray as xr

from filterdb.analysis.rules import is_ignored

ERROR, WARNING, IGNORED = "error", "warning", "ignored"

REMEDIES = {
    "dead": "Remove the layer, or train it: all that passes through it is its bias.",
    "sparse": "Prune these filters, or give the layer fewer channels.",
    "collapsed": "Its filters are nearly multiples of one another: a layer of lower rank may do; look for vanishing "
    "gradients or too strong a weight decay.",
    "random": "It looks like fresh noise: check that the checkpoint was loaded and that the layer is trained.",
    "nonfinite": "Go back to a checkpoint before the divergence; in a float16 model look for overflow in the export.",
    "duplicate": "Store the weight once and share it, merge equal channels, or look why the export copied it.",
    "unreadable": "Export the model again, or leave the file out.",
}
"""What to do about each verdict."""

MEANINGS = {
    "dead": "Every weight of the layer is zero.",
    "sparse": "Most filters of the layer are far below its largest weight.",
    "collapsed": "The filters of the layer use few of the nine directions that 3×3 filters have.",
    "random": "The filters of the layer cannot be told from random numbers.",
    "nonfinite": "The layer has weights that are NaN or infinite.",
    "duplicate": "The layer, or many of its filters, are stored more than once.",
    "unreadable": "The file, or the weight of a 3×3 convolution, cannot be read.",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """A verdict of a layer, or of a file (`layer` empty). Of the levels only an error fails the check."""

    file: str
    layer: str
    rule: str
    level: str
    message: str
    numbers: dict[str, float] = field(default_factory=dict)


def findings(result: xr.Dataset) -> list[Finding]:
    """Of a result of `check`, in the order of its files and layers. A dead layer is not called sparse as well."""
    rules = json.loads(result.attrs["rules"])
    failing = set(rules["fail"])
    found: dict[str, list[Finding]] = {str(name): [] for name in result["file"].values}
    level = ERROR if "unreadable" in failing else WARNING
    for name, reason, unread in zip(found, result["reason"].values, result["unread"].values, strict=True):
        if reason:
            found[name].append(Finding(name, "", "unreadable", level, str(reason).removeprefix(f"{name}: ")))
        for layer, why in json.loads(unread).items():
            ignored = is_ignored(name, layer, rules["ignore"])
            found[name].append(Finding(name, layer, "unreadable", IGNORED if ignored else level, why))
    names = [str(name) for name in result["rule"].values]
    hits = result["verdict"].values
    for i in hits.any(axis=1).nonzero()[0]:
        one = result.isel(layer=int(i))
        verdicts = [rule for rule, hit in zip(names, hits[i], strict=True) if hit]
        if "dead" in verdicts:
            verdicts = ["dead"]
        for rule in verdicts:
            level = IGNORED if one["ignored"] else ERROR if rule in failing else WARNING
            file = str(one["layer_file"].item())
            found[file].append(Finding(file, str(one["layer_name"].item()), rule, level, *_said(rule, one, rules)))
    return [finding for of_file in found.values() for finding in of_file]


def _said(rule: str, one: xr.Dataset, rules: dict[str, Any]) -> tuple[str, dict[str, float]]:
    """The sentence, and the numbers in it."""
    filters, sparsity, entropy = (one[name].item() for name in ("filters", "sparsity", "variance_entropy"))
    threshold, repeated = one["threshold"].item(), one["duplicate_filters"].item()
    if rule == "dead":
        return f"all {filters:,} filters are zero", {"filters": filters}
    if rule == "sparse":
        what = f"{sparsity:.1%} of {filters:,} filters are below 1 % of its largest weight"
        return f"{what} (at most {rules['sparse']:.0%} expected)", {"filters": filters, "sparsity": sparsity}
    if rule == "collapsed":
        what = f"its {filters:,} filters use {10**entropy:.2f} of 9 directions"
        return f"{what} (at least {rules['collapsed']:g} expected)", {"filters": filters, "variance_entropy": entropy}
    if rule == "random":
        what = f"entropy {entropy:.3f} of {filters:,} filters, random ones have {threshold:.3f} or more"
        return what, {"filters": filters, "variance_entropy": entropy, "threshold": threshold}
    if rule == "nonfinite":
        return str(one["nonfinite"].item()), {"filters": filters}
    twin = str(one["duplicate_of"].item())
    if twin:
        return f"its {filters:,} filters are those of {twin}, stored once more", {"filters": filters}
    what = f"{repeated:,} of {filters:,} filters equal an earlier one of the layer"
    return f"{what} (at most {rules['duplicate']:.0%} expected)", {"filters": filters, "duplicate_filters": repeated}


def summary(result: xr.Dataset) -> dict[str, Any]:
    """Whether the check is passed (`ok`), the numbers of errors and warnings, and what could be pruned, by layer."""
    levels = [finding.level for finding in findings(result)]
    pruned = result.isel(layer=(result["prunable_filters"] > 0).values)
    layers = [
        {"file": str(file), "layer": str(layer), "filters": int(filters), "parameters": int(parameters)}
        for file, layer, filters, parameters in zip(
            pruned["layer_file"].values,
            pruned["layer_name"].values,
            pruned["prunable_filters"].values,
            pruned["prunable_parameters"].values,
            strict=True,
        )
    ]
    total, parameters = int(result["parameters"].sum()), int(pruned["prunable_parameters"].sum())
    return {
        "ok": ERROR not in levels,
        "errors": levels.count(ERROR),
        "warnings": levels.count(WARNING),
        "ignored": levels.count(IGNORED),
        "prunable": {
            "filters": int(pruned["prunable_filters"].sum()),
            "parameters": parameters,
            "of_parameters": total,
            "share": parameters / total if total else math.nan,
            "layers": sorted(layers, key=lambda row: -row["parameters"]),
        },
    }
