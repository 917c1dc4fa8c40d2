"""Summarise values as box plots do: quartiles, Tukey's whiskers, mean and outliers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

OUTLIERS = 60
"""Most outliers of a box that are kept: those farthest from the median."""

STATISTICS = ("low", "q1", "median", "q3", "high", "mean")
"""The numbers of a box, in the order of `summary`."""


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
    values = values[np.isfinite(values)]
    values.sort()
    if not values.size:
        return None
    q1, median, q3 = _quartiles(values)
    reach = 1.5 * (q3 - q1)
    first, last = np.searchsorted(values, q1 - reach, "left"), np.searchsorted(values, q3 + reach, "right")
    inside, beyond = values[first:last], np.concatenate([values[:first], values[last:]])
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


def _quartiles(ordered: np.ndarray) -> NDArray[np.float64]:
    """Return the quartiles of sorted values with the bits of np.percentile, which copies all of them."""
    place = (len(ordered) - 1) * np.array([0.25, 0.5, 0.75])
    below = np.floor(place).astype(np.int64)
    low, high = ordered[below], ordered[np.minimum(below + 1, len(ordered) - 1)]
    share, step = place - below, high - low
    quartiles: NDArray[np.float64] = np.where(share < 0.5, low + step * share, high - step * (1 - share))
    return quartiles


def summary(parts: Iterable[np.ndarray]) -> NDArray[np.float64]:
    """Return STATISTICS of the finite values of each part, (parts, 6) float64; NaN for a part without any."""
    boxes = [box("", values) for values in parts]
    rows = [[np.nan] * len(STATISTICS) if row is None else [getattr(row, name) for name in STATISTICS] for row in boxes]
    return np.array(rows, np.float64).reshape(-1, len(STATISTICS))
