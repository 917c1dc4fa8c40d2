"""Box plots as numbers: what the page and the files draw, and what stands in the table beside them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import xarray as xr

OUTLIERS = 60
"""Outliers that are drawn: the farthest ones."""


@dataclass(frozen=True, slots=True)
class Box:
    """Quartiles, Tukey's whiskers (the last value within 1.5 times the box's length) and what lies beyond."""

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
        """As a row of a table."""
        found = asdict(self)
        del found["outliers"]
        return found


def box(label: object, values: np.ndarray) -> Box | None:
    """The box of the finite values; None where there is none."""
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
    """The strict upper triangle of the last two dims, (…, pairs): each pair of groups once (P2 fig. 4)."""
    rows, columns = np.triu_indices(matrix.shape[-1], 1)
    found: np.ndarray = matrix[..., rows, columns]
    return found


def by_grouping(drifts: dict[str, xr.Dataset]) -> list[Box]:
    """A box of D for each grouping's `drift` result (P2 fig. 4)."""
    found = [box(by, pairs(result["drift"].values)) for by, result in drifts.items()]
    return [one for one in found if one is not None]


def by_component(result: xr.Dataset) -> list[Box]:
    """Return a box of the unweighted drift for each component of a `drift` result (P1 fig. 6)."""
    found = [box(f"c{i}", values) for i, values in enumerate(pairs(result["per_component"].values))]
    return [one for one in found if one is not None]


def by_decile(result: xr.Dataset) -> list[Box]:
    """A box of the filters' scale over groups for each tenth of the depth of a `filter_scale` result (P2 fig. 6)."""
    labels, values = result["decile"].values, result["decile_scale"].values
    found = [box(label, values[:, i]) for i, label in enumerate(labels)]
    return [one for one in found if one is not None]


def by_stratum(result: xr.Dataset) -> list[Box]:
    """A box of D for each stratum of a `drift` result with `within` (P1 fig. 9)."""
    labels = result["stratum"].values
    found = [box(label, pairs(result["drift"].sel(stratum=label).values)) for label in labels]
    return [one for one in found if one is not None]
