"""Bins and probabilities of coefficient histograms."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from filterdb.choices import BINS as BINS  # noqa: PLC0414 - also imported from here

PSEUDO_FILTERS = 35
"""α of the shrinkage toward the whole snapshot: ½ filter in each of the 70 bins."""

FLOAT32_EPS = 1.1920929e-07
"""Density of an empty bin in `paper` mode."""


EDGE_TOLERANCE = 1e-9
"""Distance from the edge of a bin within which a coefficient is on the edge, in bin widths.

Coefficients that lie on an edge in exact arithmetic (all-zero filters where the range is symmetric about them) are off
by rounding errors, which depend on the order of the filters. All of them count in the bin above, at either end of the
range in the outermost bin. Rounding moves coefficients by 1e-13 of a bin; only ties come this near to an edge.
"""


SUMMED_ROWS = 8_192
"""Rows that `sum_groups` sums at a time: about 40 MB of counts."""


def sum_groups(values: NDArray[Any], group: NDArray[np.int64], groups: int) -> NDArray[Any]:
    """Return the sums of rows (n, …) by `group` (n,), (groups, …): int64 of integers of any size, else of their dtype.

    Floats are added one row after the other, so that the same rows give the same bytes.
    """
    whole = values.dtype.kind in "iu"
    total = np.zeros((groups, *values.shape[1:]), np.int64 if whole else values.dtype)
    if not whole:
        np.add.at(total, group, values)
        return total
    for start in range(0, len(values), SUMMED_ROWS):
        part = slice(start, start + SUMMED_ROWS)
        order = np.argsort(group[part], kind="stable")
        present, first = np.unique(group[part][order], return_index=True)
        total[present] += np.add.reduceat(values[part][order], first, axis=0, dtype=np.int64)
    return total


def bin_edges(low: float, high: float, bins: int = BINS) -> NDArray[np.float64]:
    """Return the edges (bins + 1,) of uniform bins over [low, high], as numpy.histogram has them.

    A range without width becomes [low − ½, high + ½], as in numpy.histogram.
    """
    if low == high:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, bins + 1)


def edge_slack(edges: np.ndarray) -> float:
    """Return EDGE_TOLERANCE in the unit of the edges (bins + 1,)."""
    return EDGE_TOLERANCE * float(edges[-1] - edges[0]) / (len(edges) - 1)


def paper_probabilities(counts: np.ndarray, edges: np.ndarray) -> NDArray[np.float64]:
    """Return the probabilities of counts (…, 70) as P1's code does: normalised densities, FLOAT32_EPS for zero."""
    width = np.diff(edges)
    total = np.maximum(counts.sum(axis=-1, keepdims=True), 1)
    density = counts / total / width
    density = np.where(density == 0, FLOAT32_EPS, density)
    probabilities: NDArray[np.float64] = density / density.sum(axis=-1, keepdims=True)
    return probabilities


def prior(whole: np.ndarray) -> NDArray[np.float64]:
    """Return π = (C + ½)/(N + 35) of the whole snapshot's counts (K, 70)."""
    smoothed: NDArray[np.float64] = (whole + PSEUDO_FILTERS / BINS) / (
        whole.sum(axis=-1, keepdims=True) + PSEUDO_FILTERS
    )
    return smoothed


def sound_probabilities(counts: np.ndarray, whole: np.ndarray) -> NDArray[np.float64]:
    """Return the probabilities of counts (…, K, 70), shrunk toward the whole snapshot's (K, 70): (c + α·π)/(n + α)."""
    probabilities: NDArray[np.float64] = counts + PSEUDO_FILTERS * prior(whole)
    # In place, because for all layers of the published data the array has 108 MB.
    probabilities /= counts.sum(axis=-1, keepdims=True) + PSEUDO_FILTERS
    return probabilities
