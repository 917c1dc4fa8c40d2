"""Build the parts of a model's page that a stored model and a file have in common. Imports nothing heavy."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from filterdb.analysis.findings import (
    ERROR,
    FAILED,
    INCOMPLETE,
    MEANINGS,
    NOTHING_CHECKED,
    PASSED,
    UNREADABLE,
    Finding,
)
from filterdb.ledger import CODES, is_unread
from filterdb.numerics.depth import DECILES, NO_DECILE
from filterdb.numerics.percentiles import FEWEST_PEERS
from filterdb.page.payload import pack
from filterdb.page.verdict_words import verdict_place
from filterdb.plotting.drawing import visible
from filterdb.schema import parse_shape

FIRST_FILTERS = 4
"""Number of filters of a layer that a model's page shows."""

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""The quantiles of the layers of other models in a tenth of the depth, with which a layer is compared."""

MOST_HITS = 6
"""Most layers of a card that have a sentence each; the table of layers has all."""

MOST_SKIPPED = 100
"""Most convolutions with one reason to have no numbers whose names a page lists; it counts all."""

GOOD, WARN, BAD, GREY = "good", "warn", "bad", "grey"
"""The tones in which a page shows a status, by green, amber, red and grey, and by a sign each."""

TONES = {PASSED: GOOD, FAILED: BAD, INCOMPLETE: BAD, NOTHING_CHECKED: GREY, UNREADABLE: BAD}
"""The tone of each status of a checked file."""

Band = list[list[float] | None]
"""QUANTILES in each tenth of the depth; None where there are too few layers."""


def finding_cards(listed: Iterable[Finding], position: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return a card for each rule and remedy: what it means, where it is broken, and what to do.

    `position` has the position of each layer by its name. Errors come first.
    """
    cards: dict[tuple[str, str], dict[str, Any]] = {}
    for finding in listed:
        tone = BAD if finding.level == ERROR else WARN
        card = cards.setdefault(
            (finding.rule, finding.remedy),
            {
                "rule": finding.rule,
                "tone": tone,
                "meaning": MEANINGS[finding.rule],
                "remedy": finding.remedy,
                "hits": [],
                "layers": 0,
            },
        )
        card["layers"] += bool(finding.layer)
        if len(card["hits"]) < MOST_HITS:
            card["hits"].append([position.get(finding.layer) if finding.layer else None, visible(finding.message)])
    return sorted(cards.values(), key=lambda card: card["tone"] != BAD)


def skipped_rows(skipped: Iterable[tuple[str, str, str]]) -> list[dict[str, Any]]:
    """Return the convolutions without numbers, given as layer, code and reason, in a row for each code and reason.

    Those that should have been read come first. A non-finite layer is among the layers, so it is left out.
    """
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for layer, code, reason in skipped:
        if code == "nonfinite":
            continue
        row = rows.setdefault((code, reason), _skipped_row(code, reason))
        row["count"] += 1
        if len(row["layers"]) < MOST_SKIPPED:
            row["layers"].append(visible(layer))
    return sorted(rows.values(), key=lambda row: not row["unread"])


def _skipped_row(code: str, reason: str) -> dict[str, Any]:
    """Return a row about convolutions with this code and reason, without their names."""
    meaning = CODES[code].meaning if code in CODES else "unknown to this version"
    return {
        "code": visible(code),
        "meaning": meaning,
        "reason": visible(reason) if reason != meaning else "",
        "unread": is_unread(code),
        "count": 0,
        "layers": [],
    }


def tiles(filters: Sequence[npt.NDArray[np.float32] | None]) -> dict[str, Any] | None:
    """Return the first filters of each layer, (number, weights) or None, each layer scaled to its largest weight."""
    at, numbers, parts = [], [], []
    for position, first in enumerate(filters):
        if first is None or not first.size:
            continue
        rows = first[:FIRST_FILTERS]
        largest = float(np.abs(rows).max())
        at.append(position)
        numbers.append(len(rows))
        parts.append(np.rint(127 * (rows / (largest or 1.0))).astype(np.int8).ravel())
    if not parts:
        return None
    return {"at": at, "number": numbers, "weights": pack(np.concatenate(parts))}


def strides_text(text: str) -> str:
    """Return strides, which are JSON, as "2×2", or "2" if all are equal; empty if they are unknown."""
    try:
        strides = json.loads(text) if text else []
    except ValueError:
        return ""
    if not isinstance(strides, list) or not all(type(step) is int for step in strides):
        return ""
    return str(strides[0]) if strides and len(set(strides)) == 1 else "×".join(map(str, strides))


def kernel_texts(names: Iterable[str]) -> list[str]:
    """Return the names of kernel shapes, such as "3x3", as texts; those of layers that were not read are empty."""
    return ["×".join(map(str, parse_shape(name))) if name else "" for name in names]


def band(tenth: npt.NDArray[Any], values: npt.NDArray[Any]) -> Band:
    """Return QUANTILES of the layers in each tenth of the depth.

    While a tenth has too few layers, those of one tenth more on either side count too, as for percentiles.
    """
    bands: Band = []
    for number in range(len(DECILES)):
        inside = values[(tenth == number) & np.isfinite(values)]
        if len(inside) < FEWEST_PEERS:
            inside = values[(tenth != NO_DECILE) & (np.abs(tenth - number) <= 1) & np.isfinite(values)]
        bands.append(np.quantile(inside, QUANTILES).tolist() if len(inside) >= FEWEST_PEERS else None)
    return bands


def compact(columns: Mapping[str, list[Any]]) -> dict[str, Any]:
    """Return columns with the value alone where all layers have the same: pages of many models become smaller."""
    return {
        name: values[0]
        if len(values) > 1 and all(value == values[0] for value in values) and name not in _LISTS
        else values
        for name, values in columns.items()
    }


_LISTS = ("name", "flags")
"""Columns that are never compact: one tells the number of layers, the values of the other are lists."""


def number_list(values: npt.NDArray[Any], digits: int = 3) -> list[Any]:
    """Return numbers with some significant digits, None for NaN, integers as they are."""
    if values.dtype.kind in "iub":
        exact: list[Any] = values.astype(np.int64).tolist()
        return exact
    return [float(f"{value:.{digits}g}") if np.isfinite(value) else None for value in values.tolist()]


def nearest_rows(columns: Mapping[str, Iterable[Any]]) -> list[dict[str, Any]]:
    """Return a row for each of the nearest models.

    `columns` are name, id, drift, noise, excess, verdict, judged_by and labels, each with a value for each model.
    """
    rows = []
    for values in zip(*columns.values(), strict=True):
        row = dict(zip(columns, values, strict=True))
        row["verdict"] = verdict_place(row.pop("verdict"), row.pop("judged_by"))
        rows.append({**row, **{name: _finite(row[name]) for name in ("drift", "noise", "excess")}})
    return rows


def _finite(value: float) -> float | None:
    """Return a number, None for NaN and infinities."""
    return float(value) if np.isfinite(value) else None
