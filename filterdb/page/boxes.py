"""Box plots as numbers, for the page, the figures and the tables."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import xarray as xr

from filterdb.page.drawing import visible

OUTLIERS = 60
"""Most outliers of a box that are drawn: those farthest from the median."""


@dataclass(frozen=True, slots=True)
class Box:
    """Quartiles, Tukey's whiskers (the last value within 1.5 times the box's length), mean and outliers."""

    label: str
    number: int
    low: float
    q1: float
    median: float
    q3: float
    high: float
    mean: float
    outliers: tuple[float, ...]

    def row(self) -> dict[str, Any]:
        """Return the box as a row of a table."""
        return {name: value for name, value in asdict(self).items() if name != "outliers"}


def box(label: object, values: np.ndarray) -> Box | None:
    """Return the box of the finite values; None if there is no finite value."""
    values = np.sort(values[np.isfinite(values)], axis=None)
    if not values.size:
        return None
    q1, median, q3 = np.percentile(values, [25, 50, 75])
    reach = 1.5 * (q3 - q1)
    inside = values[(values >= q1 - reach) & (values <= q3 + reach)]
    beyond = values[(values < inside[0]) | (values > inside[-1])]
    far = beyond[np.argsort(-np.abs(beyond - median), kind="stable")[:OUTLIERS]]
    return Box(
        str(label),
        values.size,
        float(inside[0]),
        float(q1),
        float(median),
        float(q3),
        float(inside[-1]),
        float(values.mean()),
        tuple(np.sort(far).tolist()),
    )


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
