"""Write what is true of a file beside it: NAME.json has a row per convolution, NAME.npz the weights by row number."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from exporters.oracle import BLOCKED, Truth, truths
from exporters.runtime import optimised


def record(path: Path, construction: str, facts: dict[str, Any], captured: list[np.ndarray], tolerance: float) -> str:
    """Write the truth of the file at `path`; return what contradicts it, in a line, or nothing.

    `captured`: the weights that PyTorch used, which the 3×3 ones of the file must agree with to `tolerance` (relative
    to the peak) or be multiples of, channel by channel. Without any nothing is compared.
    """
    stem = path.name.removesuffix(".onnx")
    found = truths(path, _unblocked(path))
    rows = [_row(truth, i) for i, truth in enumerate(found)]
    _rank(rows)
    conflicts = []
    if captured:
        for row, truth in zip(rows, found, strict=True):
            row["agrees_with_torch"] = "" if truth.weight is None else agreement(truth.weight, captured, tolerance)
            if row["is_3x3"] and row["agrees_with_torch"] == "no":
                conflicts.append(row["name"])
    variant = stem.removeprefix(f"{construction}.")
    document = {"file": path.name, "construction": construction, "variant": variant, "convolutions": rows, **facts}
    path.with_name(f"{stem}.json").write_text(json.dumps(document, indent=1))
    weights = {str(i): t.weight for i, t in enumerate(found) if t.weight is not None and t.is_3x3}
    np.savez(path.with_name(f"{stem}.npz"), **weights)  # type: ignore[arg-type]
    return f"{conflicts} differ between PyTorch and the file" if conflicts else ""


def _unblocked(path: Path) -> list[np.ndarray] | None:
    """Return the weights of a file with blocked ones (NCHWc) from the same file at a lower level of optimisation.

    They differ in layout only. None where the file has no blocked weights.
    """
    if not any(node.domain == BLOCKED for node in onnx.load(path, load_external_data=False).graph.node):
        return None
    source = path.with_name(path.name.replace(".ort-all", ""))
    lower = path.with_suffix(".lower")
    optimised(source, lower, "extended")
    weights = [truth.weight for truth in truths(lower) if truth.weight is not None and truth.weight.ndim == 4]
    lower.unlink()
    return weights


def _row(truth: Truth, index: int) -> dict[str, Any]:
    row = {key: value for key, value in asdict(truth).items() if key != "weight"}
    row |= {"index": index, "is_3x3": truth.is_3x3, "expect": _expectation(truth)}
    if truth.weight is not None:
        row["shape"] = list(truth.weight.shape)
    return row


def _expectation(truth: Truth) -> str:
    """What a reader has to do with the node: read, unread (report why), either, or other (no 3×3 convolution)."""
    if not truth.is_3x3:
        return "other"
    if truth.domain == BLOCKED or (truth.path and not truth.is_stored):  # made of no parameter at all
        return "either"
    if truth.reason:
        return "unread"
    return "either" if truth.weight is None else "read"  # the runtime refuses the file, or its scale is nowhere


def agreement(weight: np.ndarray, captured: list[np.ndarray], tolerance: float) -> str:
    """Compare with what PyTorch convolved by: equal, scaled (a batch normalisation folded in), or no."""
    best = "no"
    for other in captured:
        if other.shape != weight.shape:
            continue
        if np.abs(weight - other).max() <= tolerance * max(float(np.abs(other).max()), 1e-30):
            return "equal"
        flat, base = weight.reshape(len(weight), -1), other.reshape(len(other), -1)
        factor = (flat * base).sum(1) / np.maximum((base * base).sum(1), 1e-30)
        rest = np.abs(flat - factor[:, None] * base).max(1)
        if (rest <= tolerance * max(float(np.abs(flat).max()), 1e-30)).all():
            best = "scaled"
    return best


def _rank(rows: list[dict[str, Any]]) -> None:
    """Add `conv_depth` from the lengths of paths, where all are known (files without functions and bodies)."""
    reached = [row for row in rows if row["rank"] == 4 and row["operator"] != "ConvTranspose"]
    lengths = sorted({row["length"] for row in reached if row["length"] is not None})
    for row in rows:
        row["conv_depth"] = lengths.index(row["length"]) if row["length"] in lengths else None
