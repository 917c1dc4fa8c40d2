"""Box plots as numbers, for the page, the figures and the tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from filterdb.numerics.box import Box, box
from filterdb.plotting.drawing import visible


def pairs(matrix: np.ndarray) -> np.ndarray:
    """Return the strict upper triangle of the last two dims, (…, pairs), which has each pair of groups once."""
    rows, columns = np.triu_indices(matrix.shape[-1], 1)
    values: np.ndarray = matrix[..., rows, columns]
    return values


def by_grouping(drifts: dict[str, xr.Dataset]) -> list[Box]:
    """Return a box of D for each grouping's `drift` result (P2 fig. 4)."""
    return _existing([box(by, pairs(result["drift"].values)) for by, result in drifts.items()])


def by_component(result: xr.Dataset) -> list[Box]:
    """Return a box of the unweighted drift for each component of a `drift` result (P1 fig. 6)."""
    return _existing([box(f"c{i}", values) for i, values in enumerate(pairs(result["per_component"].values))])


def by_decile(result: xr.Dataset) -> list[Box]:
    """Return a box of the scale over groups for each tenth of the depth of a `filter_scale` result (P2 fig. 6)."""
    labels, values = result["decile"].values, result["decile_scale"].values
    return _existing([box(label, values[:, i]) for i, label in enumerate(labels)])


def by_stratum(result: xr.Dataset) -> list[Box]:
    """Return a box of D for each stratum of a `drift` result with `within` (P1 fig. 9)."""
    labels = result["stratum"].values
    return _existing([box(label, pairs(result["drift"].sel(stratum=label).values)) for label in labels])


def _existing(boxes: list[Box | None]) -> list[Box]:
    return [row for row in boxes if row is not None]


def as_json(rows: list[Box]) -> list[dict[str, Any]]:
    """Return boxes as the page's scripts read them."""
    return [{**row.row(), "label": visible(row.label), "outliers": list(row.outliers)} for row in rows]
